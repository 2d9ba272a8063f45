"""The build of one TensorRT plan, in this process; ``python -m`` runs it as the child that the builder can end."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saccade.engines.constraints import int8_for_products, keep_in_float
from saccade.engines.networks import Prepared, network_from_onnx, prepared_from_onnx
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.engines.versions import Traits, traits_of
from saccade.errors import ConfigurationError, DependencyError, EngineError, ModelError, SaccadeError

Say = Callable[[str], None]

_OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|could not be allocated|failed_allocation|cudaerrormemory"
    r"|initialization failure with error: 2\b",
    re.IGNORECASE,
)
_CUDA_ERROR_OUT_OF_MEMORY = 2
_NO_KERNEL = re.compile(r"insufficient workspace|could not find any implementation|no implementation", re.IGNORECASE)


def main(folder: Path) -> int:
    """Builds what ``request.json`` in ``folder`` asks for and leaves ``plan`` and ``result.json`` there."""
    _die_with_parent()
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    channel = os.fdopen(request["channel"], "w", buffering=1, encoding="utf-8")

    def say(text: str) -> None:
        channel.write(" ".join(text.split()) + "\n")

    graph = folder / "graph.onnx"
    cache = request["timing_cache"]
    try:
        plan, facts = build(
            imported_tensorrt(),
            Path(request["onnx"]),
            options_from_json(request["options"]),
            graph=graph.read_bytes() if graph.exists() else None,
            timing_cache=Path(cache) if cache else None,
            say=say,
        )
        (folder / "plan").write_bytes(plan)
        result: dict[str, Any] = {"facts": facts}
    except SaccadeError as error:
        result = {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        result = {"error": "EngineError", "text": f"{request['onnx']}: the host ran out of memory while building"}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0


def build(
    trt: Any,
    path: Path,
    options: BuildOptions,
    *,
    graph: bytes | None = None,
    timing_cache: Path | None = None,
    say: Say,
    device: str = "cuda:0",
) -> tuple[bytes, dict[str, Any]]:
    """Returns a plan and the facts of its build.

    Args:
        trt: The module ``tensorrt``, any release from 8.5 on.
        path: ONNX file; errors name it, and weights beside it are found from it.
        options: What to build.
        graph: The network instead of what stands in ``path``.
        timing_cache: File that measured kernel times are read from and added to.
        say: Told of phases and of what was decided.
        device: Warp device on which calibration samples are put.

    Raises:
        ModelError: The network cannot be built; the text names operator and node.
        ConfigurationError: The options do not fit the network.
        DependencyError: No driver, or a package is missing.
        EngineError: TensorRT gave up, out of memory for one.
    """
    traits = traits_of(trt.__version__)
    started = time.monotonic()
    logger = _logger(trt)
    prepared = prepared_from_onnx(path, options, trt.__version__, graph=graph, say=say)
    builder = _builder(trt, logger, path)
    flags = 0
    if traits.explicit_batch:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    # The calibrator is for networks that leave the types to TensorRT.
    if traits.strongly_typed_flag and prepared.samples is None:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network, parser = network_from_onnx(trt, builder, path, prepared, flags=flags, logger=logger, traits=traits)
    config = builder.create_builder_config()
    calibrator = _configure(trt, traits, builder, network, config, path, options, prepared, device=device, say=say)
    cache, cache_facts = _load_timing_cache(config, timing_cache, say)
    monitor = _watch_phases(trt, traits, config, say)
    say("building")
    build_started = time.monotonic()
    serialized = builder.build_serialized_network(network, config)
    build_s = time.monotonic() - build_started
    if calibrator is not None and calibrator.failure is not None:
        raise EngineError(f"{path}: calibration failed: {calibrator.failure}") from calibrator.failure
    if serialized is None:
        raise _build_error(path, options, logger.errors)
    plan = bytes(serialized)
    _save_timing_cache(config, timing_cache, cache_facts, say)
    facts = {
        "tensorrt": trt.__version__,
        "build_s": round(build_s, 3),
        "prepare_s": round(build_started - started, 3),
        "route": prepared.route,
        "layers": network.num_layers,
        "flags": _flags_on(trt, config),
        "network_flags": _names(trt.NetworkDefinitionCreationFlag, flags),
        "tactic_sources": _names(trt.TacticSource, config.get_tactic_sources()),
        "timing_cache": cache_facts,
        "calibration_batches": calibrator.batches if calibrator is not None else None,
        "plan_bytes": len(plan),
        "warnings": logger.warnings[-20:],
    }
    # The parser owns the weights that the network points to, TensorRT calls the monitor and writes into the cache
    # without keeping them alive: they live until here.
    del parser, monitor, cache
    return plan, facts


def imported_tensorrt() -> Any:
    """Returns the module ``tensorrt``.

    Raises:
        DependencyError: It is not installed, or a library that it needs is missing.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"TensorRT cannot be used ({error}): pip install tensorrt  installs the newest; "
            "your driver may need an older one (docs.nvidia.com/deeplearning/tensorrt, support matrix)"
        ) from error
    return tensorrt


