"""Which engine runs a network here: the configured one, or the best that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from saccade.config import EngineConfig
from saccade.engines.base import Engine
from saccade.errors import DependencyError


def engine_from_onnx(
    path: Path,
    config: EngineConfig,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    defaults: Mapping[str, tuple[int, ...]] | None = None,
) -> Engine:
    """Opens ``path`` with the engine that ``config`` names; ``shapes`` and ``defaults`` as the engine takes them.

    Raises:
        ModelError: The file cannot be used.
        DependencyError: The engine is not installed.
    """
    if config.backend == "tensorrt":
        raise DependencyError(
            "engine.backend: tensorrt is not part of this version: use 'auto' or 'onnxruntime' (see the README)"
        )
    try:
        from saccade.engines.onnxruntime import OnnxRuntimeEngine
    except ImportError as error:
        raise DependencyError(f"ONNX Runtime is not installed ({error}): pip install onnxruntime") from error
    return OnnxRuntimeEngine(path, threads=config.threads, shapes=shapes, defaults=defaults)
