"""Fine-tuning of pruned networks: masks hold, smaller graphs stay smaller, other networks are refused."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from tests.precision.conftest import segmenter  # noqa: E402

from saccade.errors import ConfigurationError, ModelError  # noqa: E402
from saccade.models import tuning  # noqa: E402
from saccade.paths import MODELS  # noqa: E402
from saccade.precision.cost import constants_of, multiply_adds_of, weights_of  # noqa: E402
from saccade.precision.pruning import without_channels  # noqa: E402
from saccade.precision.sparsity import is_2_to_4, masked, sparse_masks  # noqa: E402


@pytest.mark.parametrize("kind", ["camera", "lidar"])
def test_sparse_weights_stay_zero(kind, drawn_dataset):
    model = onnx.load(str(MODELS / f"{kind}.onnx"))
    masks = sparse_masks(model, "2:4")
    tuned, facts = tuning.fine_tuned(masked(model, masks), masks, minutes=0.05, cache=drawn_dataset)
    assert facts["steps"] >= 1 and facts["validation_miou"]["after"] is not None
    weights = weights_of(tuned)
    assert all(is_2_to_4(weights[name]) for name in masks)
    before = constants_of(model)
    assert any(np.abs(weights[name] - before[name] * masks[name]).max() > 1e-6 for name in masks)


def test_smaller_graphs_stay_smaller(drawn_dataset):
    smaller, _ = without_channels(onnx.load(str(MODELS / "camera_dynamic.onnx")), 0.25)
    tuned, _ = tuning.fine_tuned(smaller, {}, minutes=0.05, cache=drawn_dataset)
    assert multiply_adds_of(tuned) == multiply_adds_of(smaller)
    assert tuned.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_networks_of_others_are_refused(tmp_path):
    model = onnx.load(str(segmenter(tmp_path / "mine.onnx")))
    with pytest.raises(ModelError, match="networks that saccade train made"):
        tuning.fine_tuned(model, {}, minutes=1)
    onnx.helper.set_model_props(model, {"kind": "camera"})
    with pytest.raises(ModelError, match=r"has no stem\.0\.0\.weight"):
        tuning.fine_tuned(model, {}, minutes=1)


def test_a_gpu_that_is_not_there_is_said(monkeypatch, drawn_dataset):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = onnx.load(str(MODELS / "camera.onnx"))
    with pytest.raises(ConfigurationError, match=r"'cuda': PyTorch finds no usable GPU; take cpu or auto"):
        tuning.fine_tuned(model, {}, minutes=1, device="cuda", cache=drawn_dataset)
