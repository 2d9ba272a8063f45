"""Runs that cannot be: bad input is named with its remedy, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.end_to_end import assert_nothing_left, run_here

from saccade.configuration import load_configuration
from saccade.errors import ConfigurationError, DependencyError, ModelError, RecordError, SaccadeError, SceneError


@pytest.mark.parametrize(
    ("override", "error", "parts"),
    [
        ("sensors.eye.prim=eyes", SceneError, ["sensors.eye.prim", "eyes", "/Robot/trunk/eye"]),
        ("sensors.eye.prim=/World/camera", SceneError, ["sensors.eye.prim", "/World/camera", "/Robot/trunk/eye"]),
        ("sensors.lidar.prim=/Robot/nose", SceneError, ["sensors.lidar.prim", "/Robot/nose"]),
        ("simulator.humanoid.prim=/World/Robt", SceneError, ["/World/Robt", "/Robot"]),
        ("sensors.lidar.columns=128", ModelError, ["range_image", "128", "64", "lidar.onnx"]),
        (
            "networks.camera.inputs={picture: {kind: image, sensor: eye}}",
            ModelError,
            ["networks.camera", "no input picture", "image float32 [1, 3, 16, 16]"],
        ),
        ("networks.camera.inputs.image.size=[24, 24]", ModelError, ["camera.onnx", "image", "24"]),
        (
            "networks.camera.decoder.labels=classes",
            ModelError,
            ["networks.camera.decoder.labels", "'classes'", "it has labels, hazard"],
        ),
        (
            "networks.camera.decoder.classes=[floor, structure]",
            ModelError,
            ["networks.camera.decoder", "[1, 6, 16, 16]", "2 classes"],
        ),
        ("engine.backend=tensorrt", DependencyError, ["engine.backend", "tensorrt", "onnxruntime"]),
        ("simulator.backend=isaac", DependencyError, ["simulator.backend", "isaac", "newton"]),
    ],
)
def test_what_does_not_fit_is_named_with_the_remedy_and_leaves_nothing(room, former, override, error, parts):
    with pytest.raises(error) as caught:
        run_here(room, former, override)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.exit_status == 2
    assert_nothing_left(former)


def test_a_run_that_cannot_start_leaves_no_latest_where_there_was_none(room, tmp_path):
    with pytest.raises(SceneError):
        run_here(room, tmp_path / "runs", "sensors.eye.prim=eyes")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["broken.onnx"]),
        (b"this is no network", ["broken.onnx", "ONNX"]),
        ("half", ["broken.onnx", "ONNX"]),
        ("flipped", ["broken.onnx", "ONNX"]),
    ],
    ids=["empty", "text", "cut off", "overwritten"],
)
def test_a_corrupt_network_is_named(room, former, content, parts):
    whole = (room / "lidar.onnx").read_bytes()
    made = {"half": whole[: len(whole) // 2], "flipped": whole[:20] + b"\xff" * 40 + whole[60:]}
    model = former.parent / "broken.onnx"
    model.write_bytes(content if isinstance(content, bytes) else made[content])
    with pytest.raises(ModelError) as caught:
        run_here(room, former, f"networks.lidar.model={model}")
    for part in parts:
        assert part in str(caught.value)
    assert_nothing_left(former)


def test_a_network_with_another_kind_of_input(room, former):
    # the LiDAR's network on the camera: two channels instead of three, and another name
    with pytest.raises(ModelError, match=r"lidar\.onnx has no input image; its inputs are: range_image"):
        run_here(room, former, "networks.camera.model=lidar.onnx")
    assert_nothing_left(former)


def still_scene(path: Path) -> Path:
    from tests.simulators.robots import Scene

    scene = Scene(path)
    scene.box("/World/ground", (30, 30, 0.2), (0, 0, -0.1), label="floor", collide=False)
    return scene.save()


def test_a_scene_without_physics(room, former):
    scene = still_scene(former.parent / "still.usda")
    with pytest.raises(SceneError, match=r"no physics.*PhysicsArticulationRootAPI"):
        run_here(room, former, f"scene={scene}")
    assert_nothing_left(former)


def test_a_scene_that_is_no_usd_file(room, former):
    scene = former.parent / "broken.usda"
    scene.write_text("#usda 1.0\ndef Xform {\n")
    with pytest.raises(SceneError, match=r"broken\.usda"):
        run_here(room, former, f"scene={scene}")
    assert_nothing_left(former)


def test_a_missing_scene_names_those_that_exist(room, former):
    with pytest.raises(SceneError, match=r"scene: there is no scene 'rom\.usda'(.|\n)*room\.usda"):
        run_here(room, former, "scene=rom.usda")
    assert_nothing_left(former)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sensors.eye.widht=32", ["--set", "sensors.eye", "widht", "did you mean 'width'?"]),
        ("budgets.contact=0", ["--set", "budgets.contact", "did you mean 'contacts'?"]),
        ("sensors.eye.width=broad", ["--set", "sensors.eye.width", "integer", "'broad'"]),
        ("run.frames=0", ["--set", "run.frames", "integer >= 1", "0"]),
        ("networks.camera.inputs.image.sensor=ear", ["networks.camera.inputs.image.sensor", "'ear'", "eye, lidar"]),
    ],
)
def test_a_mistyped_field_names_the_nearest(room, override, parts):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(room / "run.yaml", overrides=[override])
    for part in parts:
        assert part in str(caught.value)


def test_a_mistyped_field_in_the_file_names_file_and_line(room, tmp_path):
    text = (room / "run.yaml").read_text().replace("deadline_ms", "dedline_ms")
    (tmp_path / "run.yaml").write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "dedline_ms" in row)
    with pytest.raises(ConfigurationError, match=rf"run\.yaml:{line}: .*dedline_ms.*did you mean 'deadline_ms'"):
        load_configuration(tmp_path / "run.yaml")


@pytest.mark.parametrize("out", ["a file", "below a file", "not to be written"])
def test_an_output_folder_that_cannot_be_written(room, tmp_path, out):
    (tmp_path / "file").touch()
    # /sys takes no files from anybody, root included
    where = {
        "a file": tmp_path / "file", "below a file": tmp_path / "file" / "runs", "not to be written": Path("/sys/runs"),
    }[out]  # fmt: skip
    with pytest.raises(RecordError, match=r"--out DIR"):
        run_here(room, where)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_sensor_faster_than_the_step_is_refused(room):
    with pytest.raises(SaccadeError, match=r"sensors\.eye\.rate: 100 Hz is faster"):
        load_configuration(room / "run.yaml", overrides=["sensors.eye.rate=100"])
