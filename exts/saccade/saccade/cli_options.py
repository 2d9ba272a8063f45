"""Arguments and options that commands share, and what Ctrl-C means."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import Enum
from typing import Annotated, ParamSpec, TypeVar

import typer

from saccade.errors import SaccadeError

INTERRUPTED = 3

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


class Stopped(SaccadeError):
    """Ctrl-C where no run was going on that could end in a verdict."""

    exit_status = INTERRUPTED


def interruptible(command: Callable[Parameters, Value]) -> Callable[Parameters, Value]:
    """Gives Ctrl-C the status 3: 1, which Typer would give, means that a budget was missed."""

    @functools.wraps(command)
    def guarded(*arguments: Parameters.args, **options: Parameters.kwargs) -> Value:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise Stopped("stopped") from None

    return guarded


class Simulator(str, Enum):
    """Simulator back ends."""

    auto = "auto"
    newton = "newton"
    replay = "replay"
    isaac = "isaac"


class Layout(str, Enum):
    """Scenes that can be made."""

    all = "all"
    warehouse = "warehouse"
    corridor = "corridor"
    random = "random"


class Engine(str, Enum):
    """Inference engines."""

    auto = "auto"
    tensorrt = "tensorrt"
    onnxruntime = "onnxruntime"


class Device(str, Enum):
    """Where it runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Controller(str, Enum):
    """Who decides."""

    reflex = "reflex"
    stand = "stand"
    ros2 = "ros2"


class Network(str, Enum):
    """The networks that can be trained."""

    camera = "camera"
    lidar = "lidar"


class Architecture(str, Enum):
    """What a network can be built from."""

    separable = "separable"
    mobilenet = "mobilenet"
    efficientnet = "efficientnet"
    plain = "plain"


ConfigurationArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a shipped configuration.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Sets one field, such as `run.deadline_ms=50`; repeatable."),
]
FramesOption = Annotated[int | None, typer.Option("--frames", metavar="N", help="Judged decisions.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the run's folder.")]
SimulatorOption = Annotated[Simulator | None, typer.Option("--simulator", help="Where the frames come from.")]
EngineOption = Annotated[Engine | None, typer.Option("--engine", help="What runs the networks.")]
DeviceOption = Annotated[Device | None, typer.Option("--device", help="Where simulator and networks run.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of noise and of everything random.")]
Ros2Option = Annotated[bool, typer.Option("--ros2", help="Publishes the run over ROS 2 and takes commands in.")]
ControllerOption = Annotated[
    Controller | None, typer.Option("--controller", help="Who decides; `ros2` is one outside, and implies --ros2.")
]


def ros2_overrides(overrides: list[str] | None, *, ros2: bool, controller: Controller | None) -> list[str]:
    """Returns the fields that ``--ros2`` and ``--controller`` set, before those of ``--set``, which win."""
    found = []
    if ros2 or controller is Controller.ros2:
        found.append("ros2.enabled=true")
    if controller is not None:
        found.append(f"controller.kind={controller.value}")
    return [*found, *(overrides or ())]
