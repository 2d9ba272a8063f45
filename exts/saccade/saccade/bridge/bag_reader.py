"""BagReader: the messages of a ROS 2 bag (MCAP or sqlite3), in the order of recording, with errors that name it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from saccade.errors import DependencyError, RecordError

SUFFIXES = (".mcap", ".db3")
METADATA = "metadata.yaml"
MAGIC = b"\x89MCAP0\r\n"
"""First and last bytes of an MCAP file."""
RUN_FOLDER = "bag"
"""Of a run that was recorded with ``record.bag``."""


class BagMessage(NamedTuple):
    """One recorded message."""

    topic: str
    type_name: str
    time_ns: int
    """When it was recorded."""
    data: bytes | memoryview
    """CDR with its encapsulation header."""


class BagReader:
    """A bag that is open for reading; use it as a context manager.

    Args:
        path: An ``.mcap`` or ``.db3`` file, a rosbag2 folder with or without its ``metadata.yaml``, or the folder of a
            run that was recorded with ``record.bag``.

    Raises:
        RecordError: There is no bag, it is cut off, damaged, or compressed with what cannot be undone here.
        DependencyError: rosbags is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = bag_path(Path(path))
        try:
            from rosbags.rosbag2 import Reader
        except ImportError as error:
            raise DependencyError(f"a bag needs rosbags ({error}): pip install 'saccade[ros]'") from error
        for file in _files(self.path):
            _check_end(file)
        with self._told():
            self._reader = Reader(self.path)
            self._reader.open()
        self.types: dict[str, str] = {}
        """``package/msg/Type`` by topic."""
        self.counts: dict[str, int] = {}
        """Messages by topic."""
        for connection in self._reader.connections:
            self.types.setdefault(connection.topic, connection.msgtype)
            self.counts[connection.topic] = self.counts.get(connection.topic, 0) + connection.msgcount

    def require(self, topic: str, type_name: str, *, remedy: str) -> None:
        """Makes sure that messages of a topic can be read.

        Args:
            topic: Absolute name.
            type_name: Type that is needed.
            remedy: What to do about another one, for the text.

        Raises:
            RecordError: There is no such topic, it has another type or serialisation, or no message; the text lists
                what the bag has.
        """
        if topic not in self.types:
            fitting = sorted(name for name, kind in self.types.items() if kind == type_name)
            all_of_it = ", ".join(f"{name} ({kind})" for name, kind in sorted(self.types.items())) or "nothing"
            has = f"of type {type_name} it has: {', '.join(fitting)}" if fitting else f"it has: {all_of_it}"
            raise RecordError(f"{self.path}: no topic {topic} in this bag; {has}: {remedy}")
        if self.types[topic] != type_name:
            raise RecordError(
                f"{self.path}: topic {topic} is of type {self.types[topic]}, and {type_name} is needed: {remedy}"
            )
        formats = {c.ext.serialization_format for c in self._reader.connections if c.topic == topic}
        if formats != {"cdr"}:
            raise RecordError(f"{self.path}: topic {topic} is serialised as {', '.join(formats)}, and CDR is needed")
        if not self.counts[topic]:
            raise RecordError(f"{self.path}: topic {topic} has no messages: record it again")

    def messages(self, topics: Sequence[str]) -> Iterator[BagMessage]:
        """Yields the messages of some topics in the order of recording.

        Raises:
            RecordError: The bag turns out to be damaged; what came before it has been yielded.
        """
        wanted = [c for c in self._reader.connections if c.topic in topics and c.msgtype == self.types[c.topic]]
        if not wanted:
            return
        with self._told():
            iterator = iter(self._reader.messages(wanted))
        while True:
            with self._told():
                found = next(iterator, None)
            if found is None:
                return
            connection, time_ns, data = found
            yield BagMessage(connection.topic, connection.msgtype, time_ns, data)

    def close(self) -> None:
        """Closes the files; safe to call twice."""
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns whatever foreign bytes make the library stumble over into an error that names the bag."""
        try:
            yield
        except PermissionError as error:
            raise RecordError(f"{self.path}: cannot be read: {error.strerror}") from error
        except Exception as error:
            text = str(error) or type(error).__name__
            if "ompression" in text:
                raise RecordError(
                    f"{self.path}: {text.rstrip('.')}: only zstd and lz4 can be read; convert it with "
                    f"'ros2 bag convert' or 'mcap compress --compression zstd'"
                ) from error
            raise RecordError(f"{self.path}: the bag is damaged ({text.rstrip('.')}): {_remedy(self.path)}") from error


def is_bag(path: Path) -> bool:
    """Returns whether a path names a bag rather than a run that was recorded with its sensors."""
    if path.is_file():
        return path.suffix in SUFFIXES or path.name.endswith(tuple(f"{suffix}.zstd" for suffix in SUFFIXES))
    if (path / "sensors").is_dir():
        return False
    return (path / METADATA).is_file() or (path / RUN_FOLDER).is_dir() or bool(_storage(path))


def bag_path(path: Path) -> Path:
    """Returns the file or the folder with metadata that a path means.

    Raises:
        RecordError: There is no bag.
    """
    if path.is_file():
        if path.suffix in SUFFIXES:
            return path
        if path.suffix == ".zstd":
            raise RecordError(
                f"{path}: compressed as a whole file: give the folder that it lies in, with its {METADATA}, or "
                f"decompress it with: zstd -d {path.name}"
            )
        raise RecordError(f"{path}: no bag: expected a file that ends in {' or '.join(SUFFIXES)}, or a folder")
    if not path.is_dir():
        raise RecordError(f"{path}: there is no such bag: expected an .mcap or .db3 file, or a rosbag2 folder")
    if not (path / METADATA).is_file() and (path / RUN_FOLDER).is_dir():
        path = path / RUN_FOLDER
    if (path / METADATA).is_file():
        return path
    files = _storage(path)
    if len(files) == 1:
        return files[0]
    if files:
        raise RecordError(
            f"{path}: {len(files)} files and no {METADATA} that says in which order: make it with "
            f"'ros2 bag reindex {path}', or give one of the files"
        )
    raise RecordError(f"{path}: no bag in this folder: neither {METADATA} nor a file that ends in .mcap or .db3")


def _storage(folder: Path) -> list[Path]:
    return sorted(file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}"))


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else _storage(path)


def _check_end(file: Path) -> None:
    """Says of an MCAP file that was cut off, before the library trips over it."""
    if file.suffix != ".mcap":
        return
    try:
        with file.open("rb") as opened:
            start = opened.read(len(MAGIC))
            size = opened.seek(0, 2)
            opened.seek(max(0, size - len(MAGIC)))
            end = opened.read()
    except OSError as error:
        raise RecordError(f"{file}: cannot be read: {error.strerror}") from error
    if start != MAGIC:
        raise RecordError(f"{file}: no MCAP file" + (": it is empty" if not size else ""))
    if end != MAGIC or size < 2 * len(MAGIC):
        raise RecordError(f"{file}: the bag is truncated, its recording was cut off: {_remedy(file)}")


def _remedy(path: Path) -> str:
    if path.suffix == ".db3":
        return "record it again"
    file = path if path.is_file() else path / "FILE.mcap"
    return f"'mcap recover {file} -o whole.mcap' makes a bag of what is readable, or record it again"


def stamp_ns(message: Any) -> int:
    """Returns the time in a message's header [ns]; 0 where it was not set."""
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
