"""Files of the engine store that are whole or absent, private to their user, and locked between processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from saccade.errors import EngineError

SECRET_BYTES = 32

_POLL_S = 0.1
_REMIND_S = 10.0


def digest(data: bytes) -> str:
    """Returns the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def private_folder(folder: Path) -> Path:
    """Makes ``folder`` where it is absent, closes it to others where it is open, and returns it.

    Raises:
        EngineError: It belongs to somebody else, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        facts = folder.stat()
        if facts.st_uid != os.geteuid():
            raise EngineError(f"{folder}: belongs to another user, who could put engines there: choose your own folder")
        if stat.S_IMODE(facts.st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise EngineError(
            f"{folder}: no folder for engines can be made there: {error.strerror}. Set SACCADE_CACHE to one that can"
        ) from error
    return folder


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that whoever reads it finds the former content or all of the new, also after a power cut.

    Raises:
        EngineError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise EngineError(
            f"{path}: cannot be written: {error.strerror}. Free some space (saccade engine list, saccade engine "
            f"remove) or set SACCADE_CACHE to another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def secret(path: Path) -> bytes:
    """Returns the key in ``path``, made on first use, readable by its user alone.

    Raises:
        EngineError: Others can read it, it is damaged, or it cannot be made.
    """
    if not path.is_file():
        private_folder(path.parent)
        with locked(path.with_name(f"{path.name}.lock")):
            if not path.is_file():
                write_whole(path, secrets.token_bytes(SECRET_BYTES))
    try:
        facts = path.stat()
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: this key of the engine store cannot be read: {error.strerror}") from error
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise EngineError(
            f"{path}: others than you can read or change this key of the engine store. Remove it; engines stored with "
            f"it are then refused until  saccade engine remove --all"
        )
    if len(content) != SECRET_BYTES:
        raise EngineError(
            f"{path}: this key of the engine store is damaged ({len(content)} bytes, expected {SECRET_BYTES}). Remove "
            f"it, then  saccade engine remove --all"
        )
    return content


@contextlib.contextmanager
def locked(path: Path, *, say: Callable[[str], None] | None = None, waiting: str = "") -> Iterator[None]:
    """Holds the lock that ``path`` stands for; another process that wants it waits until this one is done or dead.

    Args:
        path: A file that exists while somebody holds the lock.
        say: Told ``waiting`` when somebody else holds it, and every ten seconds how long that has been.
        waiting: What is waited for.
    """
    begin = said = time.monotonic()
    told = False
    while (descriptor := _try_lock(path)) is None:
        now = time.monotonic()
        if say is not None and not told:
            say(waiting)
            told = True
        elif say is not None and now - said >= _REMIND_S:
            say(f"{waiting} ({now - begin:.0f} s)")
            said = now
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        # Removed while it is held: who opened it meanwhile sees that its file is gone, and takes a new one.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineError(f"{path}: cannot be locked: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
