"""``saccade compress``: what it writes and says, and clear words for every mistake."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.precision.conftest import segmenter
from typer.testing import CliRunner

from saccade.cli import app
from saccade.errors import ConfigurationError, DependencyError, ModelError


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A network of one's own and a folder of one's own images."""
    monkeypatch.chdir(tmp_path)
    segmenter(tmp_path / "mine.onnx")
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(120):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((20, 20)).save(folder / f"{index:03}.png")
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(app, ["compress", *map(str, arguments)])


def test_own_network_and_images(files):
    """The file's name tells the recipe; stdout holds its path alone; stderr what was measured."""
    result = invoke("mine.onnx", "--precision", "int8", "--calibration", "pictures", "--allow-few")
    assert result.exit_code == 0, result.output
    assert result.stdout == "mine-int8.onnx\n"
    for text in (
        "parameters 1,",
        "multiply-adds",
        "latency on this CPU",
        "labels equal to the original's on",
        "some 500 are usual",
    ):
        assert text in result.stderr
    assert (files / "mine-int8.card.json").is_file() and (files / "mine-int8.samples.npz").is_file()


def test_json(files):
    arguments = ("--precision", "fp16", "--prune", "channels", "--amount", "0.5", "--calibration", "pictures")
    result = invoke("mine.onnx", *arguments, "--json", "--allow-few", "--out", "o/small.onnx")
    card = json.loads(result.stdout)
    assert card == json.loads((files / "o" / "small.card.json").read_text())
    assert card["recipe"]["name"] == "fp16-channels50"
    assert card["multiply_adds"]["after"] < card["multiply_adds"]["before"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["mine.onnx"], ConfigurationError, "nothing to do"),
        (["none.onnx", "--precision", "fp16"], ModelError, "none.onnx"),
        (["mine.onnx", "--precision", "fp16", "--out", "m.plan"], ConfigurationError, "ends in .onnx"),
        (["mine.onnx", "--precision", "fp16", "--out", "mine.onnx"], ConfigurationError, "the original itself"),
        (["mine.onnx", "--precision", "fp16", "--mean", "1,2"], ConfigurationError, "--mean 1,2: expected three"),
        (["mine.onnx", "--precision", "fp16", "--std", "1,0,1"], ConfigurationError, "numbers above 0"),
        (["mine.onnx", "--precision", "fp16", "--calibration", "absent"], ConfigurationError, "absent"),
        (["mine.onnx", "--precision", "fp16", "--amount", "0.5"], ConfigurationError, "for pruned networks"),
        (["mine.onnx", "--prune", "2:4", "--amount", "0.4"], ConfigurationError, "2:4"),
        (["mine.onnx", "--precision", "int8", "--calibration", "pictures", "--samples", "60"],
         ConfigurationError, "at least 100"),
        (["mine.onnx", "--precision", "int8", "--calibration", "pictures", "--evaluation", "pictures"],
         ConfigurationError, "are also calibration samples"),
        (["mine.onnx", "--precision", "fp16", "--calibration", "pictures", "--keep", "nothing"],
         ConfigurationError, "keep: nothing"),
    ],
)  # fmt: skip
def test_mistakes(arguments, error, text, files):
    """Each is one clear error, and leaves no file."""
    before = sorted(files.iterdir())
    result = invoke(*arguments)
    assert isinstance(result.exception, error) and text in str(result.exception)
    assert sorted(files.iterdir()) == before


def test_wrong_choice(files):
    result = invoke("mine.onnx", "--precision", "fp8")
    assert result.exit_code == 2 and "int8_mixed" in result.stderr


def test_interrupt_leaves_nothing(files, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("saccade.precision.evaluation.latency_ratio", stopped)
    before = sorted(files.iterdir())
    result = invoke("mine.onnx", "--precision", "fp16", "--calibration", "pictures", "--allow-few")
    assert result.exception.exit_status == 3 and sorted(files.iterdir()) == before


def test_fine_tuning_without_torch(files, monkeypatch):
    """Says what to install; one's own networks are refused before anything is trained."""
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.delitem(__import__("sys").modules, "saccade.models.tuning", raising=False)
    arguments = ("--prune", "l1", "--fine-tune", "1", "--calibration", "pictures", "--allow-few")
    result = invoke("mine.onnx", *arguments)
    assert isinstance(result.exception, DependencyError) and "pip install 'torch>=2.3'" in str(result.exception)


def test_help():
    result = CliRunner().invoke(app, ["compress", "--help"])
    assert result.exit_code == 0 and "Examples" in result.output and "--calibration" in result.output
