"""What a run publishes: every topic with its content and stamp, nothing where nobody listens, all accounted for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("rosbags")

from tests.bridge.doubles import KeptTransport
from tests.scripted_simulator import ScriptedSimulator
from tests.test_loop import configuration, run

from saccade.bridge import contents, messages
from saccade.bridge.base import Endpoint
from saccade.bridge.bridge import Bridge
from saccade.bridge.publishing import RunPublisher
from saccade.bridge.qos import PRESETS
from saccade.frame import OBSTACLE, PERSON, SimState

INTRINSICS = {"eye": {"fx": 20.0, "fy": 20.0, "cx": 8.0, "cy": 8.0, "width": 16, "height": 16}}


class Published:
    """A loop that ran with the publisher as its observer, and what came out."""

    def __init__(self, folder, *, subscribers=1, others=(), frames=10, report=None, **ros2) -> None:
        config = configuration(frames=frames, warmup=0)
        config = config.model_copy(update={"ros2": config.ros2.model_copy(update=ros2)})
        self.transport = KeptTransport(subscribers=subscribers, others=others)
        self.bridge = Bridge(self.transport, config.ros2)
        self.simulator = ScriptedSimulator(config)
        report_robot = (lambda copy: report(self.simulator.state)) if report else None
        self.publisher = RunPublisher(self.bridge, config, intrinsics=INTRINSICS, report_robot=report_robot)
        _, self.records, _ = run(folder, config, self.simulator, observers=[self.publisher])
        assert self.bridge.flush(10)
        self.counters = self.bridge.counters()

    def read(self, topic):
        made = self.transport.publications[topic]
        return [messages.decode(data, made.type_name) for data in made.sent]


@pytest.fixture
def published(tmp_path):
    made = []

    def publish(**options) -> Published:
        made.append(Published(tmp_path, **options))
        return made[-1]

    yield publish
    for one in made:
        one.bridge.close()


def test_every_topic(published):
    """Ten decisions with a camera and a LiDAR give ten messages of each topic, stamped with simulation time."""
    one = published(policy="block")
    stamps = [message.header.stamp.nanosec for message in one.read("/odom")]
    assert stamps == [round(index * 1e8) for index in range(10)]
    for topic in (
        *("/eye/image_raw", "/eye/camera_info", "/laser/points", "/ai/camera/detections", "/ai/camera/labels", "/odom"),
    ):
        assert [message.header.stamp.nanosec for message in one.read(topic)] == stamps, topic
    assert [message.clock.nanosec for message in one.read("/clock")] == stamps
    for topic in ("/ai/camera/inference_result", "/ai/camera/inference_latency", "/ai/lidar/inference_latency"):
        assert len(one.read(topic)) == 10
        assert all(message.data > 0 for message in one.read(topic)), topic
    assert all(len(message.data) == 16 for message in one.read("/ai/lidar/clearance"))
    assert one.counters["/eye/image_raw"]["produced"] == one.counters["/eye/image_raw"]["delivered"] == 10


def test_image_and_cloud(published):
    """The image has the simulator's pixels as rgb8, the cloud NaN where nothing returned; frames follow REP-103."""
    one = published(frames=1, policy="block")
    (image,) = one.read("/eye/image_raw")
    assert (image.encoding, image.height, image.width, image.step) == ("rgb8", 16, 16, 48)
    assert np.array_equal(image.data.reshape(16, 16, 3), np.tile(np.array([255, 0, 0], np.uint8), (16, 16, 1)))
    assert image.header.frame_id == "eye_optical_frame"
    (cloud,) = one.read("/laser/points")
    assert (cloud.height, cloud.width, cloud.point_step, cloud.header.frame_id) == (4, 32, 16, "laser")
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "intensity"]
    values = cloud.data.view(np.float32).reshape(4, 32, 4)
    assert np.isnan(values[..., :3]).all()
    assert (values[..., 3] == 0.5).all()


