"""Compression as a whole: what is measured, what is refused, and that nothing is left behind."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.models.conftest import drawn_dataset  # noqa: F401
from tests.onnx_models import save_network
from tests.precision.conftest import segmenter

from saccade.engines.onnxruntime import OnnxRuntimeEngine
from saccade.errors import ConfigurationError, ModelError
from saccade.paths import MODELS
from saccade.precision import compress as module
from saccade.precision.compress import Recipe, compress
from saccade.precision.fp16 import is_half
from saccade.precision.int8 import is_quantized, quantized_nodes, without_quantization
from saccade.precision.samples import Samples


@pytest.fixture(scope="session")
def archive(tmp_path_factory, frames):
    path = tmp_path_factory.mktemp("frames") / "frames.npz"
    np.savez(path, image=frames)
    return path


RECIPES = [
    Recipe("fp16"),
    Recipe("int8"),
    Recipe("int8", method="entropy"),
    Recipe("int8", method="minmax"),
    Recipe("int8_mixed"),
    Recipe(prune="l1", amount=0.2),
    Recipe(prune="channels", amount=0.5),
    Recipe(prune="2:4"),
    Recipe("int8", prune="channels", amount=0.5),
    Recipe("fp16", prune="2:4"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name}-{recipe.method}")
def test_every_recipe(recipe, network_file, archive, tmp_path):
    """The file passes the checker, keeps its tensors, runs as a network of the loop, and its card says what it is."""
    out = tmp_path / "folder" / "small.onnx"
    result = compress(network_file, recipe, calibration=archive, out=out, allow_few=True)
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "small.card.json", "small.onnx", "small.samples.npz"
    ]  # fmt: skip
    model = onnx.load(str(out))
    onnx.checker.check_model(model, full_check=True)
    assert is_half(model) == (recipe.precision == "fp16")
    assert is_quantized(model) == recipe.precision.startswith("int8")
    engine = OnnxRuntimeEngine(out, threads=1)
    assert {spec.name: (spec.shape, spec.dtype) for spec in (*engine.inputs, *engine.outputs)} == {
        "image": ((1, 3, 16, 16), "float32"),
        "labels": ((1, 6, 16, 16), "float32"),
        "score": ((1, 1), "float32"),
    }
    card = json.loads(result.card.read_text())
    assert card["sha256"] == result.hash == hashlib.sha256(out.read_bytes()).hexdigest()
    assert card["original"]["sha256"] == hashlib.sha256(network_file.read_bytes()).hexdigest()
    assert card["recipe"]["name"] == recipe.name
    assert card["checks"] == result.checks and card["latency"]["ratio"] > 0
    assert result.checks["agreement"]["non_finite"] == 0 and result.retention is None
    calibrated, held = card["calibration"], card["checks"]["evaluation"]
    assert calibrated["samples"] + held["samples"] == 130 and calibrated["sha256"] != held["sha256"]
    smaller = recipe.prune == "channels"
    assert (result.multiply_adds["after"] < 0.6 * result.multiply_adds["before"]) == smaller
    assert (result.parameters["after"]["total"] < 0.6 * result.parameters["before"]["total"]) == smaller
    zeros = result.parameters["after"]["total"] - result.parameters["after"]["nonzero"]
    assert (zeros > 50) == (recipe.prune in ("l1", "2:4"))
    with np.load(out.with_name("small.samples.npz")) as kept:
        assert kept["image"].shape == (6, 3, 16, 16)


@pytest.mark.parametrize(
    "recipe", [Recipe("fp16"), Recipe("int8_mixed"), Recipe(prune="channels", amount=0.5)], ids=lambda r: r.name
)
def test_open_batch(recipe, archive, tmp_path):
    """An open batch stays open."""
    path = segmenter(tmp_path / "net.onnx", batch="batch")
    result = compress(path, recipe, calibration=archive, out=tmp_path / "m.onnx", allow_few=True)
    engine = OnnxRuntimeEngine(result.path, threads=1, shapes={"image": (3, 3, 16, 16)})
    assert {spec.shape for spec in engine.outputs} == {(3, 6, 16, 16), (3, 1)}


def test_int8_is_close(network_file, archive, tmp_path):
    result = compress(network_file, Recipe("int8"), calibration=archive, out=tmp_path / "m.onnx", allow_few=True)
    assert result.checks["agreement"]["label_agreement"] > 0.97


def test_truth(network_file, frames, tmp_path):
    """Where the truth is known, both networks are scored against it."""
    labels = frames[:, :3].argmax(axis=1).astype(np.uint8)
    given = Samples({"image": frames}, "drawn", {"labels": labels})
    result = compress(network_file, Recipe("int8"), calibration=given, out=tmp_path / "m.onnx", allow_few=True)
    scores = result.checks["accuracy"]
    assert 0.3 < scores["original"]["miou"] <= 1
    assert result.retention == pytest.approx(scores["compressed"]["miou"] / scores["original"]["miou"])


def with_wide(network, value, path):
    """Writes the network with everything that the widest convolution gives multiplied, and divided again after it."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    for constant in model.graph.initializer:
        if constant.name in ("w2", "b2", "w3"):
            factor = value if constant.name != "w3" else 1 / value
            array = numpy_helper.to_array(constant) * np.float32(factor)
            constant.CopyFrom(numpy_helper.from_array(array, constant.name))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(("value", "reason"), [(3e4, "overflow"), (1e-7, "underflow")])
