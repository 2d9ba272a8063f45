from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from saccade.errors import ConfigurationError  # noqa: E402
from saccade.models import training  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["camera", "lidar"])
def test_training_learns_and_writes_networks_and_card(kind, drawn_dataset, tmp_path):
    output = tmp_path / "models"
    result = training.train(
        kind, output=output, cache=drawn_dataset, epochs=3, batch=4, device="cpu", note="A test.", progress=False
    )
    assert result.model == output / f"{kind}.onnx"
    assert {path.name for path in output.iterdir()} >= {
        f"{kind}.onnx",
        f"{kind}_dynamic.onnx",
        f"{kind}.card.json",
        f"{kind}.card.md",
    }
    card = json.loads(result.card.read_text())
    losses = [row["loss"] for row in card["curves"]["train"]]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert card["scores"]["test"]["samples"] == 4
    assert card["data"]["train"]["samples"] == 8
    assert card["training"]["epochs"] == 3
    assert "A test." in (output / f"{kind}.card.md").read_text()
    assert not list(output.glob(".*"))


def test_the_clock_ends_training(drawn_dataset):
    place = torch.device("cpu")
    parts = {
        part: training.tensors_from(training.dataset.load_part(drawn_dataset, "lidar", part), place)
        for part in training.dataset.PARTS
    }
    run = training.Run("lidar", training.network_from_kind_seeded("lidar", 0), parts, place, seed=0, limit=1.0)
    curves = run.fit(epochs=1000, batch=4, report=lambda *_: None)
    assert 0 < len(curves["train"]) < 200
    assert curves["validation"]


def test_the_same_seed_gives_the_same_weights():
    one, other = (training.network_from_kind_seeded("camera", 5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "message"), [({"kind": "radar"}, "camera"), ({"kind": "camera", "device": "cuda:9"}, "GPU")]
)
def test_wrong_options_are_refused(options, message, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigurationError, match=message):
        training.train(options.pop("kind"), output=tmp_path, progress=False, **options)
