"""Which engine runs a network here: the configured one, or the best that is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.config import EngineConfig
from saccade.engines.base import Engine
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.errors import DependencyError, EngineError, ModelError

if TYPE_CHECKING:
    from saccade.engines.store import EngineStore, StoredPlan

PLAN_SUFFIXES = (".plan", ".engine", ".trt")
"""Files that are taken for serialized TensorRT engines."""

QUALIFICATION_SAMPLES = 16

Shapes = Mapping[str, tuple[int, ...]]


def quiet(_text: str) -> None:
    """Says nothing."""


def engine_from_onnx(
    path: Path,
    config: EngineConfig,
    *,
    device: str = "cpu",
    shapes: Shapes | None = None,
    defaults: Shapes | None = None,
    ranges: Mapping[str, ShapeRange] | None = None,
    store: EngineStore | None = None,
    say: Callable[[str], None] = quiet,
    unqualified: bool = False,
) -> Engine:
    """Opens ``path`` with the engine that ``config`` names; ``auto`` is TensorRT where it imports and CUDA is meant.

    Args:
        path: ONNX file; for TensorRT also a plan that was built elsewhere and is trusted.
        config: Back end, precision and build options.
        device: Where the sensor data are, ``"cpu"`` or ``"cuda:N"``.
        shapes: Shape by input name that the caller will bind; it must agree with the file.
        defaults: Shape by input name for the dimensions that the file leaves open and ``shapes`` does not give.
        ranges: Shapes that a TensorRT engine shall accept for its open inputs; those not named accept one shape.
        store: Where TensorRT engines are kept; ``None`` = the user's.
        say: Told why an engine is built, and how far it is.
        unqualified: As of :func:`qualified_plan`.

    Raises:
        ModelError: The file cannot be used.
        DependencyError: The engine is not installed.
        EngineError: The TensorRT engine cannot be built, differs too much from its FP32 reference, or is refused.
    """
    path = Path(path)
    if wants_tensorrt(config.backend, device):
        if path.suffix in PLAN_SUFFIXES:
            return _engine_from_plan(path, device=device, shapes=shapes, store=store)
        return _tensorrt_from_onnx(
            path,
            config,
            device=device,
            shapes=shapes,
            defaults=defaults,
            ranges=ranges,
            store=store,
            say=say,
            unqualified=unqualified,
        )
    if path.suffix in PLAN_SUFFIXES:
        raise ModelError(f"{path}: only TensorRT on CUDA opens a plan: --engine tensorrt --device cuda")
    return _onnxruntime()(path, threads=config.threads, shapes=shapes, defaults=defaults)


def options_from_config(config: EngineConfig, *, ranges: Mapping[str, ShapeRange] | None = None) -> BuildOptions:
    """Returns the build options that ``config`` asks for, for open inputs of the given shapes."""
    return BuildOptions(
        precision=config.precision,
        sparse=config.sparse,
        shapes=dict(ranges or {}),
        workspace=None if config.workspace_mib is None else config.workspace_mib * 2**20,
        calibration=None if config.calibration is None else Path(config.calibration).expanduser(),
        time_limit=config.build_limit_s,
    )


def qualified_plan(
    path: Path,
    options: BuildOptions,
    *,
    device: str = "cuda:0",
    threads: int = 0,
    store: EngineStore | None = None,
    say: Callable[[str], None] = quiet,
    unqualified: bool = False,
) -> StoredPlan:
    """Returns the engine of ``path`` from the store, built and compared with ONNX Runtime in FP32 where need be.

    Args:
        path: ONNX file.
        options: How it is, or was, built.
        device: GPU that it is for.
        threads: Threads of the reference; 0 = one per core.
        store: Where it is kept; ``None`` = the user's.
        say: Told why it is built, and how far it is.
        unqualified: Whether an engine that differs by more than its precision explains is returned all the same, for
            who measures its accuracy on ground truth and does nothing else with it; its manifest says so. One whose
            outputs are not finite is refused in any case.

    Raises:
        EngineError: It differs from the reference by more than its precision explains; the figures are in the text.
    """
    from saccade.engines.builder import plan_from_onnx
    from saccade.engines.identity import Platform
    from saccade.engines.store import EngineStore

    qualify = functools.partial(_qualification, path, options, device, threads, say)
    store = EngineStore() if store is None else store
    platform = Platform.here(device)
    build = functools.partial(plan_from_onnx, device=device)
    stored = store.plan_for(path, options, build=build, platform=platform, qualify=qualify, say=say)
    figures = stored.manifest["qualification"]
    if not figures["passed"] and not (unqualified and figures["non_finite"] == 0):
        raise EngineError(
            f"{path}: its {options.precision} engine may not be used: {qualification_text(figures)}. Use another "
            f"engine.precision, export the network so that it bears this one, or remove the engine to build it "
            f"again:  saccade engine remove {stored.key[:12]}"
        )
    return stored


def qualification_text(figures: Mapping[str, Any]) -> str:
    """Returns in words how far an engine is from its FP32 reference."""
    limits = figures["limits"]
    parts = [
        f"relative L2 of {name} {'undefined' if value is None else f'{value:.2g}'}"
        for name, value in figures["relative_l2"].items()
    ]
    parts[-1] += f" (limit {limits['relative_l2']:g})"
    if figures["label_agreement"] is not None:
        parts.append(f"label agreement {figures['label_agreement']:.4f} (limit {limits['label_agreement']:g})")
    parts.append(f"{figures['non_finite']} non-finite values")
    return f"{', '.join(parts)}, {figures['samples']} samples"


def wants_tensorrt(backend: str, device: str) -> bool:
    """Tells whether a back end means TensorRT for data on ``device``.

    Raises:
        DependencyError: It is asked for and cannot be had.
    """
    if backend == "onnxruntime" or (backend == "auto" and not device.startswith("cuda")):
        return False
    problem = _tensorrt_problem()
    if backend == "auto":
        return problem is None
    if problem is not None:
        raise DependencyError(
            f"engine.backend: tensorrt does not import here ({problem}): pip install tensorrt (the release that fits "
            f"your driver), or take 'auto' or 'onnxruntime'"
        )
    if not device.startswith("cuda"):
        raise DependencyError(
            f"engine.backend: tensorrt needs a CUDA device, this run is on {device!r}: --device cuda, or take 'auto' "
            f"or 'onnxruntime'"
        )
    return True


def _tensorrt_problem() -> str | None:
    try:
        import tensorrt  # noqa: F401
    except (ImportError, OSError) as error:
        return str(error)
    return None


def engine_made_ready(
    path: Path,
    config: EngineConfig,
    *,
    device: str = "cpu",
    shapes: Shapes | None = None,
    defaults: Shapes | None = None,
    say: Callable[[str], None] = quiet,
    unqualified: bool = False,
) -> Engine:
    """Makes sure that :func:`engine_from_onnx` with the same arguments opens an engine without building it.

    An engine that is in the store already is looked up there and not opened, which takes no time on the GPU.

    Returns:
        The network on ONNX Runtime and the CPU, whose tensors have the names and shapes of the engine's.

    Raises:
        ModelError: The file cannot be used.
        DependencyError: The engine is not installed.
        EngineError: The TensorRT engine cannot be built, differs too much from its FP32 reference, or is refused.
    """
    path = Path(path)
    if wants_tensorrt(config.backend, device):
        if path.suffix in PLAN_SUFFIXES:
            return _engine_from_plan(path, device=device, shapes=shapes, store=None)
        _stored_from_onnx(
            path,
            config,
            device=device,
            shapes=shapes,
            defaults=defaults,
            ranges=None,
            store=None,
            say=say,
            unqualified=unqualified,
        )
    return _onnxruntime()(path, threads=config.threads, shapes=shapes, defaults=defaults)


def _tensorrt_from_onnx(
    path: Path,
    config: EngineConfig,
    *,
    device: str,
    shapes: Shapes | None,
    defaults: Shapes | None,
    ranges: Mapping[str, ShapeRange] | None,
    store: EngineStore | None,
    say: Callable[[str], None],
    unqualified: bool,
) -> Engine:
    from saccade.engines.tensorrt import TensorRTEngine

    stored, wanted = _stored_from_onnx(
        path,
        config,
        device=device,
        shapes=shapes,
        defaults=defaults,
        ranges=ranges,
        store=store,
        say=say,
        unqualified=unqualified,
    )
    return TensorRTEngine(stored.data, name_of=path.name, device=device, shapes=wanted, facts=facts_of(stored))


def _stored_from_onnx(
    path: Path,
    config: EngineConfig,
    *,
    device: str,
    shapes: Shapes | None,
    defaults: Shapes | None,
    ranges: Mapping[str, ShapeRange] | None,
    store: EngineStore | None,
    say: Callable[[str], None],
    unqualified: bool,
) -> tuple[StoredPlan, Shapes]:
    """Returns the plan, built where it is not stored, and the shapes of the inputs that the file leaves open."""
    # ONNX Runtime says what is wrong with the file or the shapes, in the same words whichever engine runs it.
    reference = _onnxruntime()(path, threads=config.threads, shapes=shapes, defaults=defaults)
    resolved = {spec.name: spec.shape for spec in reference.inputs}
    reference.close()
    del reference
    is_open = [name for name, sizes in declared_inputs(path).items() if None in sizes]
    wanted = {name: resolved[name] for name in is_open}
    accepted = {name: (ranges or {}).get(name, ShapeRange.fixed(shape)) for name, shape in wanted.items()}
    options = options_from_config(config, ranges=accepted)
    stored = qualified_plan(
        path, options, device=device, threads=config.threads, store=store, say=say, unqualified=unqualified
    )
    return stored, wanted


def _engine_from_plan(path: Path, *, device: str, shapes: Shapes | None, store: EngineStore | None) -> Engine:
    from saccade.engines.store import EngineStore
    from saccade.engines.tensorrt import TensorRTEngine

    stored = (EngineStore() if store is None else store).trusted(path)
    return TensorRTEngine(stored.data, name_of=path.name, device=device, shapes=shapes, facts=facts_of(stored))


def facts_of(stored: StoredPlan) -> dict[str, Any]:
    """Returns what the record should say about a stored engine beside what the engine itself knows."""
    parts = stored.manifest["parts"]
    return {
        "precision": parts.get("options", {}).get("precision", "unknown"),
        "sha256": parts.get("onnx"),
        "key": stored.key,
        "plan_bytes": len(stored.data),
        "foreign": stored.manifest["foreign"],
        "build": stored.manifest["facts"],
        "qualification": stored.manifest["qualification"],
    }


def declared_inputs(path: Path) -> dict[str, tuple[int | None, ...]]:
    """Returns the shape of each input as the file has it; ``None`` = left open.

    Raises:
        ModelError: The file cannot be read.
        DependencyError: ONNX Runtime is not installed.
    """
    _onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{path}: ONNX Runtime cannot load this network: {str(error).strip()}") from error
    return {
        node.name: tuple(size if isinstance(size, int) else None for size in node.shape)
        for node in session.get_inputs()
    }


def _qualification(
    path: Path, options: BuildOptions, device: str, threads: int, say: Callable[[str], None], stored: StoredPlan
) -> dict[str, Any]:
    from saccade.engines.qualification import qualify
    from saccade.engines.tensorrt import TensorRTEngine

    say(f"{path.name}: comparing its {options.precision} engine with ONNX Runtime in FP32")
    candidate = TensorRTEngine(stored.data, name_of=path.name, device=device)
    try:
        shapes = {spec.name: spec.shape for spec in candidate.inputs}
        reference = _onnxruntime()(path, threads=threads, shapes=shapes)
        inputs = _samples(path, options, [spec.name for spec in candidate.inputs])
        try:
            return qualify(
                candidate, reference, samples=QUALIFICATION_SAMPLES, inputs=inputs, precision=options.precision
            )
        finally:
            reference.close()
    finally:
        candidate.close()


def _samples(path: Path, options: BuildOptions, names: list[str]) -> dict[str, np.ndarray] | None:
    """Inputs that the network is for: from all over the calibration set, or the samples beside the file.

    ``None`` where there are neither: pseudo-random inputs then have to do.
    """
    beside = path.with_name(f"{path.stem.removesuffix('_dynamic')}.samples.npz")
    source = options.calibration or (beside if beside.is_file() else None)
    if source is None:
        return None
    from saccade.precision.int8 import UNNAMED, calibration_arrays

    arrays = calibration_arrays(source)
    if set(arrays) == {UNNAMED} and len(names) == 1:
        arrays = {names[0]: arrays[UNNAMED]}
    chosen = {}
    for name in names:
        if name not in arrays:
            raise ModelError(f"{source}: no samples of input {name!r}; it has {', '.join(arrays)}")
        rows = np.unique(np.linspace(0, len(arrays[name]) - 1, QUALIFICATION_SAMPLES).astype(int))
        chosen[name] = arrays[name][rows].astype(np.float32, copy=False)
    return chosen


def _onnxruntime() -> Callable[..., Engine]:
    try:
        from saccade.engines.onnxruntime import OnnxRuntimeEngine
    except ImportError as error:
        raise DependencyError(f"ONNX Runtime is not installed ({error}): pip install onnxruntime") from error
    return OnnxRuntimeEngine
