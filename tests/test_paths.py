"""Where files are looked for, and what is said when they are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade import paths
from saccade.errors import ConfigurationError, ModelError, RecordError, SaccadeError, SceneError


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Makes a working folder and one beside the configuration, and returns both."""
    working, beside = tmp_path / "working", tmp_path / "beside"
    working.mkdir()
    beside.mkdir()
    monkeypatch.chdir(working)
    return working, beside


def test_beside_the_configuration_comes_before_the_working_folder(folders):
    working, beside = folders
    for folder in folders:
        (folder / "a.usda").touch()
    assert paths.resolve("a.usda", "scene", beside=[beside]) == beside / "a.usda"
    assert paths.resolve("a.usda", "scene") == working / "a.usda"
    (beside / "a.usda").unlink()
    assert paths.resolve("a.usda", "scene", beside=[beside]) == working / "a.usda"


def test_absolute_and_home_paths(folders, tmp_path, monkeypatch):
    (tmp_path / "a.onnx").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.resolve(tmp_path / "a.onnx", "model") == tmp_path / "a.onnx"
    assert paths.resolve("~/a.onnx", "model") == tmp_path / "a.onnx"


def test_shipped_files_are_found_with_and_without_their_folder(folders):
    shipped = paths.shipped("configuration")
    assert shipped is not None
    for text in ("warehouse.yaml", "config/warehouse.yaml"):
        assert paths.resolve(text, "configuration") == shipped / "warehouse.yaml"


def test_the_checkout_is_recognised():
    root = paths.checkout_root()
    assert root is not None
    assert (root / "pyproject.toml").is_file()
    assert paths.shipped("configuration") == root / "config"


def test_an_installed_package_has_no_checkout_but_its_share(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "saccade"
    (package / "share" / "config").mkdir(parents=True)
    (package / "share" / "config" / "warehouse.yaml").touch()
    monkeypatch.setattr(paths, "PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    assert paths.checkout_root() is None
    assert paths.resolve("config/warehouse.yaml", "configuration").parent == package / "share" / "config"
    assert paths.shipped("scene") is None


@pytest.mark.parametrize(
    ("kind", "error", "name"),
    [
        ("scene", SceneError, "room.usdc"),
        ("model", ModelError, "net.onnx"),
        ("configuration", ConfigurationError, "mine.yaml"),
    ],
)
def test_what_is_missing_is_told_with_places_and_what_is_there(folders, kind, error, name):
    working, beside = folders
    (beside / name).touch()
    (beside / "notes.txt").touch()
    with pytest.raises(error) as caught:
        paths.resolve("absent.file", kind, beside=[beside], field="run.yaml:3: scene")
    text = str(caught.value)
    assert text.startswith("run.yaml:3: scene: there is no ")
    assert f"  {beside / 'absent.file'}\n  {working / 'absent.file'}\n" in text
    assert f"In {beside} there is: {name}\n" in text + "\n"
    assert "notes.txt" not in text


def test_a_folder_is_no_scene_and_a_file_no_recording(folders):
    working, _ = folders
    (working / "a.usda").mkdir()
    (working / "run").touch()
    with pytest.raises(SceneError):
        paths.resolve("a.usda", "scene")
    with pytest.raises(RecordError):
        paths.resolve("run", "recording")


def test_recordings_that_can_be_replayed_are_listed(folders):
    working, _ = folders
    (working / "runs" / "golden" / "sensors").mkdir(parents=True)
    (working / "runs" / "plain").mkdir()
    assert paths.resolve("runs/golden", "recording") == working / "runs" / "golden"
    with pytest.raises(RecordError) as caught:
        paths.resolve("runs/gold", "recording")
    assert f"In {working / 'runs'} there is: golden" in str(caught.value)


def test_long_listings_are_cut(folders):
    working, _ = folders
    for index in range(30):
        (working / f"s{index:02}.usda").touch()
    with pytest.raises(SceneError, match=r"s11\.usda, \.\.\."):
        paths.resolve("none.usda", "scene")


def test_urls_are_left_alone():
    assert paths.is_url("omniverse://server/a.usd")
    assert not paths.is_url("C:/scenes/a.usd")
    with pytest.raises(SceneError, match="only Isaac Sim opens those"):
        paths.resolve("omniverse://server/a.usd", "scene")


def test_empty_path():
    with pytest.raises(ModelError, match="model: the path of the network is empty"):
        paths.resolve("", "model", field="model")


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80), kind=st.sampled_from(["scene", "configuration", "model", "recording"]))
def test_any_text_is_found_or_a_clear_error(text, kind):
    try:
        assert paths.resolve(text, kind).exists()
    except SaccadeError as error:
        assert str(error)


def test_name_that_is_too_long():
    with pytest.raises(SceneError, match="there is no scene"):
        paths.resolve("a" * 5000, "scene")


def test_display_is_relative_to_the_working_folder(folders):
    working, beside = folders
    assert paths.display(working / "a" / "b") == str(Path("a/b"))
    assert paths.display(beside) == str(beside)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "own"))
    assert paths.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SACCADE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_folder() == tmp_path / "xdg" / "saccade"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.cache_folder() == tmp_path / ".cache" / "saccade"


def test_kernels_are_cached_where_the_doctor_looks(monkeypatch, tmp_path):
    from saccade.kernels import setup

    for name in ("SACCADE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert setup.cache_folder("kernels") == paths.cache_folder() / "kernels"
        monkeypatch.delenv(name)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder_is_no_crash(folders):
    working, _ = folders
    (working / "locked").mkdir(mode=0)
    with pytest.raises(SceneError):
        paths.resolve("locked/a.usda", "scene")
