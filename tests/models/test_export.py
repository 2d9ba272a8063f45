from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from saccade.errors import ModelError  # noqa: E402
from saccade.models import export, networks  # noqa: E402


@pytest.fixture(scope="module", params=["camera", "lidar"])
def network(request):
    torch.manual_seed(2)
    network = networks.network_from_kind(request.param)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return network


@pytest.mark.parametrize("dynamic", [False, True])
def test_export_equals_pytorch_and_is_folded(network, dynamic, tmp_path):
    path = export.export_network(network, tmp_path / "network.onnx", dynamic_batch=dynamic, metadata={"seed": "7"})
    model = onnx.load(path)
    assert model.opset_import[0].version == export.OPSET
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Identity", "Dropout", "Shape", "If", "Loop"}
    assert {prop.key: prop.value for prop in model.metadata_props}["seed"] == "7"
    batch = 3 if dynamic else 1
    sample = torch.rand(batch, *network.input_shape)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network.eval()(sample)
    for one, other in zip(expected, session.run(None, {network.input_name: sample.numpy()}), strict=True):
        assert np.abs(one.numpy() - other).max() < 1e-3 * max(1.0, float(one.abs().max()))
    assert [path] == list(tmp_path.iterdir())


def test_an_interrupted_export_leaves_what_was_there(network, tmp_path, monkeypatch):
    path = tmp_path / "network.onnx"
    path.write_bytes(b"older")

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "verify_export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.export_network(network, path)
    assert path.read_bytes() == b"older"
    assert [path] == list(tmp_path.iterdir())


def test_a_file_that_differs_from_the_network_is_refused(network, tmp_path):
    path = export.export_network(network, tmp_path / "network.onnx")
    other = networks.network_from_kind("camera" if isinstance(network, networks.CameraNetwork) else "lidar")
    with pytest.raises(ModelError, match="differs from PyTorch"):
        export.verify_export(other.eval(), path)
