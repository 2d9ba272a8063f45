"""Fine-tuning of pruned networks on the simulator's data: ONNX weights into the shipped modules, a few steps, and back.

This works for the shipped networks and those that ``saccade train`` made, whose modules are known. Other networks are
pruned without it: train them with the masks or the smaller graph in their own training script.
"""

# ruff: noqa: TID253 (fine-tuning alone imports this module)

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from saccade.errors import ModelError
from saccade.models import dataset
from saccade.models.export import export_network, fold_normalisation
from saccade.models.networks import LidarNetwork, network_from_kind
from saccade.models.training import Run, device_from_name, tensors_from

if TYPE_CHECKING:
    import onnx

RATE = 1e-3
"""Peak of the learning rate; new networks learn with three times as much."""
BATCHES = {"cpu": 16, "cuda": 32}
SAMPLES: dict[str, dict[str, int | None]] = {
    "cpu": {"train": 1600, "validation": 96},
    "cuda": {"train": None, "validation": None},
}
"""Frames of each part that are used, by device; ``None`` = all."""
PASSES_PER_MINUTE = {"cpu": 4, "cuda": 40}
"""More than fit into a minute: the clock ends the training."""

_CLOSE = 1e-3


def fine_tuned(
    model: onnx.ModelProto,
    masks: Mapping[str, np.ndarray],
    *,
    minutes: float,
    seed: int = 0,
    device: str = "auto",
    cache: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Trains a pruned network on the simulator's training layouts, and returns it with what was done.

    Args:
        model: A pruned network that was trained by ``saccade train``.
        masks: Weights that may differ from zero, by name of the constant; others stay as they become.
        minutes: Wall time of the training [min]; the learning rate ends in time.
        seed: Of order and augmentation.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where PyTorch has one.
        cache: A dataset's folder, or where datasets are kept; ``None`` = the user's cache folder.
        say: Told how far it is.

    Raises:
        ModelError: The network is none whose module is known, or the loss left the finite numbers.
        ConfigurationError: PyTorch has no such device.
        DependencyError: Frames must be rendered and the simulator is not installed.
    """
    place = device_from_name(device)
    network, kind = network_from_onnx(model)

    def report(stage: str, done: int, total: int, note: str = "") -> None:
        say(f"fine-tuning: {stage} {done}/{total} {note}".rstrip())

    folder = dataset.ensure_dataset(kind, cache=cache, report=report)
    say("fine-tuning: reading frames")
    parts = {
        part: tensors_from(dataset.load_part(folder, kind, part, at_most=count), place)
        for part, count in SAMPLES[place.type].items()
    }
    run = Run(kind, network.to(place), parts, place, seed=seed, limit=minutes * 60)
    run.masks = {name: torch.from_numpy(mask.astype(np.float32)).to(place) for name, mask in masks.items()}
    before = run.evaluate("validation")[0]["miou"]
    epochs = max(1, round(PASSES_PER_MINUTE[place.type] * minutes))
    curves = run.fit(epochs=epochs, batch=BATCHES[place.type], report=report, rate=RATE)
    after = run.evaluate("validation")[0]["miou"]
    facts = {name: run.setup[name] for name in ("epochs", "steps", "batch", "seed", "optimizer", "device", "torch")}
    facts |= {"minutes": minutes, "validation_miou": {"before": before, "after": after}, "losses": curves["train"]}
    return _exported(run.average.cpu(), model), facts


def network_from_onnx(model: onnx.ModelProto) -> tuple[nn.Module, str]:
    """Returns the module of a network with its weights, normalisations folded away, and its kind.

    Channels may have been removed: every layer takes the size of its weight.

    Raises:
        ModelError: No known module has these weights, or gives these outputs.
    """
    from onnx import numpy_helper

    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    kind = properties.get("kind", "")
    if kind not in dataset.KINDS:
        raise ModelError(
            "fine-tuning works for networks that saccade train made; this one says nothing of that. Prune without "
            "it, and train it further with your own script"
        )
    options = {"architecture": properties["architecture"]} if "architecture" in properties else {}
    network = network_from_kind(kind, **options).eval()
    fold_normalisation(network)
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            _fill(name, module, constants)
    for name, buffer in network.named_buffers():
        if name in constants and buffer.shape == constants[name].shape:
            buffer.copy_(torch.from_numpy(constants[name].copy()))
    if isinstance(network, LidarNetwork):
        network.wrap_once()
    _require_same(network, model)
    return network, kind


def _fill(name: str, module: nn.Conv2d | nn.Linear, constants: Mapping[str, np.ndarray]) -> None:
    for part in ("weight", "bias"):
        if getattr(module, part) is None:
            continue
        array = constants.get(f"{name}.{part}")
        if array is None or (part == "weight" and array.ndim != module.weight.ndim):
            raise ModelError(
                f"fine-tuning: the network has no {name}.{part}, which its module has: it was not exported by saccade "
                "train, or was changed since; prune the file that saccade train wrote"
            )
        setattr(module, part, nn.Parameter(torch.from_numpy(array.copy())))
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1
        module.out_channels = module.weight.shape[0]
        module.groups = module.weight.shape[0] if depthwise else 1
        module.in_channels = module.weight.shape[1] * module.groups
    else:
        module.out_features, module.in_features = module.weight.shape


def _require_same(network: nn.Module, model: onnx.ModelProto) -> None:
    from saccade.precision.evaluation import session_from

    sample = torch.rand((1, *network.input_shape), generator=torch.Generator().manual_seed(0))  # type: ignore[misc]
    with torch.no_grad():
        expected = [output.numpy() for output in network.eval()(sample)]
    found = session_from(model).run(list(network.output_names), {network.input_name: sample.numpy()})  # type: ignore[arg-type]
    for one, other in zip(expected, found, strict=True):
        if not np.abs(one - other).max() <= _CLOSE * max(1.0, float(np.abs(one).max())):
            raise ModelError(
                "fine-tuning: the file's outputs are not those of its module with the same weights: prune the file "
                "that saccade train wrote"
            )


def _exported(network: nn.Module, like: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    first = like.graph.input[0].type.tensor_type.shape.dim[0]
    metadata = {entry.key: entry.value for entry in like.metadata_props if entry.key != "generator"}
    with tempfile.TemporaryDirectory(prefix="saccade-tuned-") as folder:
        path = Path(folder) / "tuned.onnx"
        export_network(network, path, dynamic_batch=not first.HasField("dim_value"), metadata=metadata)
        return onnx.load(str(path))