def test_nobody_listens(published):
    """Without subscribers nothing but latched topics is produced, and no slot is allocated."""
    one = published(subscribers=0)
    produced = {name: counts["produced"] for name, counts in one.counters.items() if counts["produced"]}
    assert produced == {"/tf_static": 1}
    assert not one.publisher._copies._slots


def test_images_off(published):
    """With ``ros2.images`` off the large topics do not exist."""
    one = published(images=False)
    assert not {"/eye/image_raw", "/laser/points", "/ai/camera/labels"} & set(one.transport.publications)
    assert "/ai/camera/detections" in one.transport.publications


def test_left_to_others(published):
    """What another node publishes already, such as Isaac Sim's bridge, is left to it and said."""
    others = tuple(
        Endpoint(topic, "x/msg/Y", True, PRESETS["default"], "/isaac_sim") for topic in ("/clock", "/tf", "/tf_static")
    )
    one = published(others=others)
    assert not {"/clock", "/tf", "/tf_static"} & set(one.transport.publications)
    assert one.publisher.facts()["left_to_others"]["/clock"] == ["/isaac_sim"]


def test_slots_come_back(published):
    """However many images are dropped, every slot is free again at the end: none leaks, none is used twice."""
    one = published(frames=50, queue=1)
    for name, slots in one.publisher._copies._slots.items():
        assert slots.free.qsize() == 3, name
    counters = one.counters["/eye/image_raw"]
    assert counters["produced"] == 50 == counters["delivered"] + counters["dropped"]


def test_verdict_is_latched(published):
    """The verdict is sent although nobody listens yet, with a profile that keeps it for late joiners."""
    one = published(subscribers=0)
    one.publisher.verdict({"verdict": "fail", "reasons": ["latency"], "other": 1})
    assert one.bridge.flush(5)
    publication = one.transport.publications["/saccade/verdict"]
    assert publication.qos.transient_local
    (message,) = one.read("/saccade/verdict")
    assert json.loads(message.data) == {"verdict": "fail", "reasons": ["latency"]}


def test_diagnostics(published):
    """Diagnostics say how the loop and the bridge do, at most once a second."""
    one = published(policy="block")
    (message,) = one.read("/diagnostics")
    assert [status.name for status in message.status] == ["saccade: loop", "saccade: bridge"]
    values = {entry.key: entry.value for entry in message.status[0].values}
    assert float(values["latency_ms"]) > 0
    assert values["command"].startswith("reflex ")


def test_camera_info_centre():
    """ROS 2 counts from the first pixel's centre: the principal point lies half a pixel lower."""
    info = contents.camera_info(1.5, "eye_optical_frame", INTRINSICS["eye"])
    assert info.k.tolist() == [20, 0, 7.5, 0, 20, 7.5, 0, 0, 1]
    assert (info.header.stamp.sec, info.header.stamp.nanosec) == (1, 500_000_000)


def test_detections():
    """Each region of a thing's class is one box; floor, structure and specks are none."""
    labels = np.zeros((40, 60), np.uint8)
    labels[5:15, 10:20] = PERSON
    labels[20:40, 30:60] = OBSTACLE
    labels[0:2, 0:2] = PERSON
    found = contents.detections(0.0, "eye_optical_frame", labels).detections
    named = [(one.results[0].hypothesis.class_id, one.bbox.center.position.x, one.bbox.size_x) for one in found]
    assert named == [("obstacle", 45.0, 30.0), ("person", 15.0, 10.0)]


