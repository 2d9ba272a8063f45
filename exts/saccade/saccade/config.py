"""The typed configuration of a run; YAML, presets and ``--set`` all end here."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from saccade.config_section import Section
from saccade.config_tradeoff import AdaptiveConfig, TradeoffConfig
from saccade.frame import CLASSES

GaitRole = Literal[
    "left_hip_yaw", "left_hip_roll", "left_hip_pitch", "left_knee", "left_ankle_pitch", "left_ankle_roll",
    "left_shoulder_pitch", "left_elbow",
    "right_hip_yaw", "right_hip_roll", "right_hip_pitch", "right_knee", "right_ankle_pitch", "right_ankle_roll",
    "right_shoulder_pitch", "right_elbow",
]  # fmt: skip
"""Joints that the gait moves; hip_pitch, knee and ankle_pitch of both sides are required."""


class GaitJointConfig(Section):
    """One joint that the gait moves."""

    joint: str
    """Its path, or its name."""
    sign: Literal[-1, 1] | None = None
    """Direction in which it turns; ``None`` = as its axis says at the zero pose."""
    offset: float = Field(0.0, ge=-3.2, le=3.2)
    """Its angle where the gait asks for 0 [rad]."""
    scale: float = Field(1.0, ge=0, le=4)
    """Its angle for every radian that the gait asks for."""


class GaitConfig(Section):
    """The walking gait that the humanoid's drives follow."""

    enabled: bool | None = None
    """``None`` walks where the scene names the gait's joints, else glides; ``True`` insists; ``False`` glides."""
    step_length: float = Field(0.55, gt=0, le=1.5)
    """Length of one step at 1 m/s [m]."""
    swing_height: float = Field(0.08, ge=0, le=0.5)
    """Foot clearance in mid-swing [m]."""
    arm_swing: float = Field(0.35, ge=0, le=1.5)
    """Shoulder amplitude at 1 m/s [rad]."""
    joints: Literal["unitree_g1", "unitree_h1"] | dict[GaitRole, str | GaitJointConfig] | None = None
    """Joints by role, such as ``{left_knee: LKnee}``, or the robot whose names they have; ``None`` = as the scene names
    them. What is named here takes the place of what the scene names; joints without a role hold their targets."""


class HumanoidConfig(Section):
    """The robot in the scene."""

    prim: str | None = None
    """Root prim of the humanoid; ``None`` takes the only articulation root of the scene."""
    max_speed: float = Field(1.2, gt=0, le=5)
    """Planar speed to which commands are clamped [m/s]."""
    max_yaw_rate: float = Field(1.2, gt=0, le=6)
    """Turn rate to which commands are clamped [rad/s]."""
    max_acceleration: float = Field(1.5, gt=0, le=50)
    """Planar acceleration of the base [m/s^2]: braking takes its time."""
    max_yaw_acceleration: float = Field(4.0, gt=0, le=100)
    """[rad/s^2]"""
    gait: GaitConfig = GaitConfig()


