"""scripts/isaac_validate.py and run_in_isaac.sh on a made-up Isaac Sim folder whose python.sh runs the doubles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("newton")
pytest.importorskip("pxr")

from tests.simulators.isaac_room import isaac_folder

from saccade.paths import cache_folder

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / "scripts" / "run_in_isaac.sh"

PYTHON_SH = """#!/bin/bash
# As the real one: any status but 0 becomes 1.
"{python}" "{runner}" {name} "$@" || exit 1
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return isaac_folder(tmp_path_factory.mktemp("room"))


def isaac(folder: Path, version: str) -> Path:
    """Makes what looks like an Isaac Sim folder of a version such as ``6.0.1``."""
    folder.mkdir()
    (folder / "VERSION").write_text(f"{version}-rc.7\n")
    runner = Path(__file__).with_name("run_script.py")
    python = folder / "python.sh"
    name = ".".join(version.split(".")[:2]) if version[0] in "56" else "5.0"
    python.write_text(PYTHON_SH.format(python=sys.executable, runner=runner, name=name))
    python.chmod(0o755)
    for distribution in ("humble", "jazzy"):
        for extension in ("isaacsim.ros2.bridge", "isaacsim.ros2.core"):
            (folder / "exts" / extension / distribution / "lib").mkdir(parents=True)
    apps = folder / "apps"
    apps.mkdir()
    (apps / "isaacsim.exp.base.zero_delay.kit").write_text("")
    return folder


