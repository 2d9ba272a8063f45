"""Frames from images, recordings, rendered datasets and archives, as a network takes them."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.models.conftest import drawn_dataset  # noqa: F401
from tests.simulators.test_replay import TICKS, record, scripted_ticks

from saccade.errors import ConfigurationError, RecordError
from saccade.precision.sources import ImagePreparation, samples_from

CAMERA = {"image": (1, 3, 224, 224)}
LIDAR = {"scan": (None, 2, 32, 1024)}


@pytest.mark.parametrize("kind", ["camera", "lidar"])
def test_rendered_dataset(kind, drawn_dataset):  # noqa: F811
    shapes = CAMERA if kind == "camera" else LIDAR
    (name,) = shapes
    calibration, held = (samples_from(drawn_dataset, shapes, role=role) for role in ("calibration", "evaluation"))
    assert len(calibration) == 8 and len(held) == 4
    array = calibration.inputs[name]
    assert array.shape == (8, *shapes[name][1:]) and array.dtype == np.float32
    assert calibration.truth["labels"].shape == (8, *shapes[name][2:])
    assert set(calibration.truth) == ({"labels", "hazard"} if kind == "camera" else {"labels", "valid", "clearance"})
    # The noise belongs to the frame: read again, in another number, it is the same sample.
    again = samples_from(drawn_dataset, shapes, role="calibration", count=4)
    assert len(again) == 4 and set(again.hashes) <= set(calibration.hashes)
    if kind == "lidar":
        assert array[:, 0].max() <= 1.01 and (array[:, 0][~calibration.truth["valid"]] == 0).all()


def test_other_sizes(drawn_dataset):  # noqa: F811
    samples = samples_from(drawn_dataset, {"image": (1, 3, 112, 96)})
    assert samples.inputs["image"].shape == (8, 3, 112, 96) and samples.truth["labels"].shape == (8, 112, 96)
    with pytest.raises(ConfigurationError, match="range images"):
        samples_from(drawn_dataset, {"scan": (1, 2, 16, 1024)})


def test_a_network_that_no_sensor_feeds(drawn_dataset):  # noqa: F811
    with pytest.raises(ConfigurationError, match=r"a \[1, 8\].*Give a .npz"):
        samples_from(drawn_dataset, {"a": (1, 8), "b": (1, 8)})


def test_images(tmp_path):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for index, color in enumerate(colors):
        Image.new("RGB", (32, 16), color).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no image")
    samples = samples_from(tmp_path, {"image": (1, 3, 8, 8)})
    array = samples.inputs["image"]
    assert array.shape == (3, 3, 8, 8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(array[0, :, 0, 0], (np.array([1, 0, 0]) - mean) / std, rtol=1e-5)
    plain = ImagePreparation((0, 0, 0), (1, 1, 1), "bgr")
    swapped = samples_from(tmp_path, {"image": (1, 3, None, None)}, preparation=plain).inputs["image"]
    assert swapped.shape == (3, 3, 16, 32) and swapped[0, :, 0, 0].tolist() == [0, 0, 1]
    assert len(samples_from(tmp_path, {"image": (1, 3, 8, 8)}, count=2)) == 2


def test_images_that_cannot_be_used(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ConfigurationError, match=r"broken\.png: cannot read"):
        samples_from(tmp_path, {"image": (1, 3, 8, 8)})
    with pytest.raises(ConfigurationError, match="images are for networks"):
        samples_from(tmp_path, {"scan": (1, 2, 8, 8)})
    (tmp_path / "broken.png").unlink()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "b.png")
    with pytest.raises(ConfigurationError, match=r"b\.png: 9x8, but a\.png is 8x8"):
        samples_from(tmp_path, {"image": (1, 3, None, None)})


def test_archive(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, x=np.arange(10, dtype=np.float16).reshape(10, 1))
    samples = samples_from(path, {"x": (None, 1)}, count=4)
    assert samples.inputs["x"][:, 0].tolist() == [0, 3, 6, 9] and samples.inputs["x"].dtype == np.float32


def test_nothing_there(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        samples_from(tmp_path / "nothing", CAMERA)


def test_recording(tmp_path):
    """Every decision's frame as the loop's kernels prepare it; a network of another input gets the only camera."""
    record(tmp_path)
    camera = samples_from(tmp_path, {"picture": (1, 3, 4, 6)})
    assert camera.inputs["picture"].shape == (TICKS, 3, 4, 6)
    whole = samples_from(tmp_path, {"picture": (1, 3, 8, 12)}).inputs["picture"]
    for tick, image in zip(scripted_ticks(), whole, strict=True):
        rgba = np.ascontiguousarray(tick.frames[0].buffers["color"].numpy()).view(np.uint8).reshape(8, 12, 4)
        wanted = ImagePreparation().tensor(rgba[None, ..., :3].astype(np.float32) / 255)[0]
        np.testing.assert_allclose(image, wanted, atol=2e-2)
    lidar = samples_from(tmp_path, {"scan": (1, 2, 4, 16)}, count=3)
    scans = lidar.inputs["scan"]
    # The recorded NaN is what the sensor gave: it is passed on here, and refused where ranges are measured.
    assert scans.shape == (3, 2, 4, 16) and np.argwhere(~np.isfinite(scans[0])).tolist() == [[0, 0, 0]]
    assert lidar.truth == {}


def test_damaged_recording(tmp_path):
    (tmp_path / "sensors").mkdir()
    with pytest.raises(RecordError, match=r"run\.json"):
        samples_from(tmp_path, CAMERA)
    (tmp_path / "run.json").write_text(json.dumps({"configuration": {"sensors": {}}}))
    with pytest.raises(ConfigurationError, match="0 sensors of that kind"):
        samples_from(tmp_path, CAMERA)
