"""Bags: they hold what was published, for two independent readers, whole after Ctrl-C, in chunks after a kill."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rosbags")
pytest.importorskip("mcap")

from mcap.exceptions import EndOfFile
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader
from tests.bridge.doubles import KeptTransport
from tests.test_loop import configuration, run

from saccade.bridge import bag, contents, messages
from saccade.bridge.bag import BagRecorder, BagWriter, bag_policy
from saccade.bridge.bag_reader import BagReader
from saccade.bridge.bridge import Bridge
from saccade.bridge.publishing import RunPublisher
from saccade.errors import DependencyError, RecordError

INTRINSICS = {"eye": {"fx": 20.0, "fy": 20.0, "cx": 8.0, "cy": 8.0, "width": 16, "height": 16}}
STRING = "std_msgs/msg/String"
OCCASIONAL = {"/diagnostics"}
"""Topics whose number of messages goes by the wall clock."""


def recorded(folder, *, frames=10, record=None, **simulator):
    """Runs the loop with a bag as its observer and returns the recorder, closed."""
    config = configuration(frames=frames, warmup=0, **simulator)
    config = config.model_copy(update={"record": config.record.model_copy(update=record or {})})
    recorder = BagRecorder(folder, config, intrinsics=INTRINSICS)
    run(folder, config, observers=[recorder])
    recorder.flush()
    facts = recorder.facts()
    recorder.close()
    recorder.close()
    return facts


def by_mcap(path):
    """Messages by topic as (time, bytes), read by the format's own library."""
    found: dict = {}
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        for schema, channel, message in reader.iter_messages():
            assert (schema.encoding, channel.message_encoding) == ("ros2msg", "cdr")
            found.setdefault((channel.topic, schema.name), []).append((message.log_time, message.data))
    return found


def by_rosbags(folder):
    """The same, read as a rosbag2 folder by way of ``metadata.yaml``."""
    found: dict = {}
    with Reader(folder) as reader:
        for connection, time_ns, data in reader.messages():
            found.setdefault((connection.topic, connection.msgtype), []).append((time_ns, bytes(data)))
    return found


def test_everything_published_is_recorded(tmp_path):
    """Bag and bridge of one run hold the same bytes under the same topics and types, at simulation time."""
    config = configuration(frames=10, warmup=0)
    transport = KeptTransport()
    bridge = Bridge(transport, config.ros2.model_copy(update={"policy": "block"}))
    publisher = RunPublisher(bridge, config, intrinsics=INTRINSICS)
    recorder = BagRecorder(tmp_path, config, intrinsics=INTRINSICS)
    run(tmp_path, config, observers=[publisher, recorder])
    for one in (publisher, recorder):
        one.verdict({"verdict": "pass", "reasons": []})
    assert bridge.flush(10)
    recorder.close()
    found = by_mcap(tmp_path / "bag" / "bag.mcap")
    assert found == by_rosbags(tmp_path / "bag")
    kept = {(p.topic, p.type_name): p.sent for p in transport.publications.values() if p.sent}
    assert found.keys() == kept.keys()
    for (topic, kind), entries in found.items():
        if topic not in OCCASIONAL:
            assert [data for _, data in entries] == kept[topic, kind], topic
    stamps = [round(index * 1e8) for index in range(10)]
    assert [at for at, _ in found["/eye/image_raw", "sensor_msgs/msg/Image"]] == stamps
    assert [at for at, _ in found["/odom", "nav_msgs/msg/Odometry"]] == stamps
    bridge.close()


def test_schemas_hold_every_type(tmp_path):
    """Each schema is the full text of its type, from which a reader that knows no ROS message decodes."""
    from rosbags.highlevel import AnyReader

    recorded(tmp_path, frames=2)
    with AnyReader([tmp_path / "bag"]) as reader:  # takes its types from the bag, and compares their hashes
        decoded = [reader.deserialize(data, connection.msgtype) for connection, _, data in reader.messages()]
    assert len(decoded) > 20
    assert {message.__msgtype__ for message in decoded} >= {
        "vision_msgs/msg/Detection2DArray",
        "sensor_msgs/msg/PointCloud2",
        "tf2_msgs/msg/TFMessage",
    }


