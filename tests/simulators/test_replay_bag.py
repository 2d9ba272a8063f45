"""Replay of ROS 2 bags: a run's own gives its results once more, a foreign one becomes frames; both without truth."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")

from tests.bridge.bags import stamped, write_bag
from tests.bridge.test_inputs import cloud, image

from saccade.bridge import contents
from saccade.config import RunConfig
from saccade.errors import RecordError
from saccade.frame import SimState
from saccade.simulators.base import Simulator
from saccade.simulators.replay_bag import BagReplaySimulator, cells_of

EPOCH = 1_790_000_000.0
CHANNELS, COLUMNS, FOV = 4, 32, (-30.0, 30.0)


def configuration(*, frames=6, warmup=0, remap=None, outputs=("color", "depth"), **changes):
    return RunConfig.model_validate(
        {
            "scene": "none.usda",
            "simulator": {"backend": "replay", "step": 0.05},
            "sensors": {
                "eye": {
                    **{"kind": "camera", "prim": "c", "width": 12, "height": 8, "rate": 10, "outputs": list(outputs)},
                    **changes.pop("eye", {}),
                },
                "lidar": {
                    **{"kind": "lidar", "prim": "l", "channels": CHANNELS, "columns": COLUMNS},
                    **{"vertical_fov": FOV, "rate": 10},
                },
            },
            "networks": {
                "a": {"model": "a.onnx", "inputs": {"x": {"kind": "image", "sensor": "eye"}}},
                "b": {"model": "b.onnx", "inputs": {"x": {"kind": "range_image", "sensor": "lidar"}}},
            },
            "run": {"frames": frames, "warmup": warmup},
            "ros2": {"remap": remap or {}},
            **changes,
        }
    )


def pixels(index):
    made = np.zeros((8, 12, 3), np.uint8)
    made[:, :, 0], made[:, :, 2] = index, 200
    return made


def ring(distance, *, shuffled=False):
    """One point in the middle of every cell, the ones straight behind twice as far; in any order if shuffled."""
    rows, columns = np.meshgrid(np.arange(CHANNELS), np.arange(COLUMNS), indexing="ij")
    elevation = np.radians(np.interp(rows, [0, CHANNELS - 1], [FOV[1], FOV[0]]))
    azimuth = columns * 2 * math.pi / COLUMNS
    r = np.where(columns == COLUMNS // 2, 2 * distance, distance)
    xyz = [r * np.cos(elevation) * np.cos(azimuth), r * np.cos(elevation) * np.sin(azimuth), r * np.sin(elevation)]
    flat = [values.astype("f4").ravel() for values in xyz]
    if shuffled:
        order = np.random.default_rng(0).permutation(CHANNELS * COLUMNS)
        flat = [values[order] for values in flat]
    return cloud(dict(zip("xyz", flat, strict=True)))


def entries(count=6, *, lag=0.02, shuffled=True, names=("/eye/image_raw", "/lidar/points")):
    """A robot's recording: epoch stamps, clouds a little after the images, receipt after the stamp."""
    for index in range(count):
        at = EPOCH + 0.1 * index
        yield names[0], at + 0.004, stamped(image(pixels(index), "bgr8", padding=4), at)
        yield names[1], at + lag + 0.001, stamped(ring(1.0 + index, shuffled=shuffled), at + lag)


def replayed(config, bag):
    """Every frame with copies of its buffers, as the loop would get them, and the facts."""
    with closing(BagReplaySimulator(config, bag, "cpu")) as simulator:
        return _frames(config, simulator)


def _frames(config, simulator):
    state = simulator.open("none")
    found = []
    for _ in range(10_000):
        frames = simulator.sense()
        if frames:
            found.append(
                (
                    state,
                    [
                        (f.sensor, f.sequence, f.sim_time, {n: b.numpy().copy() for n, b in f.buffers.items()})
                        for f in frames
                    ],
                    [simulator.ground_truth(frame) for frame in frames],
                )
            )
        if len(found) == config.run.frames + config.run.warmup:
            break
        state = simulator.step(None)
    return found, simulator.facts()