class SimulatorConfig(Section):
    """Where the frames come from and how time passes."""

    backend: Literal["auto", "newton", "replay", "isaac"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    step: float = Field(0.02, gt=0, le=0.5)
    """Simulated time of one loop step [s]; sensors are sensed on step boundaries."""
    substeps: int = Field(4, ge=1, le=100)
    """Physics steps per loop step."""
    pace: Literal["lockstep", "realtime"] = "lockstep"
    """``lockstep``: the simulator waits for the loop. ``realtime``: it does not, and frames may be dropped."""
    act_delay: Literal["none", "measured"] | float = "none"
    """Simulated time between a state and the effect of its decision: none, as measured, or fixed [ms]."""
    humanoid: HumanoidConfig = HumanoidConfig()
    labels: dict[str, str] = {}
    """Further semantic labels of the scene and the class that each counts as, such as ``{rack: structure}``."""
    recording: str | None = None
    """What to replay (``backend: replay``): a run folder recorded with ``record.sensors: true``, or a ROS 2 bag."""
    graph: Literal["auto", "off"] = "auto"
    """``auto`` captures a step of the embedded simulator's physics on CUDA as one graph; ``off`` runs it eagerly."""
    require_device: bool = False
    """Refuse sensor streams that are not on the configured device, instead of a declared, counted copy."""

    @field_validator("act_delay")
    @classmethod
    def _delay_not_negative(cls, value: str | float) -> str | float:
        if isinstance(value, float) and not 0 <= value <= 10_000:
            raise ValueError("a delay lies between 0 and 10000 ms")
        return value

    @field_validator("labels")
    @classmethod
    def _known_classes(cls, value: dict[str, str]) -> dict[str, str]:
        for label, name in value.items():
            if name not in CLASSES:
                raise ValueError(f"label {label!r} counts as {name!r}, which is none of {', '.join(CLASSES)}")
        return value


class MountConfig(Section):
    """A sensor's place where the scene has no prim for it."""

    link: str
    """Prim that carries the sensor: a path, or a name below the humanoid's root."""
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """In the link's frame [m]."""
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Roll, pitch, yaw [degrees]; all zero looks along the link's +x with +z up, positive pitch looks down."""


class CameraNoise(Section):
    """Image noise in units of 8-bit counts; all zero = none."""

    shot: float = Field(0.0, ge=0, le=10)
    """Standard deviation at full scale that grows with the square root of the signal."""
    read: float = Field(0.0, ge=0, le=50)
    """Standard deviation that is always there."""
    exposure: float = Field(1.0, gt=0, le=10)
    """Factor on the signal before noise and clipping."""


class LidarNoise(Section):
    """Range noise and dropout; all zero = none."""

    range_std: float = Field(0.0, ge=0, le=1)
    """Standard deviation of a range [m]."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the returns that are lost."""


class SensorSection(Section):
    """What every sensor has."""

    prim: str | None = None
    """Camera or mount prim: a path, or a name below the humanoid's root."""
    mount: MountConfig | None = None
    rate: float = Field(10.0, gt=0, le=1000)
    """Samples per second of simulation time [Hz]; at most 1 / ``simulator.step``."""

    @model_validator(mode="after")
    def _placed(self) -> SensorSection:
        if self.prim is None and self.mount is None:
            raise ValueError("a sensor needs 'prim' (a prim of the scene) or 'mount' (a link and a pose)")
        return self


class CameraConfig(SensorSection):
    """A pinhole camera."""

    kind: Literal["camera"]
    width: int = Field(224, ge=8, le=8192)
    height: int = Field(224, ge=8, le=8192)
    horizontal_fov: float | None = Field(None, gt=1, lt=179)
    """[degrees]; ``None`` takes the intrinsics from the camera prim (square pixels)."""
    focal: tuple[float, float] | None = None
    """fx, fy [px]; takes precedence over ``horizontal_fov``."""
    principal: tuple[float, float] | None = None
    """cx, cy [px]; ``None`` = the image centre, or the prim's aperture offsets."""
    max_distance: float = Field(100.0, gt=0, le=10_000)
    """[m]"""
    outputs: list[Literal["color", "depth", "labels", "normals"]] = ["color", "depth", "labels"]
    noise: CameraNoise = CameraNoise()


class LidarConfig(SensorSection):
    """A spinning LiDAR: all channels at all azimuths in one instant."""

    kind: Literal["lidar"]
    channels: int = Field(32, ge=1, le=256)
    columns: int = Field(1024, ge=16, le=8192)
    vertical_fov: tuple[float, float] = (-45.0, 15.0)
    """Lowest and highest channel [degrees]."""
    range_min: float = Field(0.15, ge=0)
    range_max: float = Field(30.0, gt=0)
    """[m]"""
    own_body_mask: bool = True
    """Returns from the humanoid itself count as none."""
    outputs: list[Literal["ranges", "intensity", "points", "labels"]] = ["ranges", "intensity", "points", "labels"]
    noise: LidarNoise = LidarNoise()

    @model_validator(mode="after")
    def _ordered(self) -> LidarConfig:
        if self.vertical_fov[0] > self.vertical_fov[1] or (self.channels > 1 and math.isclose(*self.vertical_fov)):
            raise ValueError("vertical_fov is [lowest, highest] in degrees")
        if self.range_min >= self.range_max:
            raise ValueError("range_min must be below range_max")
        return self


SensorConfig = Annotated[CameraConfig | LidarConfig, Field(discriminator="kind")]


class ImageInput(Section):
    """How camera frames become a network input of shape ``(cameras, 3, height, width)``."""

    kind: Literal["image"]
    sensor: str | list[str]
    """Camera that feeds the input; several of one rate and size make a batch, in their order."""
    size: tuple[int, int] | None = None
    """Width, height [px]; ``None`` takes the network's own."""
    resize: Literal["stretch", "letterbox"] = "stretch"
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from the channels scaled to 0..1, in the network's channel order."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divides what remains."""
    fill: float = Field(0.447, ge=0, le=1)
    """Value of letterbox borders before mean and std, 0..1."""

    @field_validator("sensor")
    @classmethod
    def _distinct(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError("a batch needs at least one camera, and each only once")
        return value

    @property
    def sensors(self) -> tuple[str, ...]:
        """The cameras of the batch, in its order."""
        return (self.sensor,) if isinstance(self.sensor, str) else tuple(self.sensor)


class RangeImageInput(Section):
    """How a LiDAR frame becomes a network input of shape ``(1, 2, channels, columns)``: range and intensity."""

    kind: Literal["range_image"]
    sensor: str
    range_scale: float = Field(1 / 30.0, gt=0)
    """Multiplies ranges [1/m]; no return = 0."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """The one LiDAR that feeds the input."""
        return (self.sensor,)


InputConfig = Annotated[ImageInput | RangeImageInput, Field(discriminator="kind")]


class DecoderConfig(Section):
    """What the outputs of a network mean; an output that is not named is not decoded."""

    labels: str | None = None
    """Output with label logits, shape ``(1, classes, height, width)``."""
    hazard: str | None = None
    """Output with one hazard value."""
    clearance: str | None = None
    """Output with 16 sector clearances [m]."""
    hazard_activation: Literal["sigmoid", "none"] = "none"
    """``sigmoid`` where the network gives a logit."""
    hazard_threshold: float = Field(0.5, gt=0, lt=1)
    classes: list[str] = list(CLASSES)
    """The classes of the label logits in order; names outside saccade's six count as nothing and are not scored."""


class NetworkConfig(Section):
    """One network."""

    model: str
    """ONNX file: relative to the configuration file, the working folder or the shipped models."""
    inputs: dict[str, InputConfig]
    """By the name of the ONNX input."""
    decoder: DecoderConfig = DecoderConfig()

    @field_validator("inputs")
    @classmethod
    def _some_input(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("a network needs at least one input")
        return value


class EngineConfig(Section):
    """What runs the networks."""

    backend: Literal["auto", "onnxruntime", "tensorrt"] = "auto"
    threads: int = Field(0, ge=0, le=256)
    """Threads of the CPU engine; 0 = all cores."""
    precision: Literal["fp32", "fp16", "int8"] = "fp16"
    """Arithmetic of TensorRT; ONNX Runtime takes the network as it is."""
    sparse: bool = False
    """Lets TensorRT use 2:4 structured sparsity where the weights have it."""
    workspace_mib: int | None = Field(None, ge=1, le=1_048_576)
    """Memory that TensorRT may use while it builds an engine [MiB]; ``None`` = its own limit."""
    calibration: str | None = None
    """Calibration samples for ``int8``: a .npz file, or a folder of .npy files for a network with one input."""
    build_limit_s: float = Field(1800.0, gt=0, le=86_400)
    """Time after which the build of an engine is given up [s]."""
    graph: Literal["auto", "line", "off"] = "auto"
    """``auto`` captures the frame as one CUDA graph where the device can, with cameras, LiDARs and their networks side
    by side; ``line`` puts them one after another; ``off`` runs the frame eagerly."""
    adaptive: AdaptiveConfig | None = None
    """Chooses between engines of several precisions from frame to frame; ``None`` = one engine per network."""


class ControllerConfig(Section):
    """Who decides: by default the built-in reflex, which slows, stops and steers by hazard and clearance."""

    kind: Literal["reflex", "stand", "ros2"] = "reflex"
    """``ros2``: a controller outside, over ROS 2 (needs ``ros2.enabled``)."""
    cruise_speed: float = Field(0.7, ge=0, le=3)
    """[m/s]"""
    stop_clearance: float = Field(0.7, ge=0, le=5)
    """Clearance ahead below which it stands and turns [m]."""
    slow_clearance: float = Field(2.0, ge=0, le=20)
    """Clearance ahead below which it slows down [m]."""
    give_way_clearance: float = Field(0.5, ge=0, le=5)
    """Clearance in any direction below which it moves away from what is there, such as a person who walks into it
    from the side [m]; 0 = never."""
    follow_route: bool = True
    """Steers to the waypoints that the scene names, where it names some; its own position is taken as known."""
    max_result_age: float = Field(0.5, gt=0, le=10)
    """A result older than this in simulation time [s] counts as absent, and the humanoid stops."""


class Ros2Config(Section):
    """The ROS 2 bridge: what it is called, where it can be heard and what it sends."""

    enabled: bool = False
    """Publishes the run and takes commands in."""
    transport: Literal["auto", "rclpy", "dds"] = "auto"
    """``auto``: rclpy where this Python imports it, else DDS without a ROS 2 installation."""
    domain: int | None = Field(None, ge=0, le=232)
    """``None`` = ``ROS_DOMAIN_ID``, else 0."""
    node: str = "saccade"
    namespace: str = "/"
    remap: dict[str, str] = {}
    """Topics by the name that replaces them, such as ``{/camera/image_raw: /robot/head/image}``."""
    network: str = Field("loopback", min_length=1)
    """``loopback``: this machine only. ``any`` or an interface's name: every machine of that network can read the
    sensors and send commands. With rclpy, or with ``CYCLONEDDS_URI`` set, the environment decides instead."""
    fragment_size: int = Field(60_000, ge=1024, le=65_000)
    """Bytes per fragment of a large message; on a lossy network rather 1344."""
    graph: bool = True
    """Announces the node, so that ``ros2 node list`` knows it."""
    distribution: Literal["auto", "humble", "iron", "jazzy", "kilted"] = "auto"
    """ROS 2 distribution of the other nodes; ``auto`` = ``ROS_DISTRO``, else Jazzy. Used by DDS only."""
    qos: dict[str, Literal["default", "reliable_sensor", "sensor", "latched", "clock"]] = {}
    """Other profiles than documented, by topic."""
    queue: int = Field(3, ge=1, le=1000)
    """Messages per topic that may wait to be sent."""
    policy: Literal["drop_oldest", "drop_newest", "block"] = "drop_oldest"
    """What gives way when they do; ``block`` makes the loop wait."""
    images: bool = True
    """Publishes cameras' images, depth and labels, and LiDARs' points: the large messages."""
    command_timeout: float = Field(0.5, gt=0, le=60)
    """Wall time without a command [s] after which an external controller's humanoid stops."""
    controller_wait: float = Field(30.0, gt=0, le=3600)
    """How long a run waits for an external controller's first command [s] before it ends as INVALID."""


class RunSection(Section):
    """How long the run is and what it may take."""

    name: str | None = None
    """Folder name below ``runs/``; ``None`` = configuration name and time."""
    frames: int = Field(400, ge=1, le=10_000_000)
    """Judged decisions: sets of frames that were due together."""
    warmup: int = Field(15, ge=0, le=10_000)
    """Decisions before the judged ones, recorded and marked."""
    seed: int = Field(0, ge=0, lt=2**31)
    deadline_ms: float = Field(100.0, gt=0)
    """Latency from a state to its decision above which a frame counts as a miss [ms]."""
    max_time: float | None = Field(None, gt=0)
    """Wall time after which the run ends as INVALID [s]."""


class RecordConfig(Section):
    """What is kept of the run."""

    sensors: bool = False
    """Saves every sensor frame, so that the run can be replayed."""
    samples: int = Field(6, ge=0, le=64)
    """Frames kept as pictures for the report."""
    flush_ms: float = Field(100.0, gt=0, le=100)
    """Period after which records are on disk [ms]."""
    bag: bool = False
    """Writes what the ROS 2 bridge publishes to ``bag/`` (MCAP), with or without ``ros2.enabled``."""
    bag_queue: int = Field(8, ge=1, le=1000)
    """Messages per topic that may wait for the disk."""
    bag_policy: Literal["auto", "block", "drop_oldest", "drop_newest"] = "auto"
    """What gives way when they do: ``auto`` = the loop waits in lockstep, and in real time the oldest is lost."""


class Budgets(Section):
    """Limits that decide the verdict; ``null`` = not judged."""

    latency_p95_ms: float | None = Field(None, gt=0)
    latency_p99_ms: float | None = Field(None, gt=0)
    """Judged from 400 judged decisions."""
    inference_p95_ms: float | None = Field(None, gt=0)
    deadline_miss_rate: float | None = Field(None, ge=0, le=1)
    dropped: int | None = Field(None, ge=0)
    stale: int | None = Field(None, ge=0)
    """Frames seen twice or out of order."""
    realtime_factor: float | None = Field(None, gt=0)
    """At least."""
    camera_miou: float | None = Field(None, ge=0, le=1)
    lidar_miou: float | None = Field(None, ge=0, le=1)
    hazard_recall: float | None = Field(None, ge=0, le=1)
    hazard_auroc: float | None = Field(None, ge=0, le=1)
    clearance_error_m: float | None = Field(None, ge=0)
    """At most, median absolute error [m]."""
    contacts: int | None = Field(None, ge=0)
    distance_m: float | None = Field(None, ge=0)
    """At least, walked while judged [m]."""
    recaptures: int | None = Field(None, ge=0)
    """CUDA graphs captured again because a source's buffers had moved, each of which costs a frame its deadline."""


class RunConfig(Section):
    """A whole run."""

    description: str = ""
    scene: str
    """USD file: relative to the configuration file, the working folder or the shipped scenes."""
    simulator: SimulatorConfig = SimulatorConfig()
    sensors: dict[str, SensorConfig]
    networks: dict[str, NetworkConfig] = {}
    engine: EngineConfig = EngineConfig()
    controller: ControllerConfig = ControllerConfig()
    ros2: Ros2Config = Ros2Config()
    run: RunSection = RunSection()
    record: RecordConfig = RecordConfig()
    budgets: Budgets = Budgets()
    tradeoff: TradeoffConfig = TradeoffConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.controller.kind == "ros2" and not self.ros2.enabled:
            raise ValueError("controller.kind: ros2 needs the bridge: set ros2.enabled: true (--ros2)")
        if not self.sensors:
            raise ValueError("sensors: at least one camera or LiDAR is needed")
        for name, sensor in self.sensors.items():
            if sensor.rate * self.simulator.step > 1 + 1e-9:
                raise ValueError(
                    f"sensors.{name}.rate: {sensor.rate:g} Hz is faster than one sample per simulator.step "
                    f"({self.simulator.step:g} s): lower the rate to {1 / self.simulator.step:g} or the step to "
                    f"{1 / sensor.rate:g}"
                )
        for name, network in self.networks.items():
            for tensor, source in network.inputs.items():
                self._check_feeding(f"networks.{name}.inputs.{tensor}", source)
        return self

    def _check_feeding(self, where: str, source: InputConfig) -> None:
        feeding = []
        for sensor in source.sensors:
            if sensor not in self.sensors:
                known = ", ".join(self.sensors)
                raise ValueError(f"{where}.sensor: no sensor {sensor!r}; configured are: {known}")
            feeding.append(self.sensors[sensor])
            wanted = "camera" if source.kind == "image" else "lidar"
            if feeding[-1].kind != wanted:
                raise ValueError(f"{where}: kind {source.kind!r} needs a {wanted}, {sensor!r} is a {feeding[-1].kind}")
        cameras = [sensor for sensor in feeding if isinstance(sensor, CameraConfig)]
        if len({(camera.rate, camera.width, camera.height) for camera in cameras}) > 1:
            listed = ", ".join(
                f"{name} {camera.width}x{camera.height} at {camera.rate:g} Hz"
                for name, camera in zip(source.sensors, cameras, strict=True)
            )
            raise ValueError(f"{where}.sensor: cameras of one batch have one rate and one size, these have: {listed}")