def test_profiles_are_kept(tmp_path):
    """``ros2 bag play`` offers what the bridge offers: latched topics stay latched."""
    recorded(tmp_path, frames=1)
    with Reader(tmp_path / "bag") as reader:
        profiles = {c.topic: c.ext.offered_qos_profiles[0] for c in reader.connections}
    assert profiles["/tf_static"].durability.name == "TRANSIENT_LOCAL"
    assert (profiles["/clock"].reliability.name, profiles["/odom"].reliability.name) == ("BEST_EFFORT", "RELIABLE")


def test_counters_add_up(tmp_path, monkeypatch):
    """With a slow disk and a short queue messages are lost, each is counted, and the rest is in the bag."""
    write = BagWriter.write

    def slow(self, topic, data, time_ns):
        if topic.name == "/eye/image_raw":
            time.sleep(0.02)
        write(self, topic, data, time_ns)

    monkeypatch.setattr(BagWriter, "write", slow)
    facts = recorded(tmp_path, frames=40, record={"bag_queue": 1, "bag_policy": "drop_oldest"})
    found = by_mcap(tmp_path / "bag" / "bag.mcap")
    for (topic, _), entries in found.items():
        counts = facts["topics"][topic]
        assert counts["produced"] == counts["delivered"] + counts["dropped"] + counts["in_flight"]
        assert counts["delivered"] == len(entries), topic
    assert facts["topics"]["/eye/image_raw"]["produced"] == 40
    assert facts["lost"] == sum(counts["dropped"] for counts in facts["topics"].values()) > 0
    assert facts["messages"] == sum(map(len, found.values()))
    assert facts["policy"] == "drop_oldest"


def test_lockstep_waits(tmp_path, monkeypatch):
    """By itself a run in lockstep loses nothing: the loop waits for the disk, and the wait is stated."""
    write = BagWriter.write

    def slow(self, *arguments):
        time.sleep(0.002)
        write(self, *arguments)

    monkeypatch.setattr(BagWriter, "write", slow)
    facts = recorded(tmp_path, frames=30, record={"bag_queue": 1})
    assert (facts["policy"], facts["lost"]) == ("block", 0)
    assert facts["waited_s"] > 0
    assert facts["topics"]["/eye/image_raw"]["delivered"] == 30


def test_policy_follows_the_pace():
    """In real time the loop must not wait, unless it is told to."""
    assert bag_policy(configuration()) == "block"
    real = configuration(pace="realtime")
    assert bag_policy(real) == "drop_oldest"
    told = real.model_copy(update={"record": real.record.model_copy(update={"bag_policy": "drop_newest"})})
    assert bag_policy(told) == "drop_newest"


class FullDisk(io.BytesIO):
    """Takes nothing any more."""

    def write(self, data):
        raise OSError(28, "No space left on device")


def test_full_disk(tmp_path):
    """The failure is said once and ends the recording; the loop is not held up, and the counters add up."""
    config = configuration(frames=10, warmup=0)
    recorder = BagRecorder(tmp_path, config, intrinsics=INTRINSICS)
    storage = recorder._writer._writer.storage
    storage.bio.close()
    storage.bio = FullDisk()
    run(tmp_path, config, observers=[recorder])
    recorder.flush()
    facts = recorder.facts()
    recorder.close()
    assert "the bag is incomplete" in facts["failure"]
    assert "the disk is full" in facts["failure"]
    for counts in facts["topics"].values():
        assert counts["produced"] == counts["delivered"] + counts["dropped"]


def test_folder_must_be_new(tmp_path):
    """A folder that cannot be made is an error that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write bag"):
        BagWriter(tmp_path / "file" / "bag")


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from saccade.bridge import bag, contents
from saccade.bridge.bridge import Bridge
from saccade.config import Ros2Config
bag.FLUSH_S = 0.05
writer = bag.BagWriter(Path(sys.argv[1]))
bridge = Bridge(None, Ros2Config(policy="block"), recording=writer.write)
topic = bridge.advertise("/number", "std_msgs/msg/Float32")
count = 0
while True:
    topic.publish(contents.number(count))
    bridge.flush(1)
    count += 1
    print(count, flush=True)
    time.sleep(0.01)
"""


