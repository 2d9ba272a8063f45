"""Kernels and scenes under the releases of Warp and USD that Isaac Sim brings, installed beside this Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saccade.paths import cache_folder

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[3]

KERNEL_TESTS = (
    "tests/kernels/test_rtx.py",
    "tests/kernels/test_preprocess.py",
    "tests/kernels/test_range_image.py",
    "tests/kernels/test_decode.py",
    "tests/simulators/test_isaac_frames.py",
)

READ_SCENES = """
import sys
from pathlib import Path
from pxr import Usd
from saccade.configuration import load_configuration
from saccade.simulators.isaac_scene import define_camera, prepare_stage, write_top_layer
from saccade.simulators.isaac_truth import CorridorBoxes

for name in ("corridor", "warehouse"):
    loaded = load_configuration("isaac", overrides=[f"scene={name}.usda"])
    top = write_top_layer(loaded.scene_path(), Path(sys.argv[1]))
    stage = Usd.Stage.Open(str(top))
    scene = prepare_stage(stage, loaded.scene_path(), loaded.config)
    camera = define_camera(stage, scene.placements["head_camera"], loaded.config.sensors["head_camera"])
    boxes = CorridorBoxes(stage, scene.labels, scene.humanoid.bodies, scene.humanoid.floor_height)
    x, y, yaw = scene.humanoid.start
    boxes.is_hazard(x, y, yaw, seconds=3.0)
    # Animation keeps its pace under another rate of the root layer.
    mover = next(thing for thing in boxes._moving)
    before = boxes.is_hazard(x, y, yaw, seconds=3.0), mover.polygon.tolist()
    stage.GetRootLayer().timeCodesPerSecond = 10
    after = boxes.is_hazard(x, y, yaw, seconds=3.0), mover.polygon.tolist()
    same = max(abs(a - b) for p, q in zip(before[1], after[1]) for a, b in zip(p, q)) < 1e-3
    assert before[0] == after[0] and same, (before, after)
    assert scene.humanoid.gait is not None and stage.GetPrimAtPath(camera)
print("USD", Usd.GetVersion())
"""


def beside(package: str, version: str) -> Path:
    """Installs a release into a folder of its own, once."""
    folder = cache_folder() / "releases" / f"{package}-{version}"
    if not (folder / "done").is_file():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            folder,
            f"{package}=={version}",
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        if ended.returncode != 0:
            pytest.skip(f"{package} {version} cannot be installed here: {ended.stderr.strip().splitlines()[-1:]}")
        (folder / "done").touch()
    return folder


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (folder, REPOSITORY / "exts" / "saccade", REPOSITORY)))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.mark.parametrize("version", ("1.7.1", "1.13.0", "1.16.0", "1.17.0"))
def test_kernels_compile_and_agree(version):
    folder = beside("warp-lang", version)
    which = run(folder, "-c", "import warp; print(warp.config.version)")
    assert which.stdout.strip().splitlines()[-1] == version, which.stderr
    # Without the conftests: Newton wants a newer Warp, and has no place inside Isaac Sim.
    options = ("-q", "-p", "no:cacheprovider", "--noconftest", "-W", "ignore")
    ended = run(folder, "-m", "pytest", *options, *KERNEL_TESTS)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]


@pytest.mark.parametrize(("version", "shown"), [("24.5", "(0, 24, 5)"), ("25.11", "(0, 25, 11)")])
def test_scenes_open_and_animation_keeps_its_pace(tmp_path, version, shown):
    folder = beside("usd-core", version)
    ended = run(folder, "-c", READ_SCENES, tmp_path)
    assert ended.returncode == 0 and shown in ended.stdout, ended.stdout[-2000:] + ended.stderr[-3000:]
