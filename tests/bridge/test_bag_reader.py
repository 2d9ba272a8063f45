"""Reading bags: both storages and every way of naming them; what cannot be read is said with the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rosbags")
pytest.importorskip("mcap")

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bridge.bags import colour, stamped, write_bag

from saccade.bridge import contents, messages
from saccade.bridge.bag_reader import BagReader, bag_path, is_bag
from saccade.errors import RecordError

IMAGE = "sensor_msgs/msg/Image"


def entries(count=5):
    for index in range(count):
        yield "/camera/image_raw", index * 0.1, stamped(colour(index), index * 0.1)
        yield "/number", index * 0.1 + 0.05, contents.number(index)


@pytest.mark.parametrize(
    ("storage", "compress"),
    [
        *[("mcap", None), ("mcap", "storage"), ("mcap", "message"), ("mcap", "file")],
        *[("sqlite3", None), ("sqlite3", "message"), ("sqlite3", "file")],
    ],
)
def test_storages(tmp_path, storage, compress):
    """Every message comes back in order, whatever the storage and its compression."""
    folder = write_bag(tmp_path / "bag", entries(), storage=storage, compress=compress)
    with BagReader(folder) as reader:
        assert reader.types == {"/camera/image_raw": IMAGE, "/number": "std_msgs/msg/Float32"}
        assert reader.counts == {"/camera/image_raw": 5, "/number": 5}
        reader.require("/camera/image_raw", IMAGE, remedy="")
        found = list(reader.messages(["/camera/image_raw", "/number"]))
        only = list(reader.messages(["/number"]))
    assert [message.time_ns for message in found] == [round(5e7 * index) for index in range(10)]
    assert [messages.decode(bytes(m.data), m.type_name).data for m in only] == list(range(5))


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", ".mcap"), ("sqlite3", ".db3")])
def test_names(tmp_path, storage, suffix):
    """A file, a folder with metadata, one without, and a run's folder all mean the same bag."""
    folder = write_bag(tmp_path / "run" / "bag", entries(), storage=storage)
    file = folder / f"bag{suffix}"
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / file.name).write_bytes(file.read_bytes())
    for path in (folder, file, bare, tmp_path / "run"):
        assert is_bag(path)
        with BagReader(path) as reader:
            assert len(list(reader.messages(["/number"]))) == 5, path


def test_what_is_no_bag(tmp_path):
    """What is not there, not a bag, several files, or a whole file that is compressed is said with what to give."""
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.mcap", "b.mcap"):
        (tmp_path / "two" / name).write_bytes(b"")
    (tmp_path / "bag.mcap.zstd").write_bytes(b"")
    for name, text in (
        ("nothing.mcap", "there is no such bag"),
        ("notes.txt", "expected a file that ends in .mcap or .db3"),
        ("empty", "neither metadata.yaml nor"),
        ("two", "ros2 bag reindex"),
        ("bag.mcap.zstd", "zstd -d bag.mcap.zstd"),
    ):
        with pytest.raises(RecordError, match=text):
            bag_path(tmp_path / name)


def test_topics_that_are_not_there(tmp_path):
    """A topic that is missing, of another type, or without messages: the text lists what the bag has."""
    given_ = [*entries(1), ("/silent", 0.0, (IMAGE, None))]
    with BagReader(write_bag(tmp_path / "bag", given_)) as reader:
        with pytest.raises(RecordError, match=r"no topic /x in this bag; of type .*Image it has: /camera/image_raw"):
            reader.require("/x", IMAGE, remedy="--topic")
        with pytest.raises(RecordError, match=r"it has: .*/number \(std_msgs/msg/Float32\)"):
            reader.require("/x", "sensor_msgs/msg/PointCloud2", remedy="--topic")
        with pytest.raises(RecordError, match="/number is of type std_msgs/msg/Float32, and sensor_msgs"):
            reader.require("/number", IMAGE, remedy="--topic")
        with pytest.raises(RecordError, match="/silent has no messages"):
            reader.require("/silent", IMAGE, remedy="--topic")


