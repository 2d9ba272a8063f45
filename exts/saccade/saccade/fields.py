"""What fields a run configuration has: types, defaults, documentation, and where an error's location points."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from saccade import config, config_tradeoff
from saccade.config import RunConfig

REQUIRED = "required"


@dataclass(frozen=True)
class FieldFact:
    """One configuration field."""

    name: str
    """Dotted name; ``<name>`` stands for a name of the user's choice."""
    type: str
    default: str
    """In YAML, or ``"required"``."""
    description: str


def field_facts(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[FieldFact]:
    """Yields every field that can be set, in the order of the configuration file."""
    documentation = _documentation()
    for name, info in model.model_fields.items():
        dotted = f"{prefix}{name}"
        yield from _facts_of(dotted, info.annotation, info, documentation.get(model.__name__, {}).get(name, ""))


def _facts_of(dotted: str, annotation: Any, info: FieldInfo | None, text: str) -> Iterator[FieldFact]:
    sections = sections_of(annotation)
    key = mapped_type(annotation)
    if key is not None and sections_of(key):
        yield FieldFact(dotted, "names", _default(info), text)
        yield from _facts_of(f"{dotted}.<name>", key, None, "")
        return
    if not sections:
        yield FieldFact(dotted, type_text(annotation, info), _default(info), text)
        return
    if annotation_allows_none(annotation):
        yield FieldFact(dotted, "section or null", _default(info), text)
    seen: set[str] = set()
    for section in sections:
        variant = _variant(section) if len(sections) > 1 else ""
        for fact in field_facts(section, f"{dotted}."):
            if fact.name in seen and not fact.name.endswith((".kind", ".outputs")):
                continue
            seen.add(fact.name)
            own = fact.name.removeprefix(f"{dotted}.").split(".")[0]
            shared = all(own in other.model_fields for other in sections)
            note = f"({variant}) " if variant and (not shared or own in ("kind", "outputs")) else ""
            yield FieldFact(fact.name, fact.type, fact.default, note + fact.description)


def _variant(section: type[BaseModel]) -> str:
    kind = section.model_fields.get("kind")
    return "" if kind is None else str(get_args(kind.annotation)[0])


def _default(info: FieldInfo | None) -> str:
    if info is None or info.is_required():
        return REQUIRED
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return REQUIRED
    return value_text(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)


def value_text(value: Any) -> str:
    """Returns a value as one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {value_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(entry) for entry in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if str(value) else '""'


def type_text(annotation: Any, info: FieldInfo | None = None) -> str:
    """Returns an annotation in words: ``integer >= 1``, ``lockstep | realtime``, ``number or null``."""
    text = _type_words(annotation)
    bounds = [
        f"{symbol} {value:.10g}"
        for symbol, name in ((">", "gt"), (">=", "ge"), ("<", "lt"), ("<=", "le"))
        for constraint in (info.metadata if info is not None else ())
        if isinstance(value := getattr(constraint, name, None), int | float)
    ]
    if not bounds:
        return text
    if text.endswith(" or null"):
        return f"{text.removesuffix(' or null')} {', '.join(bounds)}, or null"
    return f"{text} {', '.join(bounds)}"


def _type_words(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_words(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        words = [_type_words(member) for member in get_args(annotation) if member is not type(None)]
        return " or ".join(words + (["null"] if annotation_allows_none(annotation) else []))
    if origin is list:
        return f"list of {_type_words(get_args(annotation)[0])}"
    if origin is tuple:
        members = get_args(annotation)
        return f"[{', '.join(_type_words(member) for member in members)}]"
    if origin is dict:
        return f"name: {_type_words(get_args(annotation)[1])}"
    known = {int: "integer", float: "number", bool: "true | false", str: "text"}
    if annotation in known:
        return known[annotation]
    return "section" if inspect.isclass(annotation) and issubclass(annotation, BaseModel) else str(annotation)


def annotation_allows_none(annotation: Any) -> bool:
    """Tells whether ``null`` is a value of the annotation."""
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """Returns the sections (nested models) that an annotation may hold directly; none for plain values."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return sections_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [section for member in get_args(annotation) for section in sections_of(member)]
    return []


def mapped_type(annotation: Any) -> Any:
    """Returns the type of the values of a mapping annotation, ``None`` for any other."""
    return get_args(annotation)[1] if get_origin(annotation) is dict else None


def section_at(path: Sequence[str | int], data: Any) -> list[type[BaseModel]]:
    """Returns the sections that may stand at ``path``, told apart by their ``kind`` in ``data`` where it has one."""
    annotation: Any = RunConfig
    value = data
    for key in path:
        sections = _by_kind(sections_of(annotation), value)
        mapped = mapped_type(annotation)
        if mapped is not None:
            annotation = mapped
        else:
            owner = next((section for section in sections if key in section.model_fields), None)
            if owner is None:
                return []
            annotation = owner.model_fields[str(key)].annotation
        value = value.get(key) if isinstance(value, Mapping) else None
    return _by_kind(sections_of(annotation), value)


def annotation_at(path: Sequence[str | int], data: Any) -> tuple[Any, FieldInfo | None]:
    """Returns the annotation and facts of the field at ``path``; ``(None, None)`` where there is no such field."""
    if not path:
        return RunConfig, None
    value = data
    for key in path[:-1]:
        value = value.get(key) if isinstance(value, Mapping) else None
    for section in section_at(path[:-1], data):
        info = section.model_fields.get(str(path[-1]))
        if info is not None:
            return info.annotation, info
    parent = annotation_at(path[:-1], data)[0] if len(path) > 1 else None
    return mapped_type(parent), None


def _by_kind(sections: list[type[BaseModel]], value: Any) -> list[type[BaseModel]]:
    if len(sections) > 1 and isinstance(value, Mapping):
        named = [section for section in sections if _variant(section) == value.get("kind")]
        return named or sections
    return sections


def real_path(location: Sequence[str | int], data: Any) -> tuple[str | int, ...]:
    """Returns the path of an error in the user's terms: without the branch names that pydantic puts into locations."""
    path: list[str | int] = []
    annotation: Any = RunConfig
    value = data
    for key in location:
        sections = sections_of(annotation)
        mapped = mapped_type(annotation)
        if len(sections) > 1 and key in {_variant(section) for section in sections}:
            annotation = next(section for section in sections if _variant(section) == key)
            continue
        if mapped is not None:
            if key == "[key]":  # the key itself is wrong, and was already named
                continue
            annotation = mapped
        elif sections:
            info = sections[0].model_fields.get(str(key))
            annotation = None if info is None else info.annotation
        elif isinstance(key, int) and isinstance(value, list):
            annotation = None
        elif annotation is not None:
            continue  # a member of a plain union, such as `float`
        path.append(key)
        value = child(value, key)
    return tuple(path)


def child(value: Any, key: str | int) -> Any:
    """Returns the value below ``value``, ``None`` where there is none."""
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return value[key]
    return None


def nearest(name: str, path: Sequence[str | int], data: Any) -> str:
    """Returns a sentence that helps with an unknown field ``name`` of the section at ``path``."""
    known = list(dict.fromkeys(field for section in section_at(path, data) for field in section.model_fields))
    if not path:
        known.append("base")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    elsewhere = [fact.name for fact in field_facts() if fact.name.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}'?"
    return f"known fields here: {', '.join(known)}" if known else "there are no fields below a plain value"


@functools.cache
def _documentation() -> dict[str, dict[str, str]]:
    """Returns the text under each field of the configuration's classes, by class and field."""
    found: dict[str, dict[str, str]] = {}
    modules = (config_tradeoff, config)
    bodies = [node for module in modules for node in ast.parse(inspect.getsource(module)).body]
    classes = [node for node in bodies if isinstance(node, ast.ClassDef)]
    for node in classes:
        own: dict[str, str] = {}
        for base in node.bases:
            own |= found.get(base.id, {}) if isinstance(base, ast.Name) else {}
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                isdoc = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                if isdoc and isinstance(text.value.value, str):  # type: ignore[attr-defined]
                    own[field.target.id] = _in_yaml(inspect.cleandoc(text.value.value))  # type: ignore[attr-defined]
        found[node.name] = own
    return found


def _in_yaml(text: str) -> str:
    for python, yaml in (("``None``", "`null`"), ("``True``", "`true`"), ("``False``", "`false`"), ("``", "`")):
        text = text.replace(python, yaml)
    return text.replace("\n", " ")
