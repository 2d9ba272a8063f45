"""The engine store: its key, what it refuses, and two processes that want the same engine at once."""

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.onnx_models import camera_network

from saccade.engines import files, identity
from saccade.engines.identity import Platform, check_platform, differences, key_of
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.engines.store import EngineStore
from saccade.errors import EngineError, ModelError

HERE = Platform(tensorrt="8.5.3.1", gpu="NVIDIA H100", sm="90", driver="580.95")
PLAN = bytes(range(256)) * 8


@pytest.fixture
def store(tmp_path) -> EngineStore:
    return open_store(tmp_path)


@pytest.fixture
def network(tmp_path) -> Path:
    return camera_network(tmp_path / "camera.onnx")


def open_store(folder: Path) -> EngineStore:
    return EngineStore(folder / "engines", secret=folder / "keys" / "engines.key")


class Builder:
    """Stands for the builder: counts its calls and gives a plan."""

    def __init__(self, plan: bytes = PLAN) -> None:
        self.plan, self.calls = plan, []

    def __call__(self, path, options, *, timing_cache, say):
        self.calls.append((path, options, timing_cache))
        return SimpleNamespace(data=self.plan, facts={"build_s": 1.5})


def stored(store, network, plan=PLAN, options=None, platform=HERE):
    return store.plan_for(network, options or BuildOptions(), build=Builder(plan), platform=platform)


def must_not_build(*_arguments, **_options):
    raise AssertionError("nothing had to be built")


# --------------------------------------------------------------------------------------------------------- the key


def test_everything_that_decides_an_engine_is_in_its_key(store, network, tmp_path):
    """Each part changed by itself gives another key; what decides nothing gives the same."""
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.zeros((2, 3, 16, 16), np.float32))
    base = BuildOptions(precision="int8", calibration=samples)
    keys = [store.key(network, base, HERE)]
    for change in (
        {"precision": "fp16"}, {"sparse": True}, {"workspace": 1 << 20}, {"optimization_level": 3},
        {"shapes": {"image": ShapeRange.fixed((1, 3, 16, 16))}},
    ):  # fmt: skip
        keys.append(store.key(network, dataclasses.replace(base, **change), HERE))
    for change in ({"tensorrt": "10.16"}, {"gpu": "NVIDIA A100"}, {"sm": "80"}, {"driver": "570"}):
        keys.append(store.key(network, base, dataclasses.replace(HERE, **change)))
    np.savez(samples, image=np.ones((2, 3, 16, 16), np.float32))
    keys.append(store.key(network, base, HERE))
    keys.append(store.key(camera_network(network, hazard=0.5), base, HERE))
    assert len(set(keys)) == len(keys) == 12
    moved = samples.rename(tmp_path / "elsewhere.npz")
    same = dataclasses.replace(base, calibration=moved, time_limit=3.0)
    assert store.key(network.rename(tmp_path / "other.onnx"), same, HERE) == keys[-1]


@pytest.mark.parametrize(
    ("release", "precision", "counts"),
    [("8.5.3.1", "int8", True), ("8.5.3.1", "fp16", False), ("10.16", "int8", False)],
)
def test_engines_of_the_calibrator_alone_are_built_anew_when_their_build_changes(
    store, network, tmp_path, monkeypatch, release, precision, counts
):
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.zeros((2, 3, 16, 16), np.float32))
    options = BuildOptions(precision=precision, calibration=samples)
    here = dataclasses.replace(HERE, tensorrt=release)
    former = identity.parts(network, options, here)
    assert ("calibrated_build" in former) == counts
    monkeypatch.setattr(identity, "CALIBRATED_BUILD", identity.CALIBRATED_BUILD + 1)
    said = identity.differences(former, identity.parts(network, options, here))
    now = identity.CALIBRATED_BUILD
    assert said == ([f"way of calibrating {now - 1} -> {now}"] if counts else [])
    assert (store.key(network, options, here) == identity.key_of(former)) != counts
    # One from before it was counted is another one, too.
    former.pop("calibrated_build", None)
    assert (store.key(network, options, here) == identity.key_of(former)) != counts