def test_unknown_type(tmp_path):
    """A bag with a type that nobody here knows is read all the same; only asking for that topic fails, by its name."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        odd = writer.add_connection("/odd", "their_msgs/msg/Odd", msgdef="int32 x", rihs01="RIHS01_00")
        image = writer.add_connection("/camera/image_raw", IMAGE, typestore=messages.store())
        writer.write(odd, 0, b"\0\1\0\0\0\0\0\0")
        writer.write(image, 1, bytes(messages.encode(colour(1))))
    with BagReader(tmp_path / "bag") as reader:
        assert len(list(reader.messages(["/camera/image_raw"]))) == 1
        with pytest.raises(RecordError, match="their_msgs/msg/Odd"):
            reader.require("/odd", IMAGE, remedy="--topic")


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.0, 0.999))
def test_truncated(tmp_path_factory, share):
    """An MCAP file that was cut off anywhere is an error that says so and names the tool that recovers it."""
    folder = tmp_path_factory.mktemp("cut")
    whole = write_bag(folder / "bag", entries(3)) / "bag.mcap"
    data = whole.read_bytes()
    cut = folder / "cut.mcap"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(RecordError, match=r"truncated.*mcap recover|no MCAP file"):
        BagReader(cut)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged(tmp_path_factory, data):
    """Bytes changed anywhere give messages or an error that names the file; never anything else, never for ever."""
    folder = tmp_path_factory.mktemp("damaged")
    whole = write_bag(folder / "bag", entries(3)) / "bag.mcap"
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(8, len(content) - 9))] = data.draw(st.integers(0, 255))
    damaged = folder / "damaged.mcap"
    damaged.write_bytes(content)
    try:
        with BagReader(damaged) as reader:
            assert sum(1 for _ in reader.messages(list(reader.types))) <= 6
    except RecordError as error:
        assert str(damaged) in str(error)


def test_damaged_database(tmp_path):
    """A database that is cut off, or none at all, is an error that names it."""
    file = write_bag(tmp_path / "bag", entries(40), storage="sqlite3") / "bag.db3"
    data = file.read_bytes()
    for content in (data[:100], data[: len(data) // 2], b"nothing like it"):
        file.write_bytes(content)
        with pytest.raises(RecordError, match="bag"), BagReader(file) as reader:
            list(reader.messages(list(reader.types)))


def test_unknown_compression(tmp_path):
    """A chunk that is compressed with what cannot be undone here: which one, and how to convert it."""
    file = write_bag(tmp_path / "bag", entries(), compress="storage") / "bag.mcap"
    file.write_bytes(file.read_bytes().replace(b"\4\0\0\0zstd", b"\4\0\0\0zpaq"))
    with pytest.raises(RecordError, match=r"zpaq.*only zstd and lz4"), BagReader(file) as reader:
        list(reader.messages(["/number"]))


def test_killed_recording_is_recovered(tmp_path):
    """What a killed recording left is truncated to this reader; its whole chunks are what ``mcap recover`` keeps."""
    from mcap.exceptions import EndOfFile
    from mcap.stream_reader import StreamReader

    script = (
        "import os, sys; from pathlib import Path\n"
        "from saccade.bridge.bag import BagWriter; from saccade.bridge.bridge import Bridge\n"
        "from saccade.bridge import contents; from saccade.config import Ros2Config\n"
        "writer = BagWriter(Path(sys.argv[1]))\n"
        "bridge = Bridge(None, Ros2Config(policy='block'), recording=writer.write)\n"
        "topic = bridge.advertise('/number', 'std_msgs/msg/Float32')\n"
        "[topic.publish(contents.number(i)) for i in range(20)]\n"
        "bridge.flush(5); writer.flush(); os.kill(os.getpid(), 9)\n"
    )
    root = str(Path(messages.__file__).parents[2])
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "bag")], env={"PYTHONPATH": root}, check=False)
    with pytest.raises(RecordError, match="truncated"):
        BagReader(tmp_path / "bag")
    found = 0
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file, pytest.raises(EndOfFile):
        for record in StreamReader(file).records:
            found += type(record).__name__ == "Message"
    assert found == 20
