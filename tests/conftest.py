"""What all tests share: Warp set up before any runs, tests for a GPU skipped where there is none, and files."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Takes Ctrl-C as a terminal has it: in the background it is ignored, here and in every child, and tests wait."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepares Warp after collection: its settings only count before its first use, and Newton uses it on import."""
    if not session.items:
        return
    try:
        import warp  # noqa: F401
    except ImportError:
        return
    from saccade.kernels.setup import prepare_warp

    prepare_warp()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test that needs a GPU where Warp finds none, before any of its fixtures is made."""
    if item.get_closest_marker("gpu") is None:
        return
    try:
        import warp as wp
    except ImportError:
        pytest.skip("no CUDA device: Warp is not installed")
    if not wp.is_cuda_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a configuration file into a folder that is also the working folder, and returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