def test_tensors_that_half_cannot_hold(value, reason, network, archive, tmp_path):
    """They are listed and stay in float, and the outputs are those of the original."""
    path = with_wide(network, value, tmp_path / "net.onnx")
    said = []
    result = compress(
        path, Recipe("fp16"), calibration=archive, out=tmp_path / "m.onnx", allow_few=True, say=said.append
    )
    named = {(entry["tensor"], entry["reason"]) for entry in result.kept_float if "node" in entry}
    assert {("d", reason), ("e", reason)} <= named
    assert any(f"d {reason}s in float16" in line for line in said)
    assert max(result.checks["agreement"]["relative_l2"].values()) < 2e-3


def test_sensitive_nodes_stay_in_float(network, archive, tmp_path):
    """One channel a thousand times as large as the others ruins their eight bits, and only that node is given back."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    for constant in model.graph.initializer:
        array = numpy_helper.to_array(constant).copy()
        if constant.name == "w2":
            array[0] *= 3e3
        elif constant.name == "b2":
            array[0] *= 3e3
        elif constant.name == "w3":
            array[:, 0] /= 3e3
        constant.CopyFrom(numpy_helper.from_array(array, constant.name))
    path = tmp_path / "net.onnx"
    onnx.save(model, str(path))
    plain, mixed = (
        compress(path, Recipe(p, method="minmax"), calibration=archive, out=tmp_path / f"{p}.onnx", allow_few=True)
        for p in ("int8", "int8_mixed")
    )
    assert mixed.sensitivity[0]["node"] == "narrow"
    assert mixed.kept_float[0]["node"] == "narrow"
    assert len(mixed.kept_float) < len(mixed.sensitivity)
    errors = [row["error"] for row in mixed.sensitivity]
    assert errors == sorted(errors, reverse=True)
    assert mixed.checks["agreement"]["label_agreement"] > plain.checks["agreement"]["label_agreement"]
    assert "narrow" not in quantized_nodes(onnx.load(str(mixed.path)))


def test_a_target_beyond_reach(network_file, archive, tmp_path, monkeypatch):
    """Float itself is always within reach, so only a broken judgement gets here; it must not write anything."""
    from saccade.precision import sensitivity

    monkeypatch.setattr(sensitivity, "kept_share", lambda *_: 0.5)
    with pytest.raises(ModelError, match=r"even with all .* keeps 50.00%"):
        compress(network_file, Recipe("int8_mixed"), calibration=archive, out=tmp_path / "o" / "m.onnx", allow_few=True)
    assert not (tmp_path / "o").exists()


def test_without_quantization(network, frames):
    from saccade.precision.int8 import quantized_from_float

    quantized = quantized_from_float(network, {"image": frames})
    names = quantized_nodes(quantized)
    assert {"stem", "depthwise", "wide", "narrow", "head", "fc", "sum"} <= set(names)
    assert quantized_nodes(without_quantization(quantized, names)) == []
    assert not is_quantized(without_quantization(quantized, names))
    some = without_quantization(quantized, ["wide"])
    assert set(quantized_nodes(some)) == set(names) - {"wide"}


def test_collapse_is_refused(archive, tmp_path):
    """Where the weights that tell one class from the other are pruned away, a bias says the same everywhere."""
    weight = np.zeros((4, 4, 1, 1), np.float32)
    weight[:, 3] = 1.0
    weight[0, 0] = 0.5
    path = save_network(
        tmp_path / "net.onnx",
        inputs={"image": [1, 3, 16, 16]},
        outputs={"labels": [1, 4, 16, 16]},
        nodes=[
            helper.make_node("Concat", ["image", "ones"], ["four"], "join", axis=1),
            helper.make_node("Conv", ["four", "w", "b"], ["labels"], "only"),
        ],
        constants={
            "w": weight,
            "b": np.array([0, 0.01, 0, 0], np.float32),
            "ones": np.ones((1, 1, 16, 16), np.float32),
        },
    )
    out = tmp_path / "o" / "m.onnx"
    with pytest.raises(ModelError, match=r"fp32-l175 is refused, nothing is written: .*class 1 everywhere"):
        compress(path, Recipe(prune="l1", amount=0.75), calibration=archive, out=out, allow_few=True)
    assert not out.parent.exists()


def test_nan_is_refused(network_file, archive, tmp_path, monkeypatch):
    """Whatever made it: a result with NaN is not written, and what was there stays."""
    out = tmp_path / "m.onnx"
    out.write_bytes(b"before")

    def broken(model, masks):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for constant in changed.graph.initializer:
            if constant.name == "b4":
                constant.CopyFrom(numpy_helper.from_array(np.full(1, np.nan, np.float32), "b4"))
        return changed

    monkeypatch.setattr("saccade.precision.sparsity.masked", broken)
    with pytest.raises(ModelError, match=r"'score' has 2[0-9] values that are NaN"):
        compress(network_file, Recipe(prune="l1"), calibration=archive, out=out, allow_few=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"] and out.read_bytes() == b"before"


def test_a_full_disk_leaves_nothing(network_file, archive, tmp_path, monkeypatch):
    def full(path, samples):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "_save", full)
    out = tmp_path / "o" / "m.onnx"
    with pytest.raises(ConfigurationError, match="No space left"):
        compress(network_file, Recipe("fp16"), calibration=archive, out=out, allow_few=True)
    assert not list(out.parent.iterdir())


def test_overlap_is_refused(network_file, archive, tmp_path):
    with pytest.raises(ConfigurationError, match="130 of 130 evaluation samples"):
        compress(network_file, Recipe("int8"), calibration=archive, evaluation=archive, out=tmp_path / "m.onnx")


def test_evaluation_of_its_own(network_file, frames, tmp_path):
    first, second = (Samples({"image": part}, name) for part, name in ((frames[:105], "a"), (frames[105:], "b")))
    result = compress(network_file, Recipe("int8"), calibration=first, evaluation=second, out=tmp_path / "m.onnx")
    assert result.calibration["samples"] == 105 and result.checks["evaluation"]["source"] == "b"


def test_few_frames(network_file, frames, tmp_path):
    few = Samples({"image": frames[:50]}, "few")
    with pytest.raises(ConfigurationError, match="50 different samples in few, at least 100"):
        compress(network_file, Recipe("int8"), calibration=few, out=tmp_path / "m.onnx")
    assert compress(network_file, Recipe("int8"), calibration=few, out=tmp_path / "m.onnx", allow_few=True).hash


def test_a_dataset_with_few_frames(drawn_dataset, tmp_path):  # noqa: F811
    """A rendered dataset is held to the same number, and judged on layouts of its own."""
    with pytest.raises(ConfigurationError, match="8 different samples"):
        compress(MODELS / "lidar.onnx", Recipe("int8"), calibration=drawn_dataset, out=tmp_path / "m.onnx")
    result = compress(
        MODELS / "lidar.onnx", Recipe("fp16"), calibration=drawn_dataset, out=tmp_path / "m.onnx", allow_few=True
    )
    assert result.checks["evaluation"]["source"].endswith("/test") and result.retention == pytest.approx(1, abs=0.02)
    assert result.kept_float == []


@pytest.mark.parametrize("value", ["constant", "empty"])
def test_useless_frames(value, network_file, tmp_path):
    images = np.full((0 if value == "empty" else 130, 3, 16, 16), 0.5, np.float32)
    with pytest.raises(ConfigurationError, match="every value" if value == "constant" else "no samples"):
        compress(network_file, Recipe("int8"), calibration=Samples({"image": images}, "s"), out=tmp_path / "m.onnx")


@pytest.mark.parametrize("operator", ["com.example.Warp", "If"])
def test_unsupported_operators_are_named(operator, archive, tmp_path):
    path = tmp_path / "net.onnx"
    if operator == "If":
        value = helper.make_tensor_value_info("y", 1, [1, 3, 16, 16])
        branch = helper.make_graph([helper.make_node("Relu", ["image"], ["y"])], "b", [], [value])
        node = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    else:
        node = helper.make_node("Warp", ["image"], ["out"], domain="com.example")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", 1, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("out", 1, [1, 3, 16, 16])],
        [numpy_helper.from_array(np.array(True), "yes")] if operator == "If" else [],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), str(path))
    with pytest.raises(ModelError, match=f"unsupported operators: {operator}"):
        compress(path, Recipe("fp16"), calibration=archive, out=tmp_path / "m.onnx")


def test_compressed_networks_are_not_compressed_again(network_file, archive, tmp_path):
    first = compress(network_file, Recipe("int8"), calibration=archive, out=tmp_path / "m.onnx", allow_few=True)
    with pytest.raises(ModelError, match="in int8 or half precision already"):
        compress(first.path, Recipe("fp16"), calibration=archive, out=tmp_path / "n.onnx")


@pytest.mark.parametrize("content", [None, b"no network"])
def test_unreadable(content, archive, tmp_path):
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.onnx"):
        compress(path, Recipe("fp16"), calibration=archive, out=tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"precision": "fp8"}, "precision 'fp8': expected one of fp32, fp16, int8, int8_mixed"),
        ({"prune": "rows"}, "prune 'rows'"),
        ({"method": "guess"}, "method 'guess'"),
        ({"prune": "l1", "amount": 1.0}, "amount 1"),
        ({"prune": "2:4", "amount": 0.3}, "2:4"),
        ({"amount": 0.3}, "for pruned networks"),
        ({"fine_tune_minutes": 1}, "for pruned networks"),
        ({"percentile": 20}, "percentile 20"),
        ({"target": 1.5}, "target 1.5"),
        ({"prune": "l1", "fine_tune_minutes": -1}, "fine_tune_minutes"),
    ],
)
def test_wrong_recipes(fields, text):
    with pytest.raises(ConfigurationError, match=text):
        Recipe(**fields)


def test_names():
    assert [recipe.name for recipe in (Recipe("fp16"), Recipe(prune="2:4"), Recipe("int8", "channels"))] == [
        "fp16", "fp32-2to4", "int8-channels25"
    ]  # fmt: skip
