"""``saccade engine``: what each command prints, its exit status, and clear words for every mistake."""

import hashlib
import json
import sys
from types import SimpleNamespace

import pytest
import typer
from tests.onnx_models import camera_network, save_network
from typer.testing import CliRunner

from saccade import cli_engine, cuda
from saccade.cli_engine import app
from saccade.engines import selection
from saccade.engines.identity import Platform
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.engines.store import EngineStore
from saccade.errors import ConfigurationError, DependencyError, EngineError, ModelError, SaccadeError

COMMANDS = ("build", "list", "verify", "remove", "inspect", "profile")
HERE = Platform(tensorrt="8.5.3.1", gpu="NVIDIA H100", sm="90", driver="580.95")
PLAN = b"a plan" * 99
FIGURES = {
    "relative_l2": {"labels": 2e-4}, "label_agreement": 1.0, "non_finite": 0, "samples": 16, "passed": True,
    "limits": {"relative_l2": 1e-2, "label_agreement": 0.99},
}  # fmt: skip


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The user's own store, empty."""
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return EngineStore()


@pytest.fixture
def network(tmp_path):
    return camera_network(tmp_path / "camera.onnx")


@pytest.fixture
def stored(store, network):
    """One fp16 engine in it."""

    def build(path, options, *, timing_cache, say):
        return SimpleNamespace(data=PLAN, facts={"build_s": 1.5})

    options = BuildOptions(precision="fp16")
    return store.plan_for(network, options, build=build, platform=HERE, qualify=lambda _plan: FIGURES)