def test_is_a_simulator(tmp_path):
    """It satisfies the protocol, opened or not, and closes twice."""
    simulator = BagReplaySimulator(configuration(), write_bag(tmp_path / "bag", entries()), "cpu")
    assert isinstance(simulator, Simulator)
    assert simulator.facts()["name"] == "replay"
    simulator.open("none")
    simulator.close()
    simulator.close()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_foreign_bag(tmp_path, storage):
    """bgr8 rows with padding and points in any order become frames with their stamps; image and cloud are together."""
    found, facts = replayed(configuration(), write_bag(tmp_path / "bag", entries(), storage=storage))
    assert len(found) == 6
    for index, (state, frames, truths) in enumerate(found):
        assert [(sensor, sequence) for sensor, sequence, _, _ in frames] == [("eye", index), ("lidar", index)]
        assert [at for _, _, at, _ in frames] == pytest.approx(
            [EPOCH + 0.1 * index, EPOCH + 0.1 * index + 0.02], abs=1e-6
        )
        assert state.sim_time == pytest.approx(EPOCH + 0.1 * index + 0.02, abs=1e-6)
        color = frames[0][3]["color"]
        assert set(color.ravel().tolist()) == {200 | 0 << 8 | index << 16 | 255 << 24}
        ranges = frames[1][3]["ranges"]
        expected = np.full((CHANNELS, COLUMNS), 1.0 + index, np.float32)
        expected[:, COLUMNS // 2] *= 2
        np.testing.assert_allclose(ranges, expected, rtol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(frames[1][3]["points"], axis=-1), ranges, rtol=1e-6)
        assert all((t.labels, t.hazard, t.clearance) == (None, None, None) for t in truths)
    assert "depth" not in found[0][1][0][3]
    assert facts["unjudged"].keys() >= {"camera_miou", "lidar_miou", "contacts", "distance_m"}


def test_apart(tmp_path):
    """What was recorded more than half a step apart are decisions of their own, in the order of recording."""
    found, _ = replayed(configuration(frames=12), write_bag(tmp_path / "bag", entries(lag=0.05)))
    assert [[frame[0] for frame in frames] for _, frames, _ in found] == [["eye"], ["lidar"]] * 6
    times = [state.sim_time for state, _, _ in found]
    assert times == sorted(times)


def test_remapped(tmp_path):
    """Topics of any name feed the sensors through ``ros2.remap``."""
    names = ("/camera/color/image_raw", "/velodyne_points")
    remap = {"/eye/image_raw": names[0], "/lidar/points": names[1]}
    found, facts = replayed(configuration(remap=remap), write_bag(tmp_path / "bag", entries(names=names)))
    assert len(found) == 6
    assert facts["topics"]["lidar"] == {"points": "/velodyne_points"}


def test_without_stamps(tmp_path):
    """Where stamps are not set the time of recording takes their place."""
    given = [(topic, at, stamped(message, 0.0)) for topic, at, message in entries()]
    found, _ = replayed(configuration(), write_bag(tmp_path / "bag", given))
    assert [frames[0][2] for _, frames, _ in found] == pytest.approx(
        [EPOCH + 0.1 * i + 0.004 for i in range(6)], abs=1e-6
    )


def test_depth(tmp_path):
    """Depth comes along where each image has one of its stamp, nothing seen as 0; otherwise it is left out and said."""
    depth = np.full((8, 12), 2.5, np.float32)
    depth[0, 0] = np.nan
    with_depth = [
        *entries(),
        *(("/eye/depth", EPOCH + 0.1 * i + 0.004, stamped(image(depth, "32FC1"), EPOCH + 0.1 * i)) for i in range(6)),
    ]
    with_depth.sort(key=lambda entry: entry[1])
    found, _ = replayed(configuration(), write_bag(tmp_path / "whole", with_depth))
    seen = found[3][1][0][3]["depth"]
    assert (seen[0, 0], seen[1, 1]) == (0.0, 2.5)
    gap = [entry for number, entry in enumerate(with_depth) if number != 2 or entry[0] != "/eye/depth"]
    gap = (
        gap
        if len(gap) < len(with_depth)
        else [e for e in with_depth if not (e[0] == "/eye/depth" and e[1] < EPOCH + 0.05)]
    )
    found, facts = replayed(configuration(), write_bag(tmp_path / "gap", gap))
    assert "depth" not in found[0][1][0][3]
    assert "5 messages do not have the stamps of the 6 images" in facts["left_out"]["/eye/depth"]


def test_pose_and_intrinsics(tmp_path):
    """Odometry gives pose and distance, the calibration the intrinsics; distance can then be judged."""
    info = {"fx": 20.0, "fy": 21.0, "cx": 6.0, "cy": 4.0, "width": 12, "height": 8}
    odometry = [
        (
            "/odom",
            EPOCH + 0.1 * index,
            contents.odometry(SimState(position=(0.3 * index, 0.4 * index, 0.9), yaw=0.5, velocity=(0.2, 0.1))),
        )
        for index in range(6)
    ]
    calibration = [("/eye/camera_info", EPOCH, contents.camera_info(EPOCH, "eye_optical_frame", info))]
    given = sorted([*entries(), *odometry, *calibration], key=lambda entry: entry[1])
    found, facts = replayed(configuration(), write_bag(tmp_path / "bag", given))
    state = found[4][0]
    assert state.position == pytest.approx((1.2, 1.6, 0.9))
    assert (state.yaw, state.distance) == (pytest.approx(0.5), pytest.approx(2.0))
    assert facts["sensors"]["eye"]["intrinsics"] == info
    assert "distance_m" not in facts["unjudged"]


def test_cells_of_any_points():
    """Each point of the grid is in its own cell; what lies outside the field of view is in none."""
    message = ring(3.0)
    points = np.stack([message.data.view("f4").reshape(-1, message.point_step // 4)[:, i] for i in range(3)], axis=1)
    config = configuration().sensors["lidar"]
    rows, columns, inside = cells_of(points, np.linalg.norm(points, axis=1), config)
    assert inside.all()
    assert (rows * COLUMNS + columns).tolist() == list(range(CHANNELS * COLUMNS))
    above = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    assert not cells_of(above, np.linalg.norm(above, axis=1), config)[2].any()


def test_nearest_of_a_cell(tmp_path):
    """Of several points in one cell the nearest counts, whatever their order."""
    near = cloud({"x": np.array([5, 2, 9], "f4"), "y": np.zeros(3, "f4"), "z": np.full(3, 0.0, "f4")})
    given = [(topic, at, stamped(near, at) if "lidar" in topic else message) for topic, at, message in entries(1)]
    found, _ = replayed(configuration(frames=1), write_bag(tmp_path / "bag", given))
    ranges = found[0][1][1][3]["ranges"]
    assert sorted(ranges[ranges > 0].tolist()) == [2.0]


def test_what_does_not_fit(tmp_path):
    """Missing topics, other sizes, other rates and too few messages: what the bag has, and what to set."""
    bag = write_bag(tmp_path / "bag", entries())
    for changes, text in (
        ({"eye": {"width": 640}}, r"images of 12x8.*--set sensors.eye.width=12 --set sensors.eye.height=8"),
        ({"eye": {"rate": 2}}, r"recorded at 10 Hz.*--set sensors.eye.rate=10"),
        ({"frames": 100}, r"holds 6 decisions.*--frames 6 at most"),
        ({"remap": {"/eye/image_raw": "/front"}}, r"no topic /front.*/eye/image_raw.*--set ros2.remap"),
    ):
        with pytest.raises(RecordError, match=text):
            BagReplaySimulator(configuration(**changes), bag, "cpu").open("none")


def test_bad_message(tmp_path):
    """A message that cannot be used is named with its number, topic and sensor."""
    given = list(entries())
    given[6][2].encoding = "yuv422"
    with pytest.raises(RecordError, match=r"message 3 of /eye/image_raw \(sensor 'eye'\): .*yuv422"):
        replayed(configuration(), write_bag(tmp_path / "bag", given))


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    pytest.importorskip("newton")
    from tests.end_to_end import make_folder, run_here

    folder = make_folder(tmp_path_factory.mktemp("room"))
    summary = run_here(folder, tmp_path_factory.mktemp("runs"), "record.bag=true", frames=6)
    return folder, Path(summary["directory"])


def test_own_bag(walked, tmp_path):
    """A run's bag gives its results, poses and times once more; accuracy is not judged, and the record says why."""
    from tests.end_to_end import frames_of, run_document, run_here

    folder, run = walked
    budgets = ("budgets.camera_miou=0.1", "budgets.contacts=0", "budgets.distance_m=0")
    summary = run_here(folder, tmp_path, f"simulator.recording={run}", *budgets, frames=6, simulator="replay")
    before, after = frames_of(run), frames_of(Path(summary["directory"]))
    assert len(before) == len(after) == 16
    for one, other in zip(before, after, strict=True):
        for field in ("sensor", "sequence", "phase", "tick"):
            assert one[field] == other[field]
        assert one["sim_time"] == pytest.approx(other["sim_time"], abs=1e-9)
        assert one["pose"] == pytest.approx(other["pose"], abs=1e-9)
        for network, result in one["results"].items():
            assert result["hazard"] == other["results"][network]["hazard"]
            if result["clearance"] is not None:
                assert result["clearance"] == pytest.approx(other["results"][network]["clearance"], abs=1e-4)
        assert other["truth"] is None
    document = run_document(Path(summary["directory"]))
    assert document["verdict"] == "pass"
    assert document["not_judged"] == dict.fromkeys(("camera_miou", "contacts"), "a bag holds no ground truth")
    assert "not judged: camera_miou, contacts: a bag holds no ground truth" in document["reasons"]
    assert "distance_m" in {budget["name"] for budget in document["budgets"]}
    assert document["accuracy"]["camera_miou"] is None


def test_command_on_what_is_no_bag(walked, tmp_path):
    """A truncated bag ends the command with status 2 and the remedy, and leaves no run behind."""
    from tests.end_to_end import spawn

    folder, run = walked
    cut = tmp_path / "cut.mcap"
    cut.write_bytes((run / "bag" / "bag.mcap").read_bytes()[:5000])
    arguments = ("--simulator", "replay", "--set", f"simulator.recording={cut}", "--out", tmp_path / "runs")
    done = spawn("validate", folder / "run.yaml", *arguments, cwd=folder)
    assert done.returncode == 2
    assert "truncated" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.gpu
def test_on_cuda(tmp_path):
    """On CUDA the buffers hold what they hold on the CPU, and their upload is declared."""
    bag = write_bag(tmp_path / "bag", entries())
    expected, _ = replayed(configuration(), bag)
    with closing(BagReplaySimulator(configuration(), bag, "cuda:0")) as simulator:
        found, _ = _frames(configuration(), simulator)
        assert simulator.uploads["replay.lidar"] == CHANNELS * COLUMNS * 20
    for (_, frames, _), (_, others, _) in zip(found, expected, strict=True):
        for (*facts, buffers), (*other_facts, other_buffers) in zip(frames, others, strict=True):
            assert facts == other_facts
            for name, values in buffers.items():
                np.testing.assert_array_equal(values, other_buffers[name])
