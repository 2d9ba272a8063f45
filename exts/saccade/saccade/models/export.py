"""ONNX files from trained networks: folded, checked, compared with PyTorch, and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

OPSET = 17
MAX_DIFFERENCE = 1e-3
"""Largest accepted difference between the file and PyTorch, relative to the output's scale."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that replaces it on success and vanishes on any failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def export_network(
    network: nn.Module, path: Path, *, dynamic_batch: bool = False, metadata: dict[str, str] | None = None
) -> Path:
    """Writes a network as ONNX, opset 17, with batch normalisation folded into the convolutions.

    Args:
        network: A :class:`saccade.models.networks.CameraNetwork` or ``LidarNetwork``; left unchanged.
        path: The file; replaced only when the whole export has succeeded.
        dynamic_batch: Leaves the batch size open; otherwise it is 1.
        metadata: Further text stored in the file's metadata.

    Raises:
        ModelError: The checker or the file's output disagrees.
    """
    import copy

    import onnx
    import torch

    trained = copy.deepcopy(network).cpu().float().to(memory_format=torch.contiguous_format).eval()
    frozen = copy.deepcopy(trained)
    fold_normalisation(frozen)
    if hasattr(frozen, "prepare_export"):
        frozen.prepare_export()
    sample = _sample(frozen)
    names = [frozen.input_name, *frozen.output_names]
    with atomic_path(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            # The tracing exporter needs no further package, and these networks have no control flow.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                frozen,
                (sample,),
                str(temporary),
                input_names=names[:1],
                output_names=names[1:],
                opset_version=OPSET,
                dynamo=False,
                do_constant_folding=True,
                dynamic_axes={name: {0: "batch"} for name in names} if dynamic_batch else None,
            )
        model = _tidied(onnx.load(str(temporary)), {"generator": "saccade", **(metadata or {})})
        onnx.save(model, str(temporary))
        verify_export(trained, temporary, batches=(1, 3) if dynamic_batch else (1,))
    return path


def verify_export(network: nn.Module, path: Path, *, batches: tuple[int, ...] = (1,)) -> float:
    """Returns the largest difference between the file and the network on random input, relative to the output's scale.

    Raises:
        ModelError: It is above :data:`MAX_DIFFERENCE`, or the file does not pass ONNX's checker.
    """
    import onnx
    import torch

    onnx.checker.check_model(str(path), full_check=True)
    worst = 0.0
    for batch in batches:
        sample = _sample(network, batch)
        with torch.no_grad():
            expected = [output.numpy() for output in network.eval()(sample)]
        for name, one, other in zip(
            network.output_names, expected, _run(path, network.input_name, sample.numpy()), strict=True
        ):
            difference = float(abs(one - other).max() / max(1.0, abs(one).max()))
            worst = max(worst, difference)
            if not difference < MAX_DIFFERENCE:
                raise ModelError(
                    f"{path}: output {name!r} differs from PyTorch by {difference:.2g} of its scale (at most "
                    f"{MAX_DIFFERENCE:g} "
                    "is accepted): the export is not kept; try another version of torch or onnxruntime"
                )
    return worst


def _sample(network: Any, batch: int = 1) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.rand((batch, *network.input_shape), generator=generator)


def _run(path: Path, name: str, sample: Any) -> list[Any]:
    try:
        import onnxruntime
    except ImportError:
        # Slow, but it comes with ONNX: where training runs, nothing else has to.
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(str(path)).run(None, {name: sample}))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: sample})


def fold_normalisation(network: nn.Module) -> None:
    """Merges every batch normalisation into the convolution before it in the same ``Sequential``."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            first, second = module[index], module[index + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[index], module[index + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


def _tidied(model: Any, metadata: dict[str, str]) -> Any:
    """Returns the model with inferred shapes, plain half-pixel resizing, and its metadata."""
    import onnx

    # Copies that the exporter leaves behind for weights that occur twice.
    copies = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"}
    outputs = {output.name for output in model.graph.output}
    kept = [node for node in model.graph.node if node.op_type != "Identity" or node.output[0] in outputs]
    for node in kept:
        for index, name in enumerate(node.input):
            while name in copies:
                name = copies[name]  # noqa: PLW2901
            node.input[index] = name
        for attribute in node.attribute:
            # The same thing unless an output has one pixel, and known to more runtimes.
            if attribute.name == "coordinate_transformation_mode" and attribute.s == b"pytorch_half_pixel":
                attribute.s = b"half_pixel"
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.helper.set_model_props(model, metadata)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