def test_a_folder_of_samples_is_known_by_names_and_contents(store, network, tmp_path):
    """A renamed sample is another set; a file that is no sample is not part of it; an empty folder is refused."""
    folder = tmp_path / "samples"
    folder.mkdir()
    options = BuildOptions(precision="int8", calibration=folder)
    with pytest.raises(ModelError, match=r"no \.npy file"):
        store.key(network, options, HERE)
    np.save(folder / "a.npy", np.zeros(3))
    first = store.key(network, options, HERE)
    (folder / "notes.txt").write_text("nothing")
    assert store.key(network, options, HERE) == first
    (folder / "a.npy").rename(folder / "b.npy")
    assert store.key(network, options, HERE) != first


def test_weights_beside_the_network_are_in_its_key(store, tmp_path):
    """External data: other bytes there give another key, a missing file is named."""
    plain = camera_network(tmp_path / "plain.onnx")
    path = tmp_path / "external.onnx"
    onnx.save_model(onnx.load(plain), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    first = store.key(path, BuildOptions(), HERE)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert store.key(path, BuildOptions(), HERE) != first
    weights.unlink()
    with pytest.raises(ModelError, match=r"external\.onnx.*weights\.bin"):
        store.key(path, BuildOptions(), HERE)


def test_a_missing_network_is_named(store, tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.onnx"):
        store.key(tmp_path / "nothing.onnx", BuildOptions(), HERE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(content=st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_a_key_does_not_depend_on_the_order(content):
    """The same content in another order has the same key, and no differences."""
    other = dict(reversed(content.items()))
    assert key_of(content) == key_of(other)
    assert differences(content, other) == []


@given(old=json_values, new=json_values)
def test_equal_keys_have_no_differences(old, new):
    """Where a part differs, it is named; where none does, none is."""
    text = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert (key_of({"part": old}) == key_of({"part": new})) == text


# --------------------------------------------------------------------------------------------------------- storing


def test_an_engine_is_built_once(store, network):
    """The first asks for a build, later ones find the plan with its facts, also through another store."""
    builder, lines = Builder(), []
    first = store.plan_for(network, BuildOptions(), build=builder, platform=HERE, say=lines.append)
    assert lines == ["camera.onnx: building its engine, there is none of it yet"]
    assert builder.calls == [(network, BuildOptions(), store.timing_cache(HERE))]
    again = EngineStore(store.folder, secret=store._secret).plan_for(
        network, BuildOptions(), build=must_not_build, platform=HERE, say=lines.append
    )
    assert (again.data, again.manifest) == (PLAN, first.manifest) and len(lines) == 1
    assert again.manifest["facts"] == {"build_s": 1.5} and again.manifest["foreign"] is False
    assert store.timing_cache(HERE).parent == store.folder


@pytest.mark.parametrize(
    ("change", "platform", "expected"),
    [
        ({}, {"driver": "590.1"}, "driver 580.95 -> 590.1"),
        ({}, {"tensorrt": "10.16.1", "gpu": "NVIDIA L4", "sm": "89"},
         "TensorRT 8.5.3.1 -> 10.16.1, GPU NVIDIA H100 -> NVIDIA L4, SM 90 -> 89"),
        ({"precision": "fp16"}, {}, "precision fp32 -> fp16"),
        ({"sparse": True, "workspace": 5}, {}, "sparse off -> on, workspace none -> 5"),
    ],
)  # fmt: skip
def test_a_rebuild_says_why_in_one_line(store, network, change, platform, expected):
    """What differs from the most similar engine of that network, and nothing else."""
    stored(store, network)
    stored(store, network, options=BuildOptions(precision="int8", sparse=True, workspace=9),
           platform=dataclasses.replace(HERE, gpu="other", sm="1"))  # fmt: skip
    lines = []
    store.plan_for(
        network, BuildOptions(**change), build=Builder(), platform=dataclasses.replace(HERE, **platform),
        say=lines.append,
    )  # fmt: skip
    assert lines == [f"camera.onnx: building its engine anew: {expected}"]


def test_another_network_or_calibration_says_so(store, network, tmp_path):
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.zeros(3))
    options = BuildOptions(precision="int8", calibration=samples)
    stored(store, network, options=options)
    np.savez(samples, image=np.ones(3))
    camera_network(network, hazard=0.5)
    lines = []
    store.plan_for(network, options, build=Builder(), platform=HERE, say=lines.append)
    assert lines == ["camera.onnx: building its engine anew: the ONNX file changed, the calibration set changed"]


def test_qualification_is_kept_and_not_repeated(store, network):
    """Its figures stand in the manifest; an interrupted one costs no second build."""
    builder, asked = Builder(), []

    def interrupted(_plan):
        raise KeyboardInterrupt

    def qualify(plan):
        asked.append(plan.data)
        return {"passed": True, "samples": 16}

    with pytest.raises(KeyboardInterrupt):
        store.plan_for(network, BuildOptions(), build=builder, platform=HERE, qualify=interrupted)
    for _ in range(2):
        plan = store.plan_for(network, BuildOptions(), build=builder, platform=HERE, qualify=qualify)
        assert plan.manifest["qualification"] == {"passed": True, "samples": 16}
    assert len(builder.calls) == 1 and asked == [PLAN]


def test_a_failed_build_leaves_nothing(store, network):
    """No plan, no manifest, no lock; the next attempt builds."""

    def fails(*_arguments, **_options):
        raise EngineError("the builder gave up")

    with pytest.raises(EngineError, match="gave up"):
        store.plan_for(network, BuildOptions(), build=fails, platform=HERE)
    assert list(store.folder.iterdir()) == []
    assert stored(store, network).data == PLAN


def test_files_are_private(store, network):
    """Folder 0700, everything in it 0600, the key too."""
    stored(store, network)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    for file in (*store.folder.iterdir(), store._secret):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.folder.chmod(0o777)
    assert stat.S_IMODE(EngineStore(store.folder, secret=store._secret).folder.stat().st_mode) == 0o700


def test_the_default_folder_is_in_the_users_cache(tmp_path, monkeypatch, network):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    key = stored(EngineStore(), network).key
    assert {file.parent for file in (tmp_path / "cache").rglob("*") if file.is_file()} == {
        tmp_path / "cache" / "engines", tmp_path / "cache" / "keys",
    }  # fmt: skip
    assert EngineStore().get(key) is not None


# --------------------------------------------------------------------------------------------------------- refusals


def change_manifest(store, key, **values):
    file = store.folder / f"{key}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def plan_file(store) -> Path:
    (file,) = store.folder.glob("*.plan")
    return file


TAMPERINGS = {
    "truncated plan": (lambda s, k: plan_file(s).write_bytes(PLAN[:100]), "cut off: 100 of 2048 bytes"),
    "empty plan": (lambda s, k: plan_file(s).write_bytes(b""), "cut off: 0 of"),
    "changed plan": (lambda s, k: plan_file(s).write_bytes(b"x" + PLAN[1:]), "changed after it was stored"),
    "longer plan": (lambda s, k: plan_file(s).write_bytes(PLAN + b"x"), "changed after it was stored"),
    "plan under another name": (lambda s, k: plan_file(s).rename(s.folder / f"{k}-other.plan"), "its plan is missing"),
    "changed manifest": (lambda s, k: change_manifest(s, k, qualification={"passed": True}), "changed since"),
    "no hmac": (lambda s, k: change_manifest(s, k, hmac=None), "manifest is damaged"),
    "empty manifest": (lambda s, k: (s.folder / f"{k}.json").write_text(""), "manifest is damaged"),
    "other manifest": (lambda s, k: (s.folder / f"{k}.json").write_text("[1, 2]"), "manifest is damaged"),
    "another user's key": (lambda s, k: s._secret.write_bytes(b"k" * 32), "not written by this user"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_is_not_as_it_was_stored_is_refused(store, network, name):
    """One error that says what is wrong and how to get rid of it; nothing is built over it in silence."""
    key = stored(store, network).key
    change, reason = TAMPERINGS[name]
    change(store, key)
    for ask in (store.get, lambda _key: store.plan_for(network, BuildOptions(), build=must_not_build, platform=HERE)):
        with pytest.raises(EngineError, match=f"{reason}.*saccade engine remove {key[:12]}"):
            ask(key)
    (entry,) = store.verify()
    assert entry.key == key and reason in entry.problem
    assert store.remove(key[:6]) == key
    assert list(store.folder.iterdir()) == []
    assert stored(store, network).data == PLAN


def test_a_signed_manifest_of_another_engine_is_refused(store, network):
    """Both are authentic, but not for each other: a plan cannot be slipped under another key."""
    first = stored(store, network)
    second = stored(store, network, plan=b"other", options=BuildOptions(precision="fp16"))
    (store.folder / f"{first.key}.json").write_bytes((store.folder / f"{second.key}.json").read_bytes())
    with pytest.raises(EngineError, match="of another engine"):
        store.get(first.key)


def test_a_key_file_that_others_can_read_is_refused(store, network):
    key = stored(store, network).key
    store._secret.chmod(0o644)
    with pytest.raises(EngineError, match=r"engines\.key.*others"):
        store.get(key)
    store._secret.chmod(0o600)
    store._secret.write_bytes(b"short")
    with pytest.raises(EngineError, match=r"damaged \(5 bytes"):
        store.get(key)


def test_a_plan_without_manifest_is_never_used(store, network):
    """As a kill between the two files leaves it: it is as if it were not there, and verify tells."""
    key = stored(store, network).key
    (store.folder / f"{key}.json").unlink()
    assert store.get(key) is None
    assert [(entry.key, entry.problem) for entry in store.verify()] == [(key, "it has no manifest")]
    assert stored(store, network, plan=b"built again").data == b"built again"
    assert plan_file(store).read_bytes() == b"built again"


def test_a_manifest_without_plan_is_built_again(store, network):
    """As somebody who clears large files leaves it: there is nothing that could be refused, and one line says why."""
    key = stored(store, network).key
    plan_file(store).unlink()
    assert store.get(key) is None
    assert [entry.problem for entry in store.verify()] == ["its plan is missing"]
    lines = []
    again = store.plan_for(network, BuildOptions(), build=Builder(), platform=HERE, say=lines.append)
    assert again.data == PLAN and plan_file(store).read_bytes() == PLAN
    assert lines == ["camera.onnx: building its engine anew: of the former only the manifest is left"]


def test_keys_are_found_by_their_beginning(store, network):
    """Too short a beginning, an unknown one and an empty one are refused."""
    keys = [stored(store, network, options=BuildOptions(workspace=size)).key for size in range(1, 40)]
    assert all(store.resolve(key) == key and store.resolve(key[:16].upper()) == key for key in keys)
    first = next(one[0] for one in keys if sum(other[0] == one[0] for other in keys) > 1)
    for wrong, words in ((first, "keys begin with it"), ("zz", "none with that key"), ("", "none with that key")):
        with pytest.raises(EngineError, match=words):
            store.resolve(wrong)
    with pytest.raises(EngineError, match="32 hexadecimal digits"):
        store.get("../../etc/passwd")


def test_a_full_disk_is_said(store, network, monkeypatch):
    """The error names the file and the way out, and no half file stays."""

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(EngineError, match=r"(?s)No space left.*saccade engine remove"):
        stored(store, network)
    assert [file for file in store.folder.iterdir() if file.suffix in (".plan", ".tmp", ".json")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path):
    folder = tmp_path / "engines"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(EngineError, match="another user"):
        EngineStore(folder)


# ---------------------------------------------------------------------------------------------------- foreign plans


def test_a_foreign_plan_is_trusted_by_its_hash_alone(store, tmp_path):
    """Unknown bytes are refused with their hash; named, they are taken in; other bytes in that file are not."""
    foreign = tmp_path / "robot.plan"
    foreign.write_bytes(b"built elsewhere")
    sha256 = files.digest(b"built elsewhere")
    with pytest.raises(EngineError, match=f"robot.plan.*--trust {sha256}"):
        store.trusted(foreign)
    with pytest.raises(EngineError, match="not the bytes you trust"):
        store.trust(foreign, "0" * 64)
    store.trust(foreign, sha256.upper())
    plan = store.trusted(foreign)
    assert plan.data == b"built elsewhere" and plan.manifest["foreign"] is True
    foreign.write_bytes(b"built elsewhere, and changed")
    with pytest.raises(EngineError, match="not built here"):
        store.trusted(foreign)


def test_a_plan_of_the_store_can_be_trusted_again(store, network):
    """After its manifest was lost to another key: by hash, under its own key, marked as foreign."""
    key = stored(store, network).key
    store._secret.write_bytes(b"k" * 32)
    with pytest.raises(EngineError, match=f"--trust {files.digest(PLAN)}"):
        store.get(key)
    assert store.trust(store.plan_file(key), files.digest(PLAN)).key == key
    again = store.get(key)
    assert again.data == PLAN and again.manifest["foreign"] is True


def test_a_plan_of_another_platform_is_named():
    """The manifest tells what it was built for; what differs is said before TensorRT sees the plan."""
    told = {**HERE.as_dict(), "gpu": "NVIDIA L4", "sm": "89", "tensorrt": "10.1"}
    with pytest.raises(
        EngineError, match=r"(?s)camera.*TensorRT 10\.1 -> 8\.5\.3\.1, GPU NVIDIA L4 -> NVIDIA H100, SM 89"
    ):
        check_platform(told, HERE, "camera.onnx")
    check_platform(HERE.as_dict(), HERE, "camera.onnx")
    check_platform({}, HERE, "a foreign plan says nothing")


# ------------------------------------------------------------------------------------------------- several processes


WANTS = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from saccade.engines.identity import Platform
from saccade.engines.options import BuildOptions
from saccade.engines.store import EngineStore
def build(path, options, *, timing_cache, say):
    print("built", flush=True)
    time.sleep(1.5)
    return SimpleNamespace(data=b"plan", facts={"pid": os.getpid()})
folder, network = Path(sys.argv[1]), Path(sys.argv[2])
store = EngineStore(folder / "engines", secret=folder / "keys" / "engines.key")
print("ready", flush=True)
sys.stdin.readline()
plan = store.plan_for(
    network, BuildOptions(), build=build, platform=Platform("8.5", "H100", "90", "580"),
    say=lambda text: print("waits" if "waiting for it" in text else "says", flush=True),
)
print("has", plan.manifest["facts"]["pid"], flush=True)
"""


def test_two_processes_build_one_engine_once(tmp_path, network):
    """One builds, the other says that it waits, and both end up with the same plan."""
    command = [sys.executable, "-c", WANTS, str(tmp_path), str(network)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(line for lines in said for line in lines[:-1]) == ["built", "says", "waits"]
    assert said[0][-1] == said[1][-1] and said[0][-1].startswith("has ")
    assert sorted(file.suffix for file in (tmp_path / "engines").iterdir()) == [".json", ".plan"]


KILLED = """
import os, signal, sys
from pathlib import Path
from saccade.engines import files, identity
def kill(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], kill)
with files.locked(Path(sys.argv[1] + ".lock")):
    files.write_whole(Path(sys.argv[1]), b"new content")
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_while_writing_leaves_the_former_file_and_no_lock(tmp_path, call):
    """SIGKILL before the data is on disk, and before it has its name: the former content stays, the lock is free."""
    path = tmp_path / "file"
    path.write_bytes(b"former content")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), call], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"former content"
    waited = []
    with files.locked(tmp_path / "file.lock", say=waited.append, waiting="somebody holds it"):
        files.write_whole(path, b"newest")
    assert waited == [] and path.read_bytes() == b"newest"


def test_what_a_killed_writer_left_goes_with_the_next(store, network):
    key = stored(store, network).key
    (store.folder / f".{key}-0123.plan.99-ab.tmp").write_bytes(b"half")
    store.put(key, b"another", {"name": "camera.onnx"})
    assert sorted(file.suffix for file in store.folder.iterdir()) == [".json", ".plan"]
    assert store.get(key).data == b"another"