def test_killed(tmp_path):
    """After SIGKILL every message is there that came before the last flush: far fewer than a chunk is lost."""
    root = str(bag.__file__).rsplit("/saccade/", 1)[0]
    script = [sys.executable, "-c", KILLED, str(tmp_path / "bag"), root]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 60:
                process.send_signal(signal.SIGKILL)
                break
    found = []
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        try:
            for record in StreamReader(file).records:
                if type(record).__name__ == "Message":
                    found.append(messages.decode(record.data, "std_msgs/msg/Float32").data)
        except EndOfFile:
            pass
    # 60 were written 10 ms apart, flushed every 50 ms; a busy machine delays both alike.
    assert found == list(range(len(found)))
    assert len(found) >= 30
    assert not (tmp_path / "bag" / "metadata.yaml").exists()


def test_interrupted(room_with_bag, tmp_path):
    """Ctrl-C ends the bag in order: index and metadata are written, and it holds as many images as it says."""
    from tests.end_to_end import Running

    room, _ = room_with_bag
    frames = tmp_path / "runs" / "cut" / "frames.jsonl"
    arguments = ("--set", "record.bag=true", "--frames", "100000", "--out", tmp_path / "runs", "--name", "cut")
    with Running("validate", room / "run.yaml", *arguments, cwd=room) as process:
        process.wait_for(lambda: frames.exists() and frames.read_bytes().count(b"\n") > 20)
        process.send(signal.SIGINT)
        status, _, _ = process.end()
    assert status == 3
    folder = tmp_path / "runs" / "cut"
    found = by_mcap(folder / "bag" / "bag.mcap")
    assert found == by_rosbags(folder / "bag")
    counts = json.loads((folder / "run.json").read_text())["bag"]["topics"]["/eye/image_raw"]
    assert counts["delivered"] == len(found["/eye/image_raw", "sensor_msgs/msg/Image"]) >= 10
    assert '"invalid"' in messages.decode(found["/saccade/verdict", STRING][0][1], STRING).data


def test_several_threads(tmp_path):
    """Writing, flushing and closing from different threads leaves a bag that can be read, with all that was taken."""
    writer = BagWriter(tmp_path / "bag")
    bridge = Bridge(None, configuration().ros2, recording=writer.write)
    topic = bridge.advertise("/number", "std_msgs/msg/Float32", capacity=1000)
    flushing = threading.Thread(target=lambda: [writer.flush() for _ in range(200)])
    flushing.start()
    for value in range(500):
        topic.publish(contents.number(value))
    flushing.join()
    bridge.close(timeout=10)
    writer.close()
    (entries,) = by_mcap(tmp_path / "bag" / "bag.mcap").values()
    assert [messages.decode(data, "std_msgs/msg/Float32").data for _, data in entries] == list(range(500))


def test_whole_run(room_with_bag):
    """``record.bag`` of a real run, without the bridge: counters in ``run.json`` are those of the bag."""
    from tests.end_to_end import frames_of

    _, summary = room_with_bag
    folder = Path(summary["directory"])
    facts = json.loads((folder / "run.json").read_text())["bag"]
    found = by_mcap(folder / "bag" / "bag.mcap")
    verdict = found.pop(("/saccade/verdict", STRING))
    assert {topic: len(entries) for (topic, _), entries in found.items()} == {
        topic: counts["delivered"] for topic, counts in facts["topics"].items()
    }
    assert facts["lost"] == 0 and facts["failure"] is None
    assert summary["verdict"] in messages.decode(verdict[0][1], STRING).data
    assert "ros2" not in summary
    assert all(frame["stamps"]["published"] is None for frame in frames_of(folder))
    joints = found["/joint_states", "sensor_msgs/msg/JointState"]
    assert len(joints) == len(found["/odom", "nav_msgs/msg/Odometry"])
    assert "left_knee" in messages.decode(joints[0][1], "sensor_msgs/msg/JointState").name


@pytest.fixture(scope="module")
def room_with_bag(tmp_path_factory):
    pytest.importorskip("newton")
    from tests.end_to_end import make_folder, run_here

    folder = make_folder(tmp_path_factory.mktemp("room"))
    summary = run_here(folder, tmp_path_factory.mktemp("runs"), "record.bag=true", frames=6)
    return folder, summary


def test_without_rosbags(tmp_path, monkeypatch):
    """Where rosbags is missing the error has the command that installs it, and no folder is left."""
    (tmp_path / "empty.mcap").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    for make in (BagWriter, BagReader):
        with pytest.raises(DependencyError, match=r"pip install 'saccade\[ros\]'"):
            make(tmp_path / "bag" if make is BagWriter else tmp_path / "empty.mcap")
    assert not (tmp_path / "bag").exists()
