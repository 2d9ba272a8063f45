"""The two extension manifests: valid TOML, equal but for their paths, and in step with the package."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.contracts.isaac.doubles import VERSIONS, install

import saccade

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ROOT / "exts" / "saccade" / "config" / "extension.toml"
OWN = ROOT / "extension.toml"
SHIPPED = Path(__file__).parent / "contracts" / "isaac" / "extensions.json"


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
    pages = [f"{prefix}/{page}" for page in content["documentation"]["pages"]]
    return {
        **content,
        "package": package,
        "python": {**content["python"], "module": modules},
        "documentation": {"pages": pages},
    }


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


def test_every_dependency_ships_with_isaac_sim_and_those_required_with_every_version():
    """A required one that a version lacks would keep the extension from loading there."""
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))["shipped"]
    content = manifest(PACKAGED)
    for name, entry in content["dependencies"].items():
        versions = shipped.get(name)
        assert versions, f"{name}: read in no version"
        assert entry.get("optional") or set(versions) == set(VERSIONS), f"{name}: not in every version"
        # What is only assumed must not be able to keep the extension from loading either.
        assert entry.get("optional") or "assumed" not in versions.values(), f"{name}: assumed, and required"
    for test in content["test"]:
        assert set(test.get("dependencies", ())) <= shipped.keys()


@pytest.mark.parametrize("version", VERSIONS)
def test_what_lacks_in_a_version_is_optional(version):
    """The control of the test above: some of the dependencies do differ between versions."""
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))["shipped"]
    entries = manifest(PACKAGED)["dependencies"]
    lacking = {name for name in entries if version not in shipped[name]}
    assert bool(lacking) == version.startswith("5.")
    assert all(entries[name]["optional"] for name in lacking)


def test_no_ui_is_required():
    """Headless applications may have none."""
    entries = manifest(PACKAGED)["dependencies"]
    assert all(entries[name]["optional"] for name in entries if name in ("omni.ui", "omni.kit.menu.utils"))


def test_the_modules_show_kit_one_extension_class():
    """Kit instantiates every IExt that it finds by name in the modules; a second one would be started as well."""
    names = [module["name"] for module in manifest(PACKAGED)["python"]["module"]]
    assert names == ["saccade", "saccade.kit"]
    with install("6.2"):
        import omni.ext

        found = []
        for name in names:
            module = importlib.import_module(name)
            kinds = [getattr(module, attribute) for attribute in dir(module)]
            found += [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, omni.ext.IExt)]
        assert [kind.__name__ for kind in found] == ["SaccadeExtension"]


@pytest.mark.parametrize("path", [PACKAGED, OWN])
def test_settings_and_defaults_of_the_code_are_the_same(path):
    with install("6.2"):
        from saccade.kit.extension import DEFAULTS

        settings = manifest(path)["settings"]
        assert settings == {"exts": {"saccade": DEFAULTS}}, "no setting depends on the folder's name"


@pytest.mark.parametrize("name", ["saccade", "my-clone", "a folder", "saccade-main", "x.y_z"])
def test_a_clone_may_have_any_name(name, tmp_path):
    """What the root manifest names is found from wherever the checkout lies, and nothing names the checkout itself."""
    clone = tmp_path / name
    clone.symlink_to(ROOT)
    content = manifest(clone / "extension.toml")
    for module in content["python"]["module"]:
        assert (clone / module["path"] / Path(*module["name"].split(".")) / "__init__.py").is_file()
    assert (clone / content["package"]["icon"]).is_file()


@pytest.mark.parametrize(("key", "size"), [("icon", (256, 256)), ("preview_image", None)])
def test_icon_and_preview_are_pictures(key, size):
    with Image.open(PACKAGED.parent.parent / manifest(PACKAGED)["package"][key]) as image:
        image.load()
        assert image.format == "PNG" and (size is None or image.size == size)
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 20, "not one colour"
