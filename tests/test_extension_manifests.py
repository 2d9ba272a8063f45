"""The two extension manifests: valid TOML, equal but for their paths, and in step with the package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import saccade

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ROOT / "exts" / "saccade" / "config" / "extension.toml"
OWN = ROOT / "extension.toml"


def manifest(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def rebased(content: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Returns a manifest with every path put below ``prefix``."""
    package = dict(content["package"])
    for key in ("readme", "changelog", "icon", "preview_image"):
        if key in package:
            package[key] = f"{prefix}/{package[key]}"
    modules = [
        {**module, "path": prefix if module["path"] == "." else f"{prefix}/{module['path']}"}
        for module in content["python"]["module"]
    ]
    return {**content, "package": package, "python": {**content["python"], "module": modules}}


def test_root_manifest_is_the_packaged_one_rebased():
    assert manifest(OWN) == rebased(manifest(PACKAGED), "exts/saccade")


@pytest.mark.parametrize(("path", "folder"), [(PACKAGED, PACKAGED.parent.parent), (OWN, ROOT)])
def test_what_a_manifest_names_exists(path, folder):
    content = manifest(path)
    for key in ("readme", "changelog", "icon", "preview_image"):
        if key in content["package"]:
            assert (folder / content["package"][key]).is_file(), key
    for module in content["python"]["module"]:
        assert (folder / module["path"] / Path(*module["name"].split(".")) / "__init__.py").is_file()


def test_version_is_the_packages():
    content = manifest(PACKAGED)["package"]
    assert content["version"] == saccade.__version__
    assert f"[{saccade.__version__}]" in (PACKAGED.parent.parent / content["changelog"]).read_text(encoding="utf-8")


def test_nothing_is_fetched_from_inside_kit():
    assert "pipapi" not in manifest(PACKAGED)["python"]


def test_only_what_every_isaac_sim_has_is_required():
    required = {name for name, entry in manifest(PACKAGED)["dependencies"].items() if not entry.get("optional")}
    assert required == {"omni.usd", "omni.timeline", "omni.physx", "omni.warp.core"}