def call(*arguments, status=0):
    """Runs a command and returns what it printed; an error of Saccade's own comes out as it is."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, SaccadeError):
        raise done.exception
    assert done.exit_code == status, done.output
    return done


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command):
    output = call(command, "--help").output
    assert "Example" in output and f"saccade engine {command}" in " ".join(output.split())


def test_commands_are_registered():
    """All that the documents name, and no other."""
    group = typer.main.get_command(app)
    assert sorted(group.commands) == sorted(COMMANDS)


# ------------------------------------------------------------------------------------------------ looking at them


def test_list(store, stored):
    """One line each with what tells engines apart; as JSON with the whole manifest."""
    out = call("list").stdout
    for word in (stored.key[:12], "camera.onnx", "fp16", "8.5.3.1", "NVIDIA H100"):
        assert word in out
    (row,) = json.loads(call("list", "--json").stdout)
    assert (row["key"], row["problem"]) == (stored.key, None)
    assert row["manifest"]["qualification"] == FIGURES


def test_an_empty_store_says_so(store):
    done = call("list")
    assert done.stdout == "" and f"no engines in {store.folder}" in done.stderr
    assert json.loads(call("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("figures", "state"), [(None, "not compared yet"), ({**FIGURES, "passed": False}, "too far from FP32")]
)
def test_list_shows_engines_that_may_not_be_used(store, stored, figures, state):
    store.put(stored.key, PLAN, {**stored.manifest, "qualification": figures})
    assert state in call("list").stdout


def test_verify_has_an_exit_status(store, stored):
    """0 where all is well, 1 and the reason where a plan was tampered with; list shows it as refused."""
    assert call("verify").stdout == f"{stored.key[:12]}  camera.onnx  ok\n"
    (plan,) = store.folder.glob("*.plan")
    plan.write_bytes(PLAN[:-1])
    assert "cut off" in call("verify", stored.key[:6], status=1).stdout
    (row,) = json.loads(call("verify", "--json", status=1).stdout)
    assert "cut off" in row["problem"]
    (store.folder / f"{stored.key}.json").write_text("{}")
    assert "refused" in call("list").stdout


def test_inspect_shows_the_manifest_without_a_gpu(stored):
    """Each fact on a line; as JSON complete."""
    lines = call("inspect", stored.key[:6]).stdout.splitlines()
    assert "parts.platform.gpu  NVIDIA H100" in lines and "facts.build_s  1.5" in lines
    shown = json.loads(call("inspect", stored.key, "--json").stdout)
    assert shown["parts"]["options"]["precision"] == "fp16" and "layers" not in shown


class OpenedDouble:
    """A :class:`saccade.engines.tensorrt.TensorRTEngine` as far as these commands use it."""

    closed = 0

    def facts(self):
        return {"engine": "tensorrt"}

    def layers(self):
        return [{"Name": "conv"}]

    def profile(self, iterations):
        layers = [("fast", 0.1, 0.25), ("slow", 0.3, 0.75)]
        rows = [{"name": name, "median_ms": ms, "mean_ms": ms, "share": share} for name, ms, share in layers]
        return {"iterations": iterations, "warmup": 10, "total_ms": 0.4, "layers": rows}

    def close(self):
        OpenedDouble.closed += 1


@pytest.fixture
def gpu(monkeypatch):
    """TensorRT and a GPU of the platform that the engine was built for."""
    opened = []
    module = SimpleNamespace(__version__=HERE.tensorrt)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    facts = {"name": HERE.gpu, "sm": HERE.sm, "driver": HERE.driver, "cuda": "13.0"}
    monkeypatch.setattr(cuda, "driver_facts", lambda device: facts)

    def open_engine(plan, **options):
        opened.append((plan, options))
        return OpenedDouble()

    monkeypatch.setitem(sys.modules, "saccade.engines.tensorrt", SimpleNamespace(TensorRTEngine=open_engine))
    OpenedDouble.closed = 0
    return SimpleNamespace(opened=opened, facts=facts, module=module)


def test_inspect_with_layers_opens_the_engine(stored, gpu):
    """The stored bytes, on the device asked for; closed at the end."""
    shown = json.loads(call("inspect", stored.key, "--layers", "--json", "--device", "cuda:1").stdout)
    assert shown["layers"] == [{"Name": "conv"}] and shown["engine"] == {"engine": "tensorrt"}
    ((plan, options),) = gpu.opened
    assert plan == PLAN and options["device"] == "cuda:1" and options["name_of"] == "camera.onnx"
    assert OpenedDouble.closed == 1


def test_profile(stored, gpu):
    """Slowest layer first; as JSON in order of execution."""
    out = call("profile", stored.key, "--iterations", "7").stdout
    assert out.index("slow") < out.index("fast") and "75.0%" in out
    assert "0.4000 ms in 2 layers, 7 runs" in out
    found = json.loads(call("profile", stored.key, "--json").stdout)
    assert [layer["name"] for layer in found["layers"]] == ["fast", "slow"] and found["iterations"] == 100
    assert OpenedDouble.closed == 2


@pytest.mark.parametrize("arguments", [("inspect", "--layers"), ("profile",)])
def test_an_engine_of_another_platform_is_not_opened(stored, gpu, arguments):
    """What differs is said, and TensorRT never sees the plan."""
    gpu.facts |= {"name": "NVIDIA L4", "sm": "89"}
    gpu.module.__version__ = "10.16.1"
    words = r"camera\.onnx.*another platform: TensorRT 8\.5\.3\.1 -> 10\.16\.1, GPU NVIDIA H100 -> NVIDIA L4, SM 90"
    with pytest.raises(EngineError, match=words):
        call(arguments[0], stored.key, *arguments[1:])
    assert gpu.opened == []


@pytest.mark.parametrize("arguments", [("inspect", "--layers"), ("profile",)])
def test_without_tensorrt_the_message_says_how_to_get_it(stored, monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DependencyError, match="pip install tensorrt"):
        call(arguments[0], stored.key, *arguments[1:])


# --------------------------------------------------------------------------------------------- removing, trusting


def test_remove(store, stored):
    """By the beginning of a key, or all; nothing said, or both, is an error."""
    for wrong in ((), (stored.key, "--all")):
        with pytest.raises(ConfigurationError, match="--all"):
            call("remove", *wrong)
    with pytest.raises(EngineError, match="none with that key"):
        call("remove", stored.key[:4], "zz")
    assert store.get(stored.key) is not None
    assert call("remove", stored.key[:4]).stdout == f"{stored.key}\n"
    assert store.list() == []
    store.put(stored.key, PLAN, {})
    assert call("remove", "--all").stdout == f"{stored.key}\n"


def test_a_foreign_plan_is_taken_in_by_its_hash(store, tmp_path):
    """Refused with the command that takes it in; that command works; a wrong hash and a missing plan are told."""
    plan = tmp_path / "robot.plan"
    plan.write_bytes(PLAN)
    sha256 = hashlib.sha256(PLAN).hexdigest()
    with pytest.raises(EngineError, match=f"saccade engine verify .*robot.plan --trust {sha256}"):
        call("inspect", plan)
    with pytest.raises(EngineError, match="not the bytes you trust"):
        call("verify", plan, "--trust", "0" * 64)
    with pytest.raises(ConfigurationError, match="say which plan"):
        call("verify", "--trust", sha256)
    with pytest.raises(EngineError, match="no such plan file"):
        call("inspect", "absent.plan")
    assert call("verify", plan, "--trust", sha256).stdout.endswith("robot.plan  ok\n")
    assert json.loads(call("inspect", plan, "--json").stdout)["foreign"] is True
    assert "foreign" in call("list").stdout


def test_an_engine_whose_manifest_was_lost_can_be_trusted(store, stored):
    """As the refusal says it."""
    (store.folder / f"{stored.key}.json").unlink()
    with pytest.raises(EngineError, match="no manifest"):
        call("inspect", stored.key)
    call("verify", stored.key[:8], "--trust", hashlib.sha256(PLAN).hexdigest())
    assert store.get(stored.key).data == PLAN


# -------------------------------------------------------------------------------------------------------- building


@pytest.fixture
def builds(monkeypatch, store):
    """Where builds go; the real ones are tested with the selection."""
    asked = []

    def plan(path, options, *, device, say):
        asked.append((path, options, device))
        say("camera.onnx: building")
        return store.put("0" * 32, PLAN, {"name": path.name, "qualification": FIGURES})

    monkeypatch.setattr(selection, "qualified_plan", plan)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.5.3.1"))
    return asked


def test_build_passes_every_option_on(builds, network):
    """Memory in MiB, one shape for a single input; the key on stdout, all else on stderr."""
    done = call(
        "build", network, "--precision", "int8", "--sparse", "--workspace", "64", "--calibration", "samples.npz",
        "--time-limit", "9", "--optimization-level", "3", "--device", "cuda:1",
    )  # fmt: skip
    ((path, options, device),) = builds
    assert path == network and device == "cuda:1"
    assert (options.precision, options.sparse, options.workspace) == ("int8", True, 64 << 20)
    assert (str(options.calibration), options.time_limit, options.optimization_level) == ("samples.npz", 9.0, 3)
    assert done.stdout == "0" * 32 + "\n"
    assert "camera.onnx: building" in done.stderr and "label agreement 1.0000 (limit 0.99)" in done.stderr
    assert json.loads(call("build", network, "--json").stdout)["qualification"] == FIGURES


def test_a_plain_build_is_what_a_run_asks_for(builds, network):
    """The same options as the configuration's defaults: else a run would build another."""
    from saccade.config import EngineConfig

    call("build", network)
    assert builds[0][1] == selection.options_from_config(EngineConfig())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--opt", "2x3x16x16"], [(2, 2, 2)]),
        (["--max", "image:8x3x16x16"], [(8, 8, 8)]),
        (["--min", "1x3x16x16", "--max", "8x3x16x16"], [(1, 8, 8)]),
        (["--min", "1x3x16x16", "--opt", "image:4X3x16x16", "--max", "8x3x16x16"], [(1, 4, 8)]),
        ([], []),
    ],
)
def test_shapes(builds, tmp_path, arguments, expected):
    """Named or not; what is left out follows from the others."""
    path = camera_network(tmp_path / "open.onnx", batch="n")
    call("build", path, *arguments)
    shapes = builds[0][1].shapes
    assert [(s.minimum[0], s.optimum[0], s.maximum[0]) for s in shapes.values()] == expected
    assert all(isinstance(shape, ShapeRange) for shape in shapes.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--opt", "picture:1x3x16x16"], r"--opt picture:1x3x16x16: expected NAME:1x3x224x224.*image"),
        (["--min", "axb"], r"--min axb: expected sizes such as 1x3x224x224"),
        (["--min", "0x3x16x16"], r"--min 0x3x16x16: expected sizes"),
        (["--max", "1x3x16"], r"has shape \?x3x16x16; only \? can be chosen"),
        (["--max", "1x3x16x17"], r"has shape \?x3x16x16"),
        (["--min", "4x3x16x16", "--max", "2x3x16x16"], "minimum <= optimum"),
    ],
)
def test_wrong_shapes_are_refused(builds, tmp_path, arguments, words):
    path = camera_network(tmp_path / "open.onnx", batch="n")
    with pytest.raises(ConfigurationError, match=words):
        call("build", path, *arguments)
    assert builds == []


