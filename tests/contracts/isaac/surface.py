"""What one Isaac Sim version offers: the signatures that were read, and those that are assumed with a reason."""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

VERSIONS = ("5.0", "5.1", "6.0", "6.1", "6.2")

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One signature in one version."""

    module: str
    name: str
    kind: str
    params: tuple[str, ...]
    keywords: frozenset[str] | None = None
    """Keywords that ``**kwargs`` was seen with; ``None`` = any."""
    assumed: str | None = None
    """Why it is taken to hold although it was not read in this version."""
    source: str = ""
    outputs: tuple[str, ...] = ()
    fewest: int | None = None
    """Fewest positional arguments that calls were seen with; ``None`` = not known from calls."""

    @property
    def qualified(self) -> str:
        return f"{self.module}.{self.name}"

    def describe(self) -> str:
        return f"{self.qualified}({', '.join(self.params)})"


@dataclass
class Surface:
    """All entries of one version by module and name, and what other versions have."""

    version: str
    modules: dict[str, dict[str, Entry]] = field(default_factory=dict)
    elsewhere: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Versions in which a name was read, for those that this version lacks."""

    def why_missing(self, module: str, name: str) -> str:
        read = self.elsewhere.get(module, {}).get(name)
        if read:
            return f"Isaac Sim {self.version} has no {module}.{name}: it was read in {', '.join(read)} only"
        return f"{module}.{name} was not read in Isaac Sim {self.version}: give it a line with a reason in assumed.json"


@lru_cache
def read_api() -> list[dict[str, Any]]:
    """Returns the signatures that were read from Isaac Sim's sources."""
    return json.loads((_FOLDER / "api.json").read_text(encoding="utf-8"))


@lru_cache
def read_assumed() -> list[dict[str, Any]]:
    """Returns what is assumed beyond them."""
    return json.loads((_FOLDER / "assumed.json").read_text(encoding="utf-8"))


def surface_of(version: str, *, without: tuple[str, ...] = ()) -> Surface:
    """Returns what ``version`` offers.

    Args:
        version: One of :data:`VERSIONS`.
        without: Qualified names that are taken away, with everything below them: the negative controls.
    """
    if version not in VERSIONS:
        raise ValueError(f"no such version: {version}; there are {', '.join(VERSIONS)}")
    surface = Surface(version)
    for raw in read_api():
        if version in raw["versions"]:
            _add(surface, _entry(raw))
        else:
            surface.elsewhere.setdefault(raw["module"], {}).setdefault(raw["name"], []).extend(raw["versions"])
    for raw in read_assumed():
        if version in raw["versions"]:
            known = _nearest(raw)
            _add(surface, _entry({**known, **raw, "params": raw.get("params", known.get("params"))}, raw["reason"]))
    for name in without:
        _remove(surface, name)
    return surface


def _entry(raw: dict[str, Any], assumed: str | None = None) -> Entry:
    has_more = any(parameter.startswith("**") for parameter in raw["params"])
    # A writer's arguments are its own.
    seen = None if raw.get("note") == "writer-specific" else raw.get("seen_keywords")
    return Entry(
        raw["module"],
        raw["name"],
        raw["kind"],
        tuple(raw["params"]),
        frozenset(seen) if has_more and seen else None,
        assumed,
        raw.get("source") or raw.get("nearest", ""),
        tuple(raw.get("outputs", ())),
        min(raw["seen_positional"]) if raw.get("seen_positional") else None,
    )


def _nearest(raw: dict[str, Any]) -> dict[str, Any]:
    """Returns the entry of the version whose signature an assumption takes over."""
    for other in read_api():
        same = (other["module"], other["name"]) == (raw["module"], raw["name"])
        if same and raw.get("nearest") in other["versions"]:
            return other
    if "params" not in raw or "kind" not in raw:
        raise ValueError(f"assumed.json: {raw['module']}.{raw['name']}: no such entry in {raw.get('nearest')}")
    return {}


def _add(surface: Surface, entry: Entry) -> None:
    found = surface.modules.setdefault(entry.module, {})
    known = found.get(entry.name)
    # A documented signature counts for more than one put together from calls that were seen.
    if known is None or (known.kind == "call" and entry.kind != "call"):
        found[entry.name] = entry


def _remove(surface: Surface, qualified: str) -> None:
    for module, names in list(surface.modules.items()):
        if module == qualified or module.startswith(qualified + "."):
            del surface.modules[module]
            continue
        for name in list(names):
            full = f"{module}.{name}"
            if full == qualified or full.startswith(qualified + "."):
                del names[name]


def signature_of(entry: Entry) -> inspect.Signature | None:
    """Returns the signature of an entry without ``self``; ``None`` where only parts of it are known."""
    if "..." in entry.params:
        return None
    found: list[inspect.Parameter] = []
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    defaulted = False
    for text in entry.params:
        if text == "*":
            kind = inspect.Parameter.KEYWORD_ONLY
            continue
        name, _, default = (part.strip() for part in text.partition("="))
        if name.startswith("**"):
            found.append(inspect.Parameter(name[2:], inspect.Parameter.VAR_KEYWORD))
            continue
        if name.startswith("*"):
            found.append(inspect.Parameter(name[1:], inspect.Parameter.VAR_POSITIONAL))
            kind = inspect.Parameter.KEYWORD_ONLY
            continue
        own = kind
        if name.startswith("arg") and name[3:].isdigit():
            own = inspect.Parameter.POSITIONAL_ONLY  # its name was not read
            if not default and entry.fewest is not None and int(name[3:]) >= entry.fewest:
                default = "None"  # calls without it were seen
        elif defaulted and not default and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            if not any(other.startswith("*") for other in entry.params):
                return _keywords_only(entry)
            # A default in front of a required argument, all of them given by position: it is none.
            found = [parameter.replace(default=inspect.Parameter.empty) for parameter in found]
            defaulted = False
        defaulted = defaulted or bool(default)
        value = _default(default) if default else inspect.Parameter.empty
        found.append(inspect.Parameter(name, own, default=value))
    return inspect.Signature(found)


def _keywords_only(entry: Entry) -> inspect.Signature:
    """A required argument after one with a default: the binding can be called by keyword only."""
    found = []
    for text in entry.params:
        name, _, default = (part.strip() for part in text.partition("="))
        value = _default(default) if default else inspect.Parameter.empty
        found.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value))
    return inspect.Signature(found)


def _default(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
