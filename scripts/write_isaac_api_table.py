"""Writes docs/isaac_api.md: every name of Isaac Sim that the code uses, by version, from the code and the API file.

python scripts/write_isaac_api_table.py            writes the page
python scripts/write_isaac_api_table.py --check    says whether it is current; status 1 where it is not
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.contracts.isaac.surface import VERSIONS, Entry, Surface, surface_of  # noqa: E402

PAGE = REPOSITORY / "docs" / "isaac_api.md"
PACKAGE = REPOSITORY / "exts" / "saccade" / "saccade"
ROOTS = ("omni", "carb", "isaacsim")
ALIASES = {
    "isaacsim.SimulationApp": "isaacsim.simulation_app.SimulationApp",
    "pxr.PhysicsSchemaTools": "pxr.PhysicsSchemaTools",
}
"""Names that stand for others."""

REACHED = {"omni.kit.app": ("omni.ext",), "isaacsim": ("isaacsim.simulation_app",)}
"""Modules whose objects come from another one, which is all that the code imports."""

ANNOTATORS = "omni.replicator.core (annotator name)"

HEAD = """# The names of Isaac Sim that Saccade uses

Made by `scripts/write_isaac_api_table.py` from the code and from `tests/contracts/isaac/`; a test holds it current.
`read`: the signature was read in that version's source, wheel or stubs. `assumed`: it was not read there, and is taken
over from the nearest version that was, for the reason in `tests/contracts/isaac/assumed.json`. `-`: the version does
not have it, and the code does not use it there. Methods of objects that calls return are found by their name, so that
one or the other may be named that is not used. Nothing has been run in Isaac Sim: see [isaac_sim.md](isaac_sim.md).
"""


def sources() -> list[Path]:
    """Returns the files that may name Isaac Sim."""
    files = [*PACKAGE.glob("simulators/isaac*.py"), *PACKAGE.glob("kit/**/*.py"), *REPOSITORY.glob("scripts/isaac*.py")]
    return sorted(files)


def applies_to(path: Path) -> tuple[str, ...]:
    """Returns the versions that a file is for: an adapter is for one major version."""
    for major in ("5", "6"):
        if path.stem == f"isaac_{major}":
            return tuple(version for version in VERSIONS if version.startswith(major))
    return VERSIONS


def used_names(path: Path, surfaces: dict[str, Surface]) -> Iterator[tuple[str, str]]:
    """Yields module and name of everything that a file takes from Isaac Sim.

    Imports and dotted uses are followed to the entry that they name. Methods of objects that functions return are
    found by their name among the classes of the modules that the file imports.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ROOTS:
                    if alias.asname:
                        bound[alias.asname] = alias.name
                    else:
                        bound[alias.name.split(".")[0]] = alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if node.module.split(".")[0] in ROOTS or full in ALIASES:
                    bound[alias.asname or alias.name] = ALIASES.get(full, full)
    imported = set(bound.values()) | _imported_modules(tree)
    methods: set[str] = set()
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = _dotted(node)
            if not dotted or dotted[0] not in bound:
                methods.add(node.attr)
            else:
                yield from _entries(".".join([bound[dotted[0]], *dotted[1:]]), surfaces)
        elif isinstance(node, ast.Name) and node.id in bound:
            yield from _entries(bound[node.id], surfaces)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    for surface in surfaces.values():
        for module, entries in surface.modules.items():
            if module == ANNOTATORS:
                yield from ((module, name) for name in entries if name in texts)
                continue
            reachable = {module, *(start for start, further in REACHED.items() if module in further)}
            if not any(known == start or known.startswith(start + ".") for known in imported for start in reachable):
                continue
            for name, entry in entries.items():
                owner, _, last = name.rpartition(".")
                # A class that can be imported has to be; other objects come from calls. Namespaces are found above.
                mine = f"{module}.{owner}" in imported if module.startswith("isaacsim") else owner[:1].isupper()
                if mine and last in methods and entry.kind in ("method", "call", "property"):
                    yield module, name
                if entry.kind == "kit-command" and name.split("'")[1] in texts:
                    yield module, name


def _imported_modules(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in ROOTS}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOTS:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _dotted(node: ast.expr) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _entries(full: str, surfaces: dict[str, Surface]) -> Iterator[tuple[str, str]]:
    for surface in surfaces.values():
        for module, entries in surface.modules.items():
            if not full.startswith(module + "."):
                continue
            name = full[len(module) + 1 :]
            for wanted in (name, f"{name}.__init__"):
                if wanted in entries:
                    yield module, wanted


def table() -> str:
    """Returns the page."""
    surfaces = {version: surface_of(version) for version in VERSIONS}
    used: dict[tuple[str, str], dict[str, set[str]]] = {}
    for path in sources():
        versions = applies_to(path)
        for key in used_names(path, {version: surfaces[version] for version in versions}):
            by_file = used.setdefault(key, {})
            by_file.setdefault(path.stem, set()).update(versions)
    lines = [HEAD, f"| module | name | {' | '.join(VERSIONS)} | used in |", f"|---|---|{'---|' * len(VERSIONS)}---|"]
    for (module, name), files in sorted(used.items()):
        cells = []
        for version in VERSIONS:
            entry: Entry | None = surfaces[version].modules.get(module, {}).get(name)
            wanted = any(version in versions for versions in files.values())
            cells.append("-" if entry is None or not wanted else "assumed" if entry.assumed else "read")
        shown = name.removesuffix(".__init__")
        lines.append(f"| `{module}` | `{shown}` | {' | '.join(cells)} | {', '.join(sorted(files))} |")
    counts = {word: sum(line.count(f" {word} ") for line in lines[3:]) for word in ("read", "assumed")}
    lines.append("")
    lines.append(f"{len(used)} names: {counts['read']} uses in a version read, {counts['assumed']} assumed.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    page = table()
    if arguments.check:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        print(f"{PAGE} is {'current' if current else 'not current: run scripts/write_isaac_api_table.py'}")
        sys.exit(0 if current else 1)
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