def test_several_inputs_need_their_names(builds, tmp_path):
    from onnx import helper

    path = save_network(
        tmp_path / "two.onnx", inputs={"a": ["n", 2], "b": ["n", 2]}, outputs={"y": ["n", 2]},
        nodes=[helper.make_node("Sub", ["a", "b"], ["y"])],
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="with NAME one of a, b"):
        call("build", path, "--opt", "4x2")
    call("build", path, "--opt", "a:4x2", "--opt", "b:4x2")
    assert sorted(builds[0][1].shapes) == ["a", "b"]


def test_a_missing_or_broken_network_is_named(builds, tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.onnx"):
        call("build", "nothing.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(ModelError, match=r"broken\.onnx: ONNX Runtime cannot load"):
        call("build", broken, "--opt", "1x3x16x16")


def test_build_without_tensorrt_says_how_to_get_it(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DependencyError, match="pip install tensorrt"):
        call("build", network)


def test_progress_outside_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    """The first at once, then one in five seconds: a log must not fill with seconds."""
    clock = [100.0]
    monkeypatch.setattr(cli_engine.time, "monotonic", lambda: clock[0])
    with cli_engine.progress() as say:
        for second in range(12):
            clock[0] = 100.0 + second
            say(f"{second} s")
    assert capsys.readouterr().err.split() == ["0", "s", "5", "s", "10", "s"]
