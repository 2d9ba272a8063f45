"""Peers that are neither Python nor ROS 2: C++ on Fast DDS and C on Cyclone DDS read our images, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from tests.interop.conftest import TRANSPORT, TUNED_FAST_DDS, listened
from tests.ros_messages import sample

NATIVE = Path(__file__).with_name("native")
IMAGE = "sensor_msgs/msg/Image"
COUNT = 5
"""Images that a listener takes before it ends."""

BUILDS = {
    "fastdds": (
        ("fastddsgen", "g++"),
        "fastddsgen libfastrtps-dev libfastcdr-dev g++",
        [
            "mkdir gen",
            "fastddsgen -replace -d gen Image.idl",
            "g++ -std=c++14 -O1 -I gen fastdds.cpp gen/Image.cxx gen/ImagePubSubTypes.cxx -lfastrtps -lfastcdr -o peer",
        ],
    ),
    "cyclonedds": (
        ("idlc", "gcc"),
        "cyclonedds-tools cyclonedds-dev gcc",
        ["idlc -l c Image.idl", "gcc -O1 cyclonedds.c Image.c -lddsc -o peer"],
    ),
}
"""Tools, Debian's packages of them, and how the peer is built."""
ON_LOOPBACK = {
    "FASTRTPS_DEFAULT_PROFILES_FILE": TUNED_FAST_DDS["FASTRTPS_DEFAULT_PROFILES_FILE"],
    "CYCLONEDDS_URI": (
        "<CycloneDDS><Domain><General><Interfaces><NetworkInterface address='127.0.0.1'/></Interfaces>"
        "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
        "<Peers><Peer address='127.0.0.1'/></Peers></Discovery></Domain></CycloneDDS>"
    ),
}
"""As every node must keep to it that is to find ours."""


@pytest.fixture(scope="module", params=BUILDS)
def program(request, tmp_path_factory) -> Path:
    """The peer, compiled here; skipped where its tools or headers are missing."""
    if TRANSPORT != "dds":
        pytest.skip("these peers are for our own transport: rclpy's middlewares are others' to prove")
    pytest.importorskip("cyclonedds")
    tools, packages, steps = BUILDS[request.param]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not here: apt-get install {packages}")
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(NATIVE, folder, dirs_exist_ok=True)
    for step in steps:
        done = subprocess.run(step, shell=True, cwd=folder, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode and "No such file or directory" in said and "#include" in said:
            pytest.skip(f"a header is not here: apt-get install {packages}")
        assert done.returncode == 0, f"{step}: {said}"
    return folder / "peer"


def image(number: int):
    """A 640x480 image with made-up bytes and padded rows, its number in its frame's name."""
    made = sample(IMAGE)
    made.header.frame_id, made.header.stamp.sec, made.header.stamp.nanosec = f"camera_{number}", number, 123_456_789
    made.height, made.width, made.encoding, made.is_bigendian, made.step = 480, 640, "bgr8", number % 2, 1928
    made.data = np.random.default_rng(number).integers(0, 256, 480 * 1928, dtype=np.uint8)
    return made


def line(number: int) -> str:
    """What a peer says of an image."""
    made = image(number)
    return (
        f"{made.header.frame_id} {number} 123456789 640 480 bgr8 {made.is_bigendian} 1928 {made.data.size} "
        f"{fnv(made.data.tobytes()):016x}"
    )


def fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    return reduce(lambda value, byte: (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF, data, 0xCBF29CE484222325)


def test_images_byte_for_byte(program, bridge, domain):
    """Whatever image the peer has taken, all its fields and bytes are those that were sent."""
    ours = bridge()
    topic = ours.advertise("/camera/image_raw", IMAGE, preset="reliable_sensor")
    peer = subprocess.Popen(
        [str(program), str(domain), "rt/camera/image_raw", str(COUNT)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ON_LOOPBACK},
    )
    try:
        assert peer.stdout is not None
        assert peer.stdout.readline() == "ready\n"
        listened(topic)
        deadline = time.monotonic() + 60
        number = 0
        while peer.poll() is None:
            assert time.monotonic() < deadline, "the peer has not got its images"
            topic.publish(image(number))
            number += 1
            time.sleep(0.1)
        found = peer.stdout.read().splitlines()
    finally:
        peer.kill()
        peer.communicate()
    assert peer.returncode == 0
    numbers = [int(text.partition(" ")[0].rpartition("_")[2]) for text in found]
    assert len(numbers) == COUNT and numbers == sorted(set(numbers))
    assert found == [line(number) for number in numbers]


def test_fnv():
    """The hash is the published one."""
    assert fnv(b"foobar") == 0x85944171F73967E8