def test_depth_and_scan():
    """Nothing hit is NaN in depth and infinite in a scan, which runs counter-clockwise from straight ahead."""
    depth = contents.depth_image(0.0, "f", np.array([[0.0, 2.0]], np.float32))
    values = depth.data.view(np.float32)
    assert math.isnan(values[0]) and values[1] == 2.0
    ranges = np.array([[1.0, 0.0, 3.0, 4.0]], np.float32)
    scan = contents.laser_scan(0.0, "laser", ranges, np.ones((1, 4), np.float32), limits=(0.1, 30.0))
    assert scan.ranges.tolist() == [1.0, math.inf, 3.0, 4.0]
    assert (scan.angle_min, scan.angle_increment) == (0.0, math.pi / 2)


def test_odometry_and_transforms():
    """Odometry, the base's transform and the cameras' optical turn describe the state as REP-103 and 105 want."""
    state = SimState(sim_time=2.0, position=(1.0, 2.0, 0.9), yaw=math.pi / 2, velocity=(0.5, 0.1), yaw_rate=0.2)
    odometry = contents.odometry(state)
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
    assert odometry.pose.pose.orientation.z == pytest.approx(math.sqrt(0.5))
    assert (odometry.twist.twist.linear.x, odometry.twist.twist.angular.z) == (0.5, 0.2)
    (link,) = contents.transforms(2.0, contents.robot_links(state)).transforms
    assert (link.transform.translation.x, link.transform.translation.z) == (1.0, 0.9)
    (turn,) = contents.optical_transforms({"eye": "eye_optical_frame"}).transforms
    q = turn.transform.rotation
    # Its z axis, in the camera's frame, is forward: the rotation matrix's third column is (1, 0, 0).
    assert (2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x), 1 - 2 * (q.x**2 + q.y**2)) == (1, 0, 0)


def reported(state):
    """As a simulator would fill it: arrays that it uses again."""
    state.joint_names = ("hip", "knee")
    state.joint_positions = np.array([state.sim_time, 0.5], np.float32)
    state.joint_velocities = np.array([1.0, -state.sim_time], np.float32)
    state.sensor_poses["eye"] = (True, (0.1, 0.0, 0.6, 0.0, 0.0, 0.0, 1.0))
    state.sensor_poses["laser"] = (False, (3.0, 2.0, 1.0, 0.0, 0.0, 1.0, 0.0))


def test_joint_states(published):
    """Joints are published with the decision's time, names, positions and velocities."""
    one = published(policy="block", report=reported)
    found = one.read("/joint_states")
    assert [message.header.stamp.nanosec for message in found] == [round(index * 1e8) for index in range(10)]
    assert found[4].name == ["hip", "knee"]
    assert found[4].position.tolist() == pytest.approx([0.4, 0.5])
    assert found[4].velocity.tolist() == pytest.approx([1.0, -0.4])
    assert len(found[4].effort) == 0


def test_sensors_are_in_the_tree(published):
    """Every frame of a message hangs on the tree: the base's sensors on the base, others in the world."""
    one = published(policy="block", report=reported)
    parents = {t.child_frame_id: t.header.frame_id for message in one.read("/tf") for t in message.transforms}
    parents |= {t.child_frame_id: t.header.frame_id for message in one.read("/tf_static") for t in message.transforms}
    assert parents == {"base_link": "odom", "eye": "base_link", "laser": "odom", "eye_optical_frame": "eye"}
    (_, eye, laser) = one.read("/tf")[3].transforms
    assert (eye.transform.translation.z, laser.transform.rotation.z) == (0.6, 1.0)
    for topic in ("/eye/image_raw", "/laser/points", "/ai/camera/labels"):
        assert one.read(topic)[0].header.frame_id in parents


def test_nobody_asks_the_simulator(published):
    """Without a listener for joints or transforms the simulator is not asked; without joints there is no such topic."""
    asked = []
    published(subscribers=0, report=asked.append)
    assert asked == []
    assert "/joint_states" not in published().transport.publications


def test_published_stamp(published):
    """Handing a frame over is its ``published``, after the decision; a bag alone publishes nothing."""
    one = published(subscribers=0)
    assert all(record["stamps"]["published"] >= record["stamps"]["decided"] for record in one.records)
