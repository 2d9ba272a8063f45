"""The shipped networks and their cards; needs no PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import saccade.models
from saccade.frame import CLASSES

FOLDER = Path(saccade.models.__file__).parent
TENSORS = {
    "camera": ({"image": [1, 3, 224, 224]}, {"labels": [1, 6, 224, 224], "hazard": [1, 1]}),
    "lidar": ({"range_image": [1, 2, 32, 1024]}, {"labels": [1, 6, 32, 1024], "clearance": [1, 16]}),
}
FILES = [(kind, suffix) for kind in TENSORS for suffix in ("", "_dynamic")]


@pytest.mark.parametrize(("kind", "suffix"), FILES)
def test_files_are_sound_small_and_as_documented(kind, suffix):
    onnx = pytest.importorskip("onnx")
    path = FOLDER / f"{kind}{suffix}.onnx"
    assert path.stat().st_size < 4 * 2**20
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert 13 <= model.opset_import[0].version <= 17

    def shapes(values):
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    inputs, outputs = TENSORS[kind]
    first = "batch" if suffix else 1
    assert shapes(model.graph.input) == {name: [first, *shape[1:]] for name, shape in inputs.items()}
    assert shapes(model.graph.output) == {name: [first, *shape[1:]] for name, shape in outputs.items()}


@pytest.mark.parametrize("kind", sorted(TENSORS))
def test_both_files_hold_the_same_network(kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    one, other = (
        onnxruntime.InferenceSession(FOLDER / f"{kind}{suffix}.onnx", providers=["CPUExecutionProvider"])
        for suffix in ("", "_dynamic")
    )
    ((name, shape),) = TENSORS[kind][0].items()
    samples = np.random.default_rng(0).random((2, *shape[1:]), dtype=np.float32)
    together = other.run(None, {name: samples})
    for i in range(2):
        for whole, part in zip(together, one.run(None, {name: samples[i : i + 1]}), strict=True):
            assert np.abs(whole[i] - part[0]).max() < 1e-3 * max(1.0, np.abs(part).max())


@pytest.mark.parametrize("kind", sorted(TENSORS))
def test_cards_say_what_was_measured(kind):
    card = json.loads((FOLDER / f"{kind}.card.json").read_text())
    assert card["kind"] == kind
    assert card["classes"] == list(CLASSES)
    seeds = {
        part: range(card["data"][part]["first_seed"], card["data"][part]["last_seed"] + 1)
        for part in ("train", "validation", "test")
    }
    assert not set(seeds["train"]) & set(seeds["test"])
    assert not set(seeds["train"]) & set(seeds["validation"])
    assert not set(seeds["validation"]) & set(seeds["test"])
    test = card["scores"]["test"]
    present = [value for value in test["iou"].values() if value is not None]
    assert test["miou"] == pytest.approx(sum(present) / len(present))
    assert (FOLDER / f"{kind}.card.md").is_file()


@pytest.mark.parametrize("kind", sorted(TENSORS))
def test_goals_on_held_out_layouts_are_met(kind):
    card = json.loads((FOLDER / f"{kind}.card.json").read_text())
    for goal in card["goals"]:
        assert goal["met"], goal
