"""The kernel cache folder: overridden, per user, unwritable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saccade.kernels.setup import cache_folder, prepare_warp


def test_the_environment_overrides_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "mine"))
    folder = cache_folder("kernels", "1.0")
    assert folder == tmp_path / "mine" / "kernels" / "1.0"
    assert folder.is_dir()


def test_the_default_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACCADE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("kernels") == tmp_path / "saccade" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("kernels") == tmp_path / "home" / ".cache" / "saccade" / "kernels"


def test_an_unusable_folder_gives_a_private_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("SACCADE_CACHE", str(blocked))
    folder = cache_folder("kernels")
    assert folder.is_dir() and blocked not in folder.parents
    if os.name == "posix":
        assert folder.stat().st_mode & 0o077 == 0


def test_preparing_twice_changes_nothing() -> None:
    import warp as wp

    first = prepare_warp()
    assert prepare_warp() is first
    assert Path(wp.config.kernel_cache_dir) == first.folder
    assert wp.config.enable_backward is False
