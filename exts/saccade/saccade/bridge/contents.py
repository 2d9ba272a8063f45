"""What the published messages contain, from host arrays and plain values; runs on the outbox's thread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saccade.bridge import names
from saccade.bridge.messages import new
from saccade.frame import BACKGROUND, CLASSES, FLOOR, STRUCTURE, SimState

WORLD_FRAME = "odom"
BASE_FRAME = "base_link"
DETECTED = tuple(index for index in range(len(CLASSES)) if index not in (FLOOR, STRUCTURE, BACKGROUND))
"""Classes whose connected regions count as things."""
SMALLEST_REGION = 12
"""Pixels below which a region is taken for noise."""
MOST_DETECTIONS = 100
OK, WARN, ERROR = 0, 1, 2
Link = tuple[str, str, tuple[float, float, float], Sequence[float]]
"""Parent and child frame, translation [m], rotation as quaternion x, y, z, w."""
FLOAT32 = 7
"""PointField's number for float32."""


def header(sim_time: float | Any, frame_id: str) -> Any:
    """Returns a header stamped with simulation time [s], or with a time message as it is."""
    return new("std_msgs/msg/Header", stamp=time_message(sim_time), frame_id=frame_id)


def time_message(seconds: float | Any) -> Any:
    """Returns a time [s] in whole seconds and nanoseconds; a time message stays as it is, exact."""
    if not isinstance(seconds, float | int):
        return seconds
    nanoseconds = round(seconds * 1e9)
    return new("builtin_interfaces/msg/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def color_image(sim_time: float, frame_id: str, color: np.ndarray) -> Any:
    """Returns an ``rgb8`` image of packed RGBA, shape ``(height, width)``, uint32."""
    height, width = color.shape
    channels = np.ascontiguousarray(color).view(np.uint8).reshape(height, width, 4)
    rgb = np.empty((height, width, 3), np.uint8)
    for channel in range(3):  # five times as fast as copying three of four bytes pixel by pixel
        rgb[:, :, channel] = channels[:, :, channel]
    return _image(sim_time, frame_id, rgb, "rgb8", width * 3)


def depth_image(sim_time: float, frame_id: str, depth: np.ndarray) -> Any:
    """Returns a ``32FC1`` image of depth [m], shape ``(height, width)``, float32; NaN where nothing was hit."""
    seen = np.where(depth > 0, depth, np.float32(np.nan))
    return _image(sim_time, frame_id, seen, "32FC1", depth.shape[1] * 4)


def label_image(sim_time: float, frame_id: str, labels: np.ndarray) -> Any:
    """Returns a ``mono8`` image of class indices, shape ``(height, width)``, uint8."""
    return _image(sim_time, frame_id, labels, "mono8", labels.shape[1])


def camera_info(sim_time: float, frame_id: str, intrinsics: Mapping[str, float]) -> Any:
    """Returns the calibration of a pinhole camera without distortion.

    Args:
        sim_time: [s]
        frame_id: Optical frame.
        intrinsics: fx, fy, cx, cy, width, height [px], the top left pixel's centre at (0.5, 0.5).
    """
    fx, fy = intrinsics["fx"], intrinsics["fy"]
    # ROS 2 has the top left pixel's centre at (0, 0).
    cx, cy = intrinsics["cx"] - 0.5, intrinsics["cy"] - 0.5
    return new(
        "sensor_msgs/msg/CameraInfo",
        header=header(sim_time, frame_id),
        height=int(intrinsics["height"]),
        width=int(intrinsics["width"]),
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], dtype=np.float64),
        r=np.eye(3).ravel(),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0], dtype=np.float64),
        binning_x=0,
        binning_y=0,
        roi=new("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def point_cloud(sim_time: float, frame_id: str, points: np.ndarray, intensity: np.ndarray) -> Any:
    """Returns an organised cloud with x, y, z [m] and intensity; NaN where nothing returned.

    Args:
        sim_time: [s]
        frame_id: The LiDAR's frame.
        points: Shape ``(channels, columns, 3)``, float32 [m]; the origin = no return.
        intensity: Shape ``(channels, columns)``, float32.
    """
    channels, columns = intensity.shape
    cloud = np.empty((channels, columns, 4), dtype=np.float32)
    cloud[..., :3] = np.where(np.any(points != 0, axis=-1, keepdims=True), points, np.float32(np.nan))
    cloud[..., 3] = intensity
    fields = [
        new("sensor_msgs/msg/PointField", name=name, offset=4 * index, datatype=FLOAT32, count=1)
        for index, name in enumerate(("x", "y", "z", "intensity"))
    ]
    return new(
        "sensor_msgs/msg/PointCloud2",
        header=header(sim_time, frame_id),
        height=channels,
        width=columns,
        fields=fields,
        is_bigendian=False,
        point_step=16,
        row_step=16 * columns,
        data=cloud.view(np.uint8).ravel(),
        is_dense=False,
    )


def laser_scan(
    sim_time: float, frame_id: str, ranges: np.ndarray, intensity: np.ndarray, *, limits: tuple[float, float]
) -> Any:
    """Returns the scan of a LiDAR with one channel, infinite where nothing returned.

    Args:
        sim_time: [s]
        frame_id: The LiDAR's frame.
        ranges: Shape ``(1, columns)`` [m], 0 = no return, column 0 straight ahead, counter-clockwise.
        intensity: Same shape.
        limits: Least and greatest range [m].
    """
    columns = ranges.shape[1]
    return new(
        "sensor_msgs/msg/LaserScan",
        header=header(sim_time, frame_id),
        angle_min=0.0,
        angle_max=2 * math.pi * (columns - 1) / columns,
        angle_increment=2 * math.pi / columns,
        time_increment=0.0,
        scan_time=0.0,
        range_min=limits[0],
        range_max=limits[1],
        ranges=np.where(ranges[0] > 0, ranges[0], np.float32(np.inf)),
        intensities=np.ascontiguousarray(intensity[0]),
    )


def detections(sim_time: float, frame_id: str, labels: np.ndarray) -> Any:
    """Returns a box around each connected region of a thing's class, the largest first.

    Args:
        sim_time: [s]
        frame_id: Optical frame.
        labels: Class index, shape ``(height, width)``, uint8; boxes are in its pixels.
    """
    boxes = [box for index in DETECTED for box in regions(labels == index, CLASSES[index])]
    boxes.sort(key=lambda box: -box[0])
    found = header(sim_time, frame_id)
    return new(
        "vision_msgs/msg/Detection2DArray",
        header=found,
        detections=[_detection(found, box) for box in boxes[:MOST_DETECTIONS]],
    )


def regions(mask: np.ndarray, name: str) -> list[tuple[int, str, float, float, float, float]]:
    """Returns size [px], name, centre u and v, width and height [px] of each region of ``mask``."""
    from scipy import ndimage

    numbered, count = ndimage.label(mask)
    if not count:
        return []
    sizes = np.bincount(numbered.ravel())
    found = []
    for number, place in enumerate(ndimage.find_objects(numbered), 1):
        size = int(sizes[number])
        if place is None or size < SMALLEST_REGION:
            continue
        rows, columns = place
        centre = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
        extent = (float(columns.stop - columns.start), float(rows.stop - rows.start))
        found.append((size, name, *centre, *extent))
    return found


def odometry(state: SimState) -> Any:
    """Returns pose in :data:`WORLD_FRAME` and velocity in :data:`BASE_FRAME`: exact, hence without covariance."""
    pose = new(
        "geometry_msgs/msg/PoseWithCovariance",
        pose=new(
            "geometry_msgs/msg/Pose", position=_xyz("Point", *state.position), orientation=_yaw_rotation(state.yaw)
        ),
        covariance=np.zeros(36),
    )
    twist = new(
        "geometry_msgs/msg/TwistWithCovariance",
        twist=new(
            "geometry_msgs/msg/Twist",
            linear=_xyz("Vector3", *state.velocity, 0.0),
            angular=_xyz("Vector3", 0.0, 0.0, state.yaw_rate),
        ),
        covariance=np.zeros(36),
    )
    return new(
        "nav_msgs/msg/Odometry",
        header=header(state.sim_time, WORLD_FRAME),
        child_frame_id=BASE_FRAME,
        pose=pose,
        twist=twist,
    )


def robot_links(state: SimState) -> list[Link]:
    """Returns the links from :data:`WORLD_FRAME` to :data:`BASE_FRAME`, and to the sensors where they are known.

    A sensor's parent is the base it rides on, however many links are between them, or the world.
    """
    half = state.yaw / 2
    links: list[Link] = [(WORLD_FRAME, BASE_FRAME, state.position, (0.0, 0.0, math.sin(half), math.cos(half)))]
    for sensor, (rides, (x, y, z, *turn)) in state.sensor_poses.items():
        links.append((BASE_FRAME if rides else WORLD_FRAME, names.token(sensor), (x, y, z), turn))
    return links


def joint_state(sim_time: float, joints: Sequence[str], positions: np.ndarray, velocities: np.ndarray) -> Any:
    """Returns joints' positions [rad or m] and velocities [1/s of it], each of shape ``(joints,)``; efforts unknown."""
    return new(
        "sensor_msgs/msg/JointState",
        header=header(sim_time, ""),
        name=list(joints),
        position=np.asarray(positions, np.float64),
        velocity=np.asarray(velocities, np.float64),
        effort=np.zeros(0),
    )


def optical_transforms(cameras: Mapping[str, str]) -> Any:
    """Returns the turn from each camera's frame (x forward, z up) to its optical one (z forward, y down).

    Args:
        cameras: Optical frame by the camera's frame.
    """
    turn = (-0.5, 0.5, -0.5, 0.5)
    return transforms(0.0, [(frame, optical, (0.0, 0.0, 0.0), turn) for frame, optical in cameras.items()])


def transforms(sim_time: float, links: Sequence[Link]) -> Any:
    """Returns the transforms of links."""
    made = [
        new(
            "geometry_msgs/msg/TransformStamped",
            header=header(sim_time, parent),
            child_frame_id=child,
            transform=new(
                "geometry_msgs/msg/Transform",
                translation=_xyz("Vector3", *translation),
                rotation=_quaternion(*rotation),
            ),
        )
        for parent, child, translation, rotation in links
    ]
    return new("tf2_msgs/msg/TFMessage", transforms=made)


def number(value: float) -> Any:
    """Returns a Float32."""
    return new("std_msgs/msg/Float32", data=float(value))


def numbers(values: Sequence[float]) -> Any:
    """Returns a Float32MultiArray of one dimension."""
    layout = new("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return new("std_msgs/msg/Float32MultiArray", layout=layout, data=np.array(values, dtype=np.float32))


def diagnostics(sim_time: float, statuses: Sequence[tuple[int, str, str, Mapping[str, Any]]]) -> Any:
    """Returns diagnostics given as level, name, message and values."""
    made = [
        new(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=level,
            name=name,
            message=text,
            hardware_id="saccade",
            values=[
                new(
                    "diagnostic_msgs/msg/KeyValue",
                    key=key,
                    value=f"{value:.6g}" if isinstance(value, float) else str(value),
                )
                for key, value in values.items()
            ],
        )
        for level, name, text, values in statuses
    ]
    return new("diagnostic_msgs/msg/DiagnosticArray", header=header(sim_time, ""), status=made)


def _image(sim_time: float, frame_id: str, pixels: np.ndarray, encoding: str, step: int) -> Any:
    return new(
        "sensor_msgs/msg/Image",
        header=header(sim_time, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=step,
        data=np.ascontiguousarray(pixels).view(np.uint8).ravel(),
    )


def _detection(found: Any, box: tuple[int, str, float, float, float, float]) -> Any:
    _, name, u, v, width, height = box
    centre = new("vision_msgs/msg/Pose2D", position=new("vision_msgs/msg/Point2D", x=u, y=v), theta=0.0)
    nowhere = new("geometry_msgs/msg/Pose", position=_xyz("Point", 0.0, 0.0, 0.0), orientation=_yaw_rotation(0.0))
    hypothesis = new(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        hypothesis=new("vision_msgs/msg/ObjectHypothesis", class_id=name, score=1.0),
        pose=new("geometry_msgs/msg/PoseWithCovariance", pose=nowhere, covariance=np.zeros(36)),
    )
    box_message = new("vision_msgs/msg/BoundingBox2D", center=centre, size_x=width, size_y=height)
    return new("vision_msgs/msg/Detection2D", header=found, results=[hypothesis], bbox=box_message, id="")


def _xyz(kind: str, x: float, y: float, z: float) -> Any:
    return new(f"geometry_msgs/msg/{kind}", x=float(x), y=float(y), z=float(z))


def _yaw_rotation(yaw: float) -> Any:
    return _quaternion(0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))


def _quaternion(x: float, y: float, z: float, w: float) -> Any:
    return new("geometry_msgs/msg/Quaternion", x=float(x), y=float(y), z=float(z), w=float(w))