def options_to_json(options: BuildOptions) -> dict[str, Any]:
    """Returns ``options`` with what :meth:`BuildOptions.as_dict` leaves out, for :func:`options_from_json`."""
    place = options.calibration
    return {
        **options.as_dict(),
        "calibration": None if place is None else str(Path(place).absolute()),
        "time_limit": options.time_limit,
    }


def options_from_json(values: Mapping[str, Any]) -> BuildOptions:
    """Returns what :func:`options_to_json` wrote."""
    given = dict(values)
    given["shapes"] = {name: ShapeRange(*map(tuple, shapes)) for name, shapes in given["shapes"].items()}
    given["calibration"] = None if given["calibration"] is None else Path(given["calibration"])
    return BuildOptions(**given)


def missing_libraries(traits: Traits) -> list[str]:
    """Returns the tactic sources whose library is not there, or is there in name only, without its functions."""
    return [
        source
        for source, function, files in traits.external_libraries
        if not any(_exports(file, function) for file in files)
    ]


def _configure(
    trt: Any,
    traits: Traits,
    builder: Any,
    network: Any,
    config: Any,
    path: Path,
    options: BuildOptions,
    prepared: Prepared,
    *,
    device: str,
    say: Say,
) -> Any:
    """Sets every flag and limit; returns the calibrator, which TensorRT does not keep alive, or ``None``."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimization_level is not None:
        if traits.optimization_level:
            config.builder_optimization_level = options.optimization_level
        else:
            say(f"TensorRT {trt.__version__} has no optimization level: {options.optimization_level} is ignored")
    if absent := missing_libraries(traits):
        sources = config.get_tactic_sources()
        kept = sources
        for name in absent:
            kept &= ~(1 << int(getattr(trt.TacticSource, name)))
        if kept != sources:
            config.set_tactic_sources(kept)
            say(f"without tactics from {', '.join(absent)}: not installed")
    profile = _profile(builder, network, path, options)
    if profile is not None:
        config.add_optimization_profile(profile)
    if not traits.precision_flags or (traits.strongly_typed and prepared.samples is None):
        return None
    # What int8 leaves in float runs in half, also around the Q/DQ pairs of a float graph.
    if prepared.half or options.precision == "int8":
        config.set_flag(trt.BuilderFlag.FP16)
    if options.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    bound = keep_in_float(trt, network, prepared.float_nodes)
    if prepared.samples is None:
        if bound:
            config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        return None
    if int8_for_products(trt, network, fused=prepared.fused, bound=prepared.float_nodes) or bound:
        # Not obeyed at any price: a layer without a kernel in half would end the build.
        config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    from saccade.engines.calibration import calibrator_from_arrays

    shapes = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        given = options.shapes.get(tensor.name)
        shapes[tensor.name] = given.optimum if given is not None else tuple(tensor.shape)
    calibrator = calibrator_from_arrays(trt, prepared.samples, shapes, device=device)
    config.int8_calibrator = calibrator
    if profile is not None:
        config.set_calibration_profile(profile)
    return calibrator


def _profile(builder: Any, network: Any, path: Path, options: BuildOptions) -> Any:
    """Returns the optimisation profile for the open dimensions, ``None`` for a network without any."""
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    if unknown := set(options.shapes) - set(inputs):
        raise ConfigurationError(
            f"{path}: shapes for {', '.join(sorted(unknown))}, but the inputs are {', '.join(inputs)}"
        )
    profile = None
    for name, tensor in inputs.items():
        sizes = tuple(tensor.shape)
        given = options.shapes.get(name)
        if -1 not in sizes and given is None:
            continue
        text = "x".join("?" if size == -1 else str(size) for size in sizes)
        if given is None:
            example = "x".join("1" if size == -1 else str(size) for size in sizes)
            raise ConfigurationError(
                f"{path}: input {name!r} is {text}, its open sizes need a range: "
                f"--min {name}:{example} --opt {name}:{example} --max {name}:{example}"
            )
        for shape in (given.minimum, given.optimum, given.maximum):
            if len(shape) != len(sizes) or any(size not in (-1, want) for size, want in zip(sizes, shape, strict=True)):
                raise ConfigurationError(f"{path}: input {name!r} is {text}, the range {given} does not fit it")
        if -1 in sizes:
            profile = builder.create_optimization_profile() if profile is None else profile
            profile.set_shape(name, given.minimum, given.optimum, given.maximum)
    return profile


def _builder(trt: Any, logger: Any, path: Path) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError as error:  # what pybind11 makes of the null pointer that TensorRT returns without a GPU
        said = "; ".join(logger.errors) or str(error)
        # TensorRT 8.5 logs nothing when the GPU's memory does not even suffice for a context.
        if _OUT_OF_MEMORY.search(said) or _context_status() == _CUDA_ERROR_OUT_OF_MEMORY:
            raise _memory_error(path, said) from error
        raise DependencyError(
            f"TensorRT {trt.__version__} finds no usable GPU ({said}): run nvidia-smi, install the NVIDIA driver that "
            "this TensorRT needs, or use engine.backend: onnxruntime"
        ) from error


def _context_status() -> int | None:
    """Returns what the CUDA driver says to a context on the first GPU, 0 = it works; ``None`` = no driver, no GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    status = int(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    if status == 0:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return status


def _load_timing_cache(config: Any, path: Path | None, say: Say) -> tuple[Any, dict[str, Any]]:
    """Gives ``config`` the cached kernel times; a file of another GPU or version is started anew."""
    data = path.read_bytes() if path is not None and path.exists() else b""
    cache = config.create_timing_cache(data)
    used = cache is not None and config.set_timing_cache(cache, False)
    if not used:
        say(f"{path}: this timing cache is of another GPU or TensorRT: starting a new one")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    facts = {
        "file": None if path is None else str(path),
        "used": bool(used and data),
        "loaded_bytes": len(data) if used else 0,
        "saved_bytes": 0,
    }
    return cache, facts


def _save_timing_cache(config: Any, path: Path | None, facts: dict[str, Any], say: Say) -> None:
    if path is None:
        return
    from saccade.models.export import atomic_path

    data = bytes(config.get_timing_cache().serialize())
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        # The engine is worth more than the next build's speed.
        say(f"{path}: cannot write the timing cache: {error.strerror}")
        return
    facts["saved_bytes"] = len(data)


def _watch_phases(trt: Any, traits: Traits, config: Any, say: Say) -> Any:
    if not traits.progress_monitor:
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Says each phase as it starts."""

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            say(f"{phase_name} ({num_steps} steps)")

        def phase_finish(self, phase_name: str) -> None:
            """Nothing: the next phase's start says it."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def _logger(trt: Any) -> Any:
    severity = trt.ILogger.Severity

    class Collector(trt.ILogger):  # type: ignore[misc]
        """Keeps what TensorRT says: its errors end up in exceptions, its notes name operators without importer."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.notes: list[str] = []

        def log(self, severity_: Any, message: str) -> None:
            if severity_ in (severity.ERROR, severity.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity_ == severity.WARNING:
                self.warnings.append(message)
            elif "op: " in message:
                self.notes.append(message)

    return Collector()


def _build_error(path: Path, options: BuildOptions, errors: list[str]) -> SaccadeError:
    said = "; ".join(errors[-4:]) or "TensorRT gave no reason"
    if _OUT_OF_MEMORY.search(said):
        return _memory_error(path, said)
    if _NO_KERNEL.search(said):
        return EngineError(
            f"{path}: TensorRT found no kernel for a layer ({said}): allow a larger --workspace"
            + (f" than {options.workspace >> 20} MiB" if options.workspace is not None else "")
            + ", or try another --precision"
        )
    return ModelError(f"{path}: TensorRT cannot build a {options.precision} engine of this network: {said}")


def _memory_error(path: Path, said: str) -> EngineError:
    return EngineError(
        f"{path}: the GPU ran out of memory while its engine was built ({said}): free memory on the GPU (nvidia-smi "
        "shows who holds it), set a smaller --workspace, or a smaller --max shape"
    )


def _flags_on(trt: Any, config: Any) -> list[str]:
    flags = trt.BuilderFlag.__members__
    return sorted(name for name, flag in flags.items() if config.get_flag(flag))


def _names(kind: Any, bits: int) -> list[str]:
    return sorted(name for name, value in kind.__members__.items() if bits & (1 << int(value)))


def _exports(file: str, function: str) -> bool:
    try:
        return hasattr(ctypes.CDLL(file), function)
    except OSError:
        return False


def _die_with_parent() -> None:
    """Has Linux end this process when the one that waits for it is killed, so that no build runs on unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
