"""Networks against their configuration: every mismatch is named."""

import pytest
from tests.onnx_models import camera_network, save_network

from saccade.config import EngineConfig, NetworkConfig, RunConfig
from saccade.errors import ModelError
from saccade.network import Network

SENSORS = RunConfig.model_validate(
    {
        "scene": "s",
        "sensors": {
            "eye": {"kind": "camera", "prim": "c", "width": 16, "height": 16},
            "laser": {"kind": "lidar", "prim": "l", "channels": 4, "columns": 32},
        },
    }
).sensors


def network(path, inputs, **decoder):
    config = NetworkConfig.model_validate({"model": "m", "inputs": inputs, "decoder": decoder})
    return Network("camera", config, path, sensors=SENSORS, engine=EngineConfig())


def image(**options):
    return {"kind": "image", "sensor": "eye", **options}


def test_wrong_input_name_lists_the_right_ones(tmp_path):
    """The configured name, the file and the inputs that exist are in the message."""
    path = camera_network(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"networks\.camera\.inputs.*no input picture.*image float32"):
        network(path, {"picture": image()})


def test_missing_input_is_named(tmp_path):
    """A file that needs more inputs than configured says which."""
    from onnx import helper

    path = save_network(
        tmp_path / "m.onnx",
        inputs={"a": [1, 3, 16, 16], "b": [1, 3, 16, 16]},
        outputs={"y": [1, 3, 16, 16]},
        nodes=[helper.make_node("Add", ["a", "b"], ["y"])],
    )
    with pytest.raises(ModelError, match="also needs b"):
        network(path, {"a": image()})


def test_size_that_the_file_does_not_take(tmp_path):
    """A configured size that the network does not have is refused."""
    path = camera_network(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="size"):
        network(path, {"image": image(size=(32, 32))})


def test_open_size_follows_the_camera(tmp_path):
    """A network with open height and width takes the camera's resolution."""
    path = camera_network(tmp_path / "m.onnx", size=("h", "w"))
    assert network(path, {"image": image()}, labels="labels").labels.shape == (16, 16)


def test_lidar_input_for_a_camera_network(tmp_path):
    """Two channels do not fit a network with three."""
    path = camera_network(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="image"):
        network(path, {"image": {"kind": "range_image", "sensor": "laser"}})


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        ({"labels": "segmentation"}, r"no output 'segmentation'; it has labels, hazard"),
        ({"hazard": "labels"}, "expected one value"),
        ({"clearance": "hazard"}, "expected 16 sectors"),
        ({"labels": "labels", "classes": ["floor", "person"]}, r"2 classes are configured"),
        ({"labels": "hazard"}, r"expected \[1, 6, height, width\]"),
    ],
)
def test_decoder_that_does_not_fit(tmp_path, decoder, text):
    """Unknown outputs and wrong shapes are named with what was expected."""
    path = camera_network(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=text):
        network(path, {"image": image()}, **decoder)
