"""Networks against their configuration: every mismatch is named; one image, or a batch of cameras."""

import numpy as np
import pytest
import warp as wp
from onnx import helper
from tests.onnx_models import camera_network, save_network

from saccade.config import EngineConfig, NetworkConfig, RunConfig
from saccade.errors import ModelError
from saccade.frame import Frame, Stamps
from saccade.kernels.decode import SUMMARY_SIZE
from saccade.mailbox import Mailbox
from saccade.network import Network

SENSORS = RunConfig.model_validate(
    {
        "scene": "s",
        "sensors": {
            "eye": {"kind": "camera", "prim": "c", "width": 16, "height": 16},
            **{f"eye{n}": {"kind": "camera", "prim": "c", "width": 16, "height": 16} for n in range(16)},
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
    assert network(path, {"image": image()}, labels="labels").labels["eye"].shape == (16, 16)


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


# ------------------------------------------------------------------------------------------------------------- batches


def cameras(count):
    return [f"eye{n}" for n in range(count)]


def frame_of(sensor, *, seed):
    image = np.random.default_rng(seed).integers(0, 1 << 24, (16, 16)).astype(np.uint32)
    return Frame(sensor, "camera", 0, 0.0, Stamps(), {"color": wp.array(image, device="cpu")})


def hazard_network(path, shape):
    """Hazard of shape ``shape`` is the mean of each image."""
    return save_network(
        path,
        inputs={"image": ["n", 3, 16, 16]},
        outputs={"hazard": ["n", 1] if shape == [-1, 1] else shape},
        nodes=[
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "shape"], ["hazard"]),
        ],
        constants={"shape": np.array(shape, np.int64)},
    )


def infer(network, frames):
    network.input_work("image", frames).run()
    network.engine.enqueue(None)
    network.launch_decode()
    return network.results()


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_a_batch_gives_what_single_images_give(tmp_path, count):
    """Labels and hazard of each camera, in the order of the configuration, and the size of the batch."""
    labels = camera_network(tmp_path / "labels.onnx", batch="n")
    hazard = hazard_network(tmp_path / "hazard.onnx", [-1, 1])
    frames = {sensor: frame_of(sensor, seed=n) for n, sensor in enumerate(cameras(count))}
    for path, decoder in ((labels, {"labels": "labels"}), (hazard, {"hazard": "hazard"})):
        together = network(path, {"image": image(sensor=cameras(count))}, **decoder)
        assert together.batch == count and together.primary == tuple(cameras(count))
        found = infer(together, frames)
        assert [result.sensor for result in found] == cameras(count)
        seen = set()
        for result in found:
            alone = network(path, {"image": image(sensor=result.sensor)}, **decoder)
            (wanted,) = infer(alone, frames)
            assert result.hazard == (None if wanted.hazard is None else pytest.approx(wanted.hazard, abs=1e-6))
            assert result.finite is wanted.finite is True
            if wanted.labels is not None:
                np.testing.assert_array_equal(result.labels.numpy(), wanted.labels.numpy())
                seen.add(result.labels.numpy().tobytes())
            else:
                seen.add(result.hazard)
        assert len(seen) == count


def test_one_camera_of_a_batch_is_not_finite(tmp_path):
    """Only its own result is marked."""
    together = network(
        hazard_network(tmp_path / "m.onnx", [-1, 1]), {"image": image(sensor=cameras(3))}, hazard="hazard"
    )
    infer(together, {sensor: frame_of(sensor, seed=n) for n, sensor in enumerate(cameras(3))})
    together.outputs["hazard"].assign(np.array([[0.5], [np.nan], [0.25]], np.float32))
    together.launch_decode()
    assert [result.finite for result in together.results()] == [True, False, True]
    assert together.results()[2].hazard == 0.25


def test_summaries_lie_where_they_are_placed(tmp_path):
    """Two networks side by side in one mailbox, each in its own rows."""
    path = hazard_network(tmp_path / "m.onnx", [-1, 1])
    frames = {sensor: frame_of(sensor, seed=n) for n, sensor in enumerate(cameras(3))}
    networks = [network(path, {"image": image(sensor=names)}, hazard="hazard") for names in (cameras(2), "eye2")]
    apart = [[result.hazard for result in infer(entry, frames)] for entry in networks]
    mailbox = Mailbox(3, "cpu")
    networks[0].place(mailbox, 0)
    networks[1].place(mailbox, 2)
    for entry in networks:
        entry.input_work("image", frames).run()
        entry.engine.enqueue(None)
        entry.launch_decode()
    assert [[result.hazard for result in entry.results()] for entry in networks] == apart
    assert mailbox.rows(0, 3).shape == (3, SUMMARY_SIZE)


def test_a_network_of_another_batch(tmp_path):
    """A file for one image is not given four cameras: what it takes and what to do are said."""
    path = camera_network(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"image"):
        network(path, {"image": image(sensor=cameras(4))})


@pytest.mark.parametrize("shape", [[1, 4], [2, 2]])
def test_values_of_a_batch_that_are_not_one_per_image(tmp_path, shape):
    """As many values as images, in rows of another batch: whose is which cannot be told."""
    path = hazard_network(tmp_path / "m.onnx", shape)
    with pytest.raises(ModelError, match=r"has shape \[\d, \d\], expected one value for each of 4 images"):
        network(path, {"image": image(sensor=cameras(4))}, hazard="hazard")