def start(root: Path | None, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {
        name: value
        for name, value in os.environ.items()
        if name not in ("ISAAC_PATH", "ISAACSIM_PATH", "ISAAC_IMAGE", "ROS_DISTRO", "AMENT_PREFIX_PATH", "PYTHONPATH")
    }
    where = {"ISAAC_PATH": str(root), "EXP_PATH": str(root / "apps")} if root is not None else {}
    return subprocess.run(
        [str(SCRIPT), *arguments],
        cwd=cwd,
        env={**plain, "HOME": str(cwd), "XDG_CACHE_HOME": str(cache_folder().parent), **where, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.parametrize("version", (pytest.param("5.1.0", marks=pytest.mark.slow), "6.2.0"))
def test_the_verdict_s_status_comes_through_python_sh(room, tmp_path, version):
    root = isaac(tmp_path / "isaac", version)
    note = tmp_path / "launch.json"
    ended = start(root, str(room / "run.yaml"), "--frames", "4", cwd=tmp_path, DOUBLE_LAUNCH=str(note))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Isaac Sim {version}-rc.7 in {root}" in ended.stderr
    assert "PASS frames=4" in ended.stdout
    run = json.loads((tmp_path / "runs" / "latest" / "run.json").read_text())
    assert run["state"] == "finished" and run["simulator"]["versions"]["isaacsim"].startswith(version[:3])
    launch, experience = json.loads(note.read_text())
    assert launch["headless"] and launch["multi_gpu"] is False
    assert "--/app/hydraEngine/waitIdle=true" in launch["extra_args"]
    assert "--/exts/saccade/window=false" in launch["extra_args"]
    assert "--/exts/isaacsim.core.throttling/enable_async=false" in launch["extra_args"]
    assert "--/rtx-transient/stableIds/enabled=true" in launch["extra_args"]
    assert experience == str(root / "apps" / "isaacsim.exp.base.zero_delay.kit")


def test_a_configuration_for_the_embedded_simulator_runs_with_larger_pictures(room, tmp_path):
    """Its camera is one that the upscaler of 5.x and 6.0 would give in another size."""
    (tmp_path / "small.yaml").write_text(
        f"base: {room / 'run.yaml'}\nsimulator: {{backend: auto}}\nsensors: {{eye: {{width: 200, height: 160}}}}\n"
    )
    root = isaac(tmp_path / "isaac", "5.0.0")
    ended = start(root, "small.yaml", "--frames", "2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "sensors.eye.width=400 --set sensors.eye.height=320" in ended.stdout
    run = json.loads((tmp_path / "runs" / "latest" / "run.json").read_text())
    assert run["simulator"]["name"] == "isaac"
    assert run["simulator"]["sensors"]["eye"]["intrinsics"]["width"] == 400


@pytest.mark.slow
@pytest.mark.parametrize("version", ("5.0.0", "6.0.1", "6.1.0"))
@pytest.mark.parametrize(
    ("overrides", "status"),
    [((), 0), (("budgets.distance_m=1000",), 1), (("budgets.latency_p95_ms=1000",), 3)],
)
def test_every_status_of_every_version(room, tmp_path, version, overrides, status):
    root = isaac(tmp_path / "isaac", version)
    options = [option for override in overrides for option in ("--set", override)]
    ended = start(root, str(room / "run.yaml"), "--frames", "4", *options, cwd=tmp_path)
    assert ended.returncode == status, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", ("5.0.0", "5.1.0", "6.0.1", "6.1.0", "6.2.0"))
def test_a_hundred_frames_from_the_start_of_the_process_to_its_end(room, tmp_path, version):
    root = isaac(tmp_path / "isaac", version)
    ended = start(root, str(room / "run.yaml"), "--frames", "100", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "PASS frames=100" in ended.stdout
    run = json.loads((tmp_path / "runs" / "latest" / "run.json").read_text())
    assert run["state"] == "finished" and run["simulator"]["stale_deliveries"] == 0
    assert all(stream["deliveries"]["missing"] == 0 for stream in run["simulator"]["streams"].values())
    lines = (tmp_path / "runs" / "latest" / "frames.jsonl").read_text().splitlines()
    judged = [line for line in map(json.loads, lines) if line["kind"] == "frame" and line["phase"] == "judged"]
    assert len({line["tick"] for line in judged}) == 100


def test_wrong_usage_is_2_and_starts_nothing(room, tmp_path):
    root = isaac(tmp_path / "isaac", "6.0.1")
    ended = start(root, str(room / "run.yaml"), "--set", "run.framse=3", cwd=tmp_path)
    assert ended.returncode == 2 and "framse" in ended.stdout
    assert "starting Isaac Sim" not in ended.stdout
    assert start(root, cwd=tmp_path).returncode == 2


def test_a_status_file_that_cannot_be_written_is_told_before_the_start(tmp_path):
    script = [sys.executable, str(REPOSITORY / "scripts" / "isaac_validate.py"), "isaac", "--status-file"]
    ended = subprocess.run([*script, str(tmp_path / "no" / "status")], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "make it first" in ended.stderr and "Traceback" not in ended.stderr


def test_an_old_release_is_refused_with_the_reason(room, tmp_path):
    root = isaac(tmp_path / "isaac", "4.2.0")
    ended = start(root, str(room / "run.yaml"), cwd=tmp_path)
    assert ended.returncode == 2 and "omni.isaac.core" in ended.stdout


def test_an_end_before_the_verdict_is_invalid(room, tmp_path):
    root = isaac(tmp_path / "isaac", "6.0.1")
    (root / "python.sh").write_text("#!/bin/sh\nexit 0\n")
    ended = start(root, str(room / "run.yaml"), cwd=tmp_path)
    assert ended.returncode == 3 and "before there was a verdict" in ended.stderr


def test_a_failure_inside_is_invalid_with_its_trace(room, tmp_path):
    root = isaac(tmp_path / "isaac", "6.0.1")
    gone = "isaacsim.sensors.experimental.rtx.Lidar"
    ended = start(root, str(room / "run.yaml"), "--frames", "2", cwd=tmp_path, DOUBLE_WITHOUT=gone)
    assert ended.returncode == 3 and "Lidar" in ended.stdout


def test_without_isaac_sim_it_says_what_to_set(tmp_path):
    ended = start(None, "isaac", cwd=tmp_path, PYTHONEXE="/bin/false")
    assert ended.returncode == 3 and "ISAAC_PATH" in ended.stderr


@pytest.mark.parametrize(("version", "extension"), [("5.1.0", "isaacsim.ros2.bridge"), ("6.0.1", "isaacsim.ros2.core")])
def test_ros_libraries_are_set_before_the_start(tmp_path, version, extension):
    root = isaac(tmp_path / "isaac", version)
    (root / "python.sh").write_text('#!/bin/sh\necho "$ROS_DISTRO $RMW_IMPLEMENTATION $LD_LIBRARY_PATH $@"\nexit 1\n')
    ended = start(root, "isaac", "--ros2", cwd=tmp_path, ROS_DISTRO="humble")
    libraries = root / "exts" / extension / "humble" / "lib"
    assert f"humble rmw_fastrtps_cpp {libraries}" in ended.stdout.replace(
        os.environ.get("LD_LIBRARY_PATH", " ") + ":", ""
    )
    assert "ros2.enabled=true" in ended.stdout


DOCKER = """#!/bin/bash
# Runs what the container would, with another folder as its /isaac-sim; what is not named with -e stays outside.
[ "$1" = run ] || exit 9
given=()
while [ "$1" != -c ]; do [ "$1" != -e ] || given+=("$2"); shift; done
for name in ROS_DISTRO RMW_IMPLEMENTATION ACCEPT_EULA; do
  [[ " ${given[*]} " == *" $name "* ]] || unset "$name"
done
unset ISAAC_PATH LD_LIBRARY_PATH
script="${2//\\/isaac-sim/$FAKE_ROOT}"; shift 2
exec /bin/bash -c "$script" "$@"
"""


@pytest.mark.parametrize(("version", "extension"), [("5.1.0", "isaacsim.ros2.bridge"), ("6.0.1", "isaacsim.ros2.core")])
@pytest.mark.parametrize("ros2", (True, False))
def test_a_container_sets_its_own_ros_libraries(tmp_path, version, extension, ros2):
    root = isaac(tmp_path / "isaac", version)
    (root / "python.sh").write_text('#!/bin/sh\necho "$ISAAC_PATH $ROS_DISTRO $LD_LIBRARY_PATH $@"\nexit 1\n')
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text(DOCKER)
    (tools / "docker").chmod(0o755)
    ended = start(
        None,
        "isaac",
        *(["--ros2"] if ros2 else []),
        cwd=tmp_path,
        PYTHONEXE="/bin/false",
        ISAAC_IMAGE="isaac-sim:test",
        ROS_DISTRO="jazzy",
        FAKE_ROOT=str(root),
        PATH=f"{tools}:{os.environ['PATH']}",
    )
    assert ended.returncode == 3 and f"Isaac Sim {version}-rc.7 in the container" in ended.stderr
    libraries = f"{root}/exts/{extension}/jazzy/lib"
    assert ended.stdout.startswith(f"{root} jazzy {libraries if ros2 else ''}"), ended.stdout + ended.stderr
    assert ("ros2.enabled=true" in ended.stdout) == ros2 == (libraries in ended.stdout)


def test_no_script_accepts_a_licence():
    for path in (*REPOSITORY.glob("scripts/*"), *REPOSITORY.glob("exts/saccade/saccade/simulators/isaac*.py")):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "EULA=" not in text and "ACCEPT_EULA'" not in text and 'EULA"' not in text, path
