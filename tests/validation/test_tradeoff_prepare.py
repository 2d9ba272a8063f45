"""What a sweep makes before it measures: networks and samples made once, kept, moved, and taken from a user."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from PIL import Image
from tests.end_to_end import configuration, spawn
from tests.precision.conftest import segmenter

from saccade.configuration import load_configuration
from saccade.engines.options import BuildOptions
from saccade.engines.selection import _samples
from saccade.errors import ConfigurationError, ModelError, RecordError
from saccade.paths import MODELS
from saccade.precision import compress as compression
from saccade.precision.cost import weights_of
from saccade.precision.samples import Samples
from saccade.precision.sparsity import is_2_to_4, masked, sparse_masks
from saccade.validation import tradeoff_models, tradeoff_prepare
from saccade.validation.tradeoff import measure_tradeoff, prepare_tradeoff, with_tradeoff
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_journal import JOURNAL_FILE
from saccade.validation.tradeoff_models import finds_scales_itself
from saccade.validation.tradeoff_pruned import checked_pruned, with_open_batch

SECTION = {"precisions": ["fp32", "fp16", "int8"], "pruning": ["none", "2:4"], "frames": 4, "warmup": 2}


@pytest.fixture(scope="module")
def place(room, golden, tmp_path_factory) -> Path:
    """A configuration whose camera network has weights to prune, beside its files."""
    folder = tmp_path_factory.mktemp("place")
    segmenter(folder / "camera.onnx")
    shutil.copy(room / "lidar.onnx", folder)
    shutil.copy(room / "room.usda", folder)
    frames = np.random.default_rng(3).normal(size=(130, 3, 4, 4)).astype(np.float32)
    np.savez(folder / "samples.npz", image=frames.repeat(4, axis=2).repeat(4, axis=3))
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, frame in enumerate(frames[:120]):
        pixels = np.clip(128 + 60 * frame.transpose(1, 2, 0), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(pictures / f"{number:03d}.png")
    decoder = {"labels": "labels", "hazard": "score"}
    document = configuration(networks={"camera": {"decoder": decoder}})
    document["tradeoff"] = {
        **SECTION, "recordings": [str(golden)], "calibration": str(folder / "samples.npz"), "networks": ["camera"],
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return folder / "sweep.yaml"


@pytest.fixture(scope="module")
def prepared(place, tmp_path_factory) -> tuple[Path, dict, list[tuple[str, str]]]:
    """A sweep prepared for TensorRT on CUDA, on a machine that has neither, and which recipes that took."""
    out = tmp_path_factory.mktemp("prepared")
    recipes = []
    plain = compression.compress

    def counted(model, recipe, **options):
        recipes.append((recipe.precision, recipe.prune))
        return plain(model, recipe, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tradeoff_models, "compress", counted)
        loaded = load_configuration(place, overrides=["simulator.device=cuda", "engine.backend=tensorrt"])
        found = prepare_tradeoff(
            with_tradeoff(loaded, sizes=[(24, 24)], calibration=str(place.parent / "pictures")), out=out
        )
    return out, found, recipes


def test_preparing_needs_no_gpu_and_measures_nothing(prepared):
    out, found, _ = prepared
    assert found["complete"] and found["failed"] == {} and len(found["models"]) == 6 * 2
    kinds = {json.loads(line)["kind"] for line in (out / JOURNAL_FILE).read_text().splitlines()}
    assert kinds == {"plan", "scene"}
    assert not (out / "labels").exists() and not (out / "tradeoff.json").exists()


def test_every_precision_of_a_pruning_comes_from_one_pruned_network(prepared):
    out, _, recipes = prepared
    assert recipes.count(("fp32", "2:4")) == 2  # one per size
    assert not [recipe for recipe in recipes if recipe[0] != "fp32" and recipe[1] != "none"]
    base = json.loads((out / "models" / "camera-fp32-24.made.json").read_text())
    for precision in ("fp16", "int8"):
        made = json.loads((out / "models" / f"camera-{precision}-24.made.json").read_text())
        assert made["origin"]["source"] == base["sha256"]
    pruned = weights_of(onnx.load(str(out / "models" / "camera-fp32-24.onnx")))
    halves = weights_of(onnx.load(str(out / "models" / "camera-fp16-24.onnx")))
    assert all(is_2_to_4(pruned[name]) and is_2_to_4(halves[name]) for name in ("w2", "w3"))


def test_engines_of_every_made_file_are_compared_on_sixteen_calibration_samples(prepared, place):
    out, found, _ = prepared
    made = [Path(path) for path in found["models"].values() if Path(path).parent == out / "models"]
    assert len(made) == 11  # all but the source itself
    for path in made:
        rows = _samples(path, BuildOptions(), ["image"])
        assert rows is not None, path
        size = 24 if "24x24" in path.name else 16
        assert rows["image"].shape == (16, 3, size, size)
        name = "camera-24x24.npz" if size == 24 else "camera.npz"
        known = np.load(out / "calibration" / name)["image"]
        assert all((known == row).all(axis=(1, 2, 3)).any() for row in rows["image"])


def test_a_resized_network_without_fitting_samples_is_measured_all_the_same(place, tmp_path):
    loaded = load_configuration(place, overrides=["simulator.device=cuda", "engine.backend=tensorrt"])
    said = []
    loaded = with_tradeoff(loaded, precisions=["fp32", "fp16"], pruning=["none"], sizes=[(24, 24)])
    found = prepare_tradeoff(loaded, out=tmp_path, say=said.append)
    assert set(found["models"]) == {"camera-fp32", "camera-fp16", "camera-fp32-24x24"}
    assert "3x24x24" in found["failed"]["camera-fp16-24x24"]
    assert any("for want of samples" in text for text in said)


def test_shipped_networks_have_their_samples(tmp_path):
    for name, tensor in (("camera", "image"), ("camera_dynamic", "image")):
        rows = _samples(MODELS / f"{name}.onnx", BuildOptions(), [tensor])
        assert rows is not None and len(rows[tensor]) > 1


def test_a_prepared_folder_that_moved_is_measured_without_making_anything(prepared, place, tmp_path, monkeypatch):
    out, _, _ = prepared
    moved = tmp_path / "elsewhere"
    shutil.copytree(out, moved)
    monkeypatch.setattr(tradeoff_models, "compress", lambda *_, **__: pytest.fail("made again"))
    document = yaml.safe_load(place.read_text())
    # The same recording at another place, and no calibration source any more: the kept samples are enough.
    recording = tmp_path / Path(document["tradeoff"]["recordings"][0]).name
    shutil.copytree(document["tradeoff"]["recordings"][0], recording)
    document["tradeoff"] |= {"recordings": [str(recording)], "calibration": str(tmp_path / "gone" / "pictures")}
    document["engine"]["backend"] = "tensorrt"
    document["simulator"]["device"] = "cuda"
    again = place.with_name("again.yaml")
    again.write_text(yaml.safe_dump(document))
    found = prepare_tradeoff(load_configuration(again), out=moved)
    assert found["complete"] and len(found["models"]) == 6


def test_a_journal_belongs_to_the_machine_that_measures(tmp_path):
    from saccade.validation.tradeoff_journal import Journal

    with Journal(tmp_path, {"frames": 1}) as journal:
        journal.measured_on({"device": "cuda:0", "processor": "one"})
        journal.measured_on({"device": "cuda:0", "processor": "one"})
        with pytest.raises(RecordError, match=r"another machine \(processor differs\)"):
            journal.measured_on({"device": "cuda:0", "processor": "two"})


def test_kept_calibration_records_no_layouts_again(prepared, place, tmp_path, monkeypatch):
    from saccade.validation.tradeoff_calibration import _kept, _origin, calibration_samples

    folder = tmp_path / "calibration"
    loaded = with_tradeoff(load_configuration(place), calibration=None)
    candidate, source = Candidate("camera"), place.parent / "camera.onnx"
    scene = Path(yaml.safe_load(place.read_text())["tradeoff"]["recordings"][0])
    from saccade.validation.tradeoff_scenes import Scene

    asked = []

    def scenes():
        asked.append(1)
        return [Scene("a", None, scene)]

    first = calibration_samples(loaded, candidate, source, folder, scenes=scenes, say=lambda _: None)
    second = calibration_samples(loaded, candidate, source, folder, scenes=scenes, say=lambda _: None)
    assert len(asked) == 1 and first.samples.digest == second.samples.digest
    assert set(second.samples.truth) == set(first.samples.truth) == {"labels", "valid"}
    for name, array in first.samples.inputs.items():
        np.testing.assert_array_equal(array, second.samples.inputs[name])
    (folder / "camera.npz").write_bytes(b"torn")
    assert _kept(folder / "camera.npz", _origin(loaded, candidate, source)) is None
    calibration_samples(loaded, candidate, source, folder, scenes=scenes, say=lambda _: None)
    calibration_samples(
        with_tradeoff(loaded, calibration_frames=200), candidate, source, folder, scenes=scenes, say=lambda _: None
    )
    assert len(asked) == 3


def pruned_file(place: Path, path: Path, *, leave: str = "", batch: int | str = 1) -> Path:
    model = onnx.load(str(place.parent / "camera.onnx"))
    masks = {name: mask for name, mask in sparse_masks(model, "2:4").items() if name != leave}
    onnx.save(masked(model, masks), str(path))
    return path


def test_a_given_pruned_network_is_what_its_precisions_are_made_from(place, tmp_path):
    given = pruned_file(place, tmp_path / "mine.onnx")
    loaded = with_tradeoff(load_configuration(place), pruned={"camera": {"2:4": str(given)}}, batches=[1, 4])
    result = measure_tradeoff(loaded, out=tmp_path / "sweep")
    entries = {entry["key"]: entry for entry in result["candidates"]}
    assert entries["camera-fp16-24"]["model"]["pruning"] == {"kind": "2:4", "given": "mine.onnx"}
    # Its batch was opened, so that it is measured in other batches, too.
    assert {"camera-fp32-24-batch4", "camera-fp16-24-batch4", "camera-int8-24-batch4"} <= set(entries)
    assert result["complete"]


@pytest.mark.parametrize(
    ("how", "leave", "said"),
    [("2:4", "w3", r"mine.onnx: is not pruned 2:4: 1 of .*'narrow'"), ("channels", "", "parameters")],
)
def test_a_network_that_is_not_pruned_that_way_is_refused(place, tmp_path, how, leave, said):
    given = pruned_file(place, tmp_path / "mine.onnx", leave=leave)
    original = onnx.load(str(place.parent / "camera.onnx"))
    frames = Samples({"image": np.load(place.parent / "samples.npz")["image"]}, "frames")
    with pytest.raises(ModelError, match=said):
        checked_pruned(given, Candidate("camera", pruning=how), original, frames, open_batch=False)


def test_a_network_with_other_inputs_or_no_zeros_is_refused(place, tmp_path):
    original = onnx.load(str(place.parent / "camera.onnx"))
    frames = Samples({"image": np.load(place.parent / "samples.npz")["image"]}, "frames")
    other = segmenter(tmp_path / "other.onnx", size=32)
    with pytest.raises(ModelError, match=r"other.onnx: input 'image' is 1x3x32x32.*1x3x16x16"):
        checked_pruned(other, Candidate("camera", pruning="2:4"), original, frames, open_batch=False)
    dense = place.parent / "camera.onnx"
    with pytest.raises(ModelError, match=r"none of its .* layers has zeros"):
        checked_pruned(dense, Candidate("camera", pruning="l1"), original, frames, open_batch=False)


def test_a_batch_that_the_graph_fixes_inside_cannot_be_opened(place, tmp_path):
    model = onnx.load(str(place.parent / "camera.onnx"))
    pooled = next(node for node in model.graph.node if node.name == "flat")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, -1], np.int64), "fixed"))
    pooled.op_type = "Reshape"
    pooled.input.append("fixed")
    frames = Samples({"image": np.load(place.parent / "samples.npz")["image"]}, "frames")
    with pytest.raises(ModelError, match=r"mine.onnx: takes one frame at a time.*open batch"):
        with_open_batch(Path("mine.onnx"), model, frames)


def test_a_given_network_of_a_pruning_that_is_not_compared(place):
    loaded = with_tradeoff(load_configuration(place), pruning=["none"], pruned={"camera": {"2:4": "mine.onnx"}})
    with pytest.raises(ConfigurationError, match=r"tradeoff.pruned.camera.2:4.*--prune none,2:4"):
        prepare_tradeoff(loaded, out=place.parent / "never")


def test_how_int8_reaches_tensorrt_can_be_said_where_there_is_none(place):
    config = load_configuration(place, overrides=["engine.backend=tensorrt"]).config.engine
    pytest.importorskip("onnxruntime")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        assert finds_scales_itself(config, "cuda:0", "calibrator")
        assert not finds_scales_itself(config, "cuda:0", "auto")
    assert not finds_scales_itself(config, "cuda:0", "qdq")
    assert not finds_scales_itself(config, "cpu", "calibrator")


def test_engines_are_all_made_ready_before_anything_is_measured(place, tmp_path, monkeypatch):
    said = []
    loaded = with_tradeoff(load_configuration(place), precisions=["fp32", "fp16"], pruning=["none"])
    result = measure_tradeoff(loaded, out=tmp_path, say=said.append)
    first = next(i for i, text in enumerate(said) if text.startswith("measuring"))
    engines = [i for i, text in enumerate(said) if text.startswith("engine ")]
    assert [said[i] for i in engines] == [
        "engine 1 of 2: camera-fp32, batch 1", "engine 2 of 2: camera-fp16, batch 1",
    ] and max(engines) < first  # fmt: skip
    assert result["complete"] and "remaining" not in result


def test_a_time_limit_counts_building_and_says_what_remains(place, tmp_path, monkeypatch):
    loaded = with_tradeoff(load_configuration(place), precisions=["fp32", "fp16"], pruning=["none"])
    asked = []
    monkeypatch.setattr("saccade.validation.tradeoff._clock", lambda _: lambda: bool(asked.append(1)) or len(asked) > 4)
    result = measure_tradeoff(loaded, out=tmp_path, time_limit_s=1)
    # A recording, two networks and one engine: then the time is over.
    assert result["remaining"] == {"networks": 0, "engines": 1, "measurements": 2} and not result["complete"]


def test_a_batch_engine_that_failed_is_not_tried_again(place, tmp_path, monkeypatch):
    from saccade.validation.tradeoff_journal import Journal

    tried = []

    def refuse(*_, **__):
        tried.append(1)
        raise ModelError("no kernel")

    monkeypatch.setattr(tradeoff_prepare, "wants_tensorrt", lambda *_: True)
    monkeypatch.setattr(tradeoff_prepare, "engine_made_ready", refuse)
    loaded = load_configuration(place)
    candidate = Candidate("camera")
    with Journal(tmp_path, {}) as journal:
        sweep = tradeoff_prepare.Sweep(loaded, tmp_path, "cuda:0", journal, lambda _: None, [candidate], [])
        sweep.models[candidate.key] = tradeoff_models._model(place.parent / "camera.onnx", 0.0)
        for _ in range(2):
            tradeoff_prepare._ready_for_batch(sweep, candidate, 16)
        assert len(tried) == 1
        assert tradeoff_prepare.failed_engine(sweep, candidate, 16) == "batch 16: no kernel"
        # Tried again, it can be built after all: then it has not failed the next time either.
        monkeypatch.setattr(tradeoff_prepare, "engine_made_ready", lambda *_, **__: SimpleNamespace(close=tried.clear))
        sweep.retry = True
        tradeoff_prepare._ready_for_batch(sweep, candidate, 16)
        sweep.retry = False
        assert not tried and tradeoff_prepare.failed_engine(sweep, candidate, 16) is None


def test_the_command_line_prepares(place, tmp_path):
    arguments = (
        "tradeoff",
        place,
        "--out",
        tmp_path / "s",
        "--prepare-only",
        "--device",
        "cuda",
        "--engine",
        "tensorrt",
    )
    done = spawn(*arguments, "--precision", "fp32,fp16", "--prune", "none", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["models"]) == {"camera-fp32", "camera-fp16"}
    wrong = spawn(*arguments, "--pruned", "camera=mine.onnx", cwd=tmp_path)
    assert wrong.returncode == 2 and "camera:2:4=" in wrong.stderr


def test_what_was_prepared_is_measured_after_the_folder_moved(place, tmp_path, monkeypatch):
    loaded = load_configuration(place)
    prepare_tradeoff(loaded, out=tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.setattr(tradeoff_models, "compress", lambda *_, **__: pytest.fail("made again"))
    result = measure_tradeoff(loaded, out=tmp_path / "there")
    assert result["complete"] and len(result["candidates"]) == 6
    lines = [json.loads(line) for line in (tmp_path / "there" / JOURNAL_FILE).read_text().splitlines()]
    assert [line["kind"] for line in lines[:3]] == ["plan", "scene", "machine"]
    assert str(tmp_path) not in (tmp_path / "there" / JOURNAL_FILE).read_text()


def test_energy_is_measured_in_the_first_scenes_alone(place, tmp_path):
    from saccade.validation import tradeoff
    from saccade.validation.tradeoff_journal import Journal

    loaded = with_tradeoff(load_configuration(place), batches=[1, 4])
    with Journal(tmp_path, {}) as journal:
        for device, wanted in (("cuda:0", [[1, 4]] * 3 + [[4]] * 2), ("cpu", [[4]] * 5)):
            sweep = tradeoff_prepare.Sweep(loaded, tmp_path, device, journal, lambda _: None, [], [])
            assert [tradeoff._batches(sweep, number) for number in range(5)] == wanted


def test_engines_that_run_alone_are_kept_on_a_gpu_while_there_is_room(place, monkeypatch):
    from saccade.validation import tradeoff_measure
    from saccade.validation.tradeoff_inputs import SceneInputs

    opened, closed = [], []

    def open_one(path, config, shapes, batch, **_):
        opened.append(batch)
        engine = SimpleNamespace(close=lambda: closed.append(batch))
        return tradeoff_measure.AloneEngine(engine, batch, {}, lambda: None, 7)

    room = SimpleNamespace(free_memory=60, total_memory=100)
    monkeypatch.setattr(tradeoff_measure, "_opened_alone", open_one)
    loaded, candidate = load_configuration(place), Candidate("camera")
    model = tradeoff_models._model(place.parent / "camera.onnx", 0.0)
    inputs = SceneInputs({"image": np.zeros((4, 3, 16, 16), np.float32)}, None)
    for device, wanted in (("cpu", [4, 4]), ("cuda:0", [4])):
        room.free_memory = 60
        opened.clear()
        closed.clear()
        kept = tradeoff_measure.KeptEngines(device)
        with monkeypatch.context() as patch:
            if device != "cpu":
                patch.setattr(tradeoff_measure.wp, "get_device", lambda _: room)
            for _ in range(2):
                assert kept.engine(loaded, candidate, model, inputs, batch=4).memory_bytes == 7
                kept.make_room()
            assert opened == wanted
            room.free_memory = 20
            kept.make_room()
        kept.close()
        assert closed == wanted


def test_an_engine_that_is_stored_is_not_opened_to_be_ready(place, monkeypatch):
    from saccade.config import EngineConfig
    from saccade.engines import selection

    asked = []
    monkeypatch.setattr(selection, "wants_tensorrt", lambda *_: True)
    monkeypatch.setattr(selection, "qualified_plan", lambda path, options, **_: asked.append((path, options.precision)))
    network = place.parent / "camera.onnx"
    engine = selection.engine_made_ready(network, EngineConfig(precision="fp16"), device="cuda:0")
    assert asked == [(network, "fp16")] and engine.device == "cpu"
    engine.close()
