"""Which simulator a configuration means, on which device."""

from __future__ import annotations

from collections.abc import Callable

from saccade.config import RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.errors import ConfigurationError, DependencyError
from saccade.simulators.base import Simulator


def simulator_for(
    loaded: LoadedConfiguration,
    say: Callable[[str], None] | None = None,
    *,
    stepped: bool = False,
    attach: bool = False,
) -> Simulator:
    """Returns the configured simulator, not yet opened.

    Args:
        loaded: The configuration.
        say: Told what is being done.
        stepped: Whether Isaac Sim's own application makes the updates.
        attach: Whether the stage that it has open is used as it is.

    Raises:
        DependencyError: It is not installed.
        ConfigurationError: The configured device is not here.
    """
    config = loaded.config
    backend = config.simulator.backend
    device = device_for(config)
    if backend == "isaac":
        from saccade.simulators.isaac import IsaacSimulator
        from saccade.simulators.isaac_window import WindowIsaacSimulator

        return (WindowIsaacSimulator if stepped else IsaacSimulator)(config, device=device, progress=say, attach=attach)
    if backend == "replay":
        from saccade.bridge.bag_reader import is_bag
        from saccade.simulators.replay import ReplaySimulator

        recording = loaded.recording_path()
        if recording is None:
            raise ConfigurationError(
                "simulator.recording: no recording named; give a run folder that was recorded with "
                "--set record.sensors=true, or a ROS 2 bag:  --set simulator.recording=PATH"
            )
        if is_bag(recording):
            from saccade.simulators.replay_bag import BagReplaySimulator

            return BagReplaySimulator(config, recording, device, progress=say)
        return ReplaySimulator(config, recording, device)
    try:
        from saccade.simulators.newton import NewtonSimulator
    except ImportError as error:
        raise DependencyError(
            f"the embedded simulator is not installed ({error}): pip install 'saccade[sim]'"
        ) from error
    return NewtonSimulator(config, device=device, progress=say)


def device_for(config: RunConfig) -> str:
    """Returns the Warp device of the configured simulator.

    Raises:
        ConfigurationError: CUDA is configured and not here.
    """
    if config.simulator.backend != "isaac":
        from saccade.kernels.setup import prepare_warp

        # Before the first array: it says where compiled kernels are kept. Inside Isaac Sim Warp belongs to Kit.
        prepare_warp()
    import warp as wp

    if config.simulator.device == "cpu":
        return "cpu"
    if wp.is_cuda_available():
        return "cuda:0"
    if config.simulator.device == "cuda":
        raise ConfigurationError(
            "simulator.device: cuda, but Warp finds no CUDA device here: check the driver with nvidia-smi, "
            "or use --device cpu"
        )
    return "cpu"
