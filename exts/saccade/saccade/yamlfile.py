"""Reads YAML safely, with the line of every field; what is ambiguous or dangerous is an error."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from saccade import paths
from saccade.errors import ConfigurationError

FieldPath = tuple[str | int, ...]
"""The way to a value: field names, and numbers for items of lists."""

BYTES_MAX = 1 << 20
NODES_MAX = 50_000
DEPTH_MAX = 40
_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: ``on`` and ``no`` are text, ``1e-3`` is a number, dates are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads back as the same value."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        """Writes equal lists out in full."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    # line breaks of any kind would be folded into spaces outside of double quotes
    style = '"' if any(mark in text for mark in "\n\r\x85\u2028\u2029") else None
    return dumper.represent_scalar(_PREFIX + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)

_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_PREFIX + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
    _kind.add_implicit_resolver(_PREFIX + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    _kind.add_implicit_resolver(
        _PREFIX + "int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")
    )
    _kind.add_implicit_resolver(_PREFIX + "float", re.compile(f"^(?:{_FLOAT})$"), list("-+.0123456789"))
    _kind.add_implicit_resolver(_PREFIX + "merge", re.compile(r"^(?:<<)$"), ["<"])


@dataclass(frozen=True)
class YamlDocument:
    """A YAML document as plain values."""

    value: Any
    lines: dict[FieldPath, int] = field(default_factory=dict)
    """Line of every field and list item, from 1."""


def read_file(path: Path) -> YamlDocument:
    """Reads a YAML file.

    Raises:
        ConfigurationError: It cannot be read or is no YAML; the text has the file and the line.
    """
    name = paths.display(path)
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{name}: cannot be read: {reason}") from error
    if len(content) > BYTES_MAX:
        raise ConfigurationError(f"{name}: larger than {BYTES_MAX >> 20} MiB: this is no configuration file")
    try:
        return read_text(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{name}:{line}: not UTF-8 text (byte {error.start})") from error


def read_text(text: str, name: str) -> YamlDocument:
    """Reads YAML from ``text``; ``name`` stands before the line in messages.

    Raises:
        ConfigurationError: It is no YAML, has duplicate keys or tags, or is unreasonably large.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        return _Reader(name).document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigurationError(f"{name}{line}: not valid YAML: {reason}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name}: not valid YAML: {getattr(error, 'reason', None) or error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{name}: nested more than {DEPTH_MAX} levels deep") from error


class _Reader:
    """Turns nodes into plain values and notes their lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[FieldPath, int] = {}
        self.count = 0

    def document(self, node: yaml.Node | None) -> YamlDocument:
        return YamlDocument(None if node is None else self.value(node, ()), self.lines)

    def error(self, node: yaml.Node, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self.name}:{node.start_mark.line + 1}: {text}")

    def value(self, node: yaml.Node, at: FieldPath) -> Any:
        self.count += 1
        if self.count > NODES_MAX:  # aliases of aliases grow without bound
            raise self.error(node, f"more than {NODES_MAX} values")
        if len(at) > DEPTH_MAX:
            raise self.error(node, f"nested more than {DEPTH_MAX} levels deep")
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            return self.mapping(node, at)
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            return [self.item(entry, (*at, index)) for index, entry in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        raise self.error(node, f"the tag {node.tag!r} is not supported here")

    def item(self, node: yaml.Node, at: FieldPath) -> Any:
        self.lines[at] = node.start_mark.line + 1
        return self.value(node, at)

    def mapping(self, node: yaml.MappingNode, at: FieldPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PREFIX + "merge":
                merged = {**self.merged(value_node, at), **merged}
                continue
            key = self.key(key_node)
            where = (*at, key)
            if key in own:
                raise self.error(key_node, f"{key!r} is given twice; it is already on line {self.lines[where]}")
            self.lines[where] = key_node.start_mark.line + 1
            own[key] = self.value(value_node, where)
        return {**merged, **own}

    def merged(self, node: yaml.Node, at: FieldPath) -> dict[str, Any]:
        """Returns what ``<<: *anchor`` brings in; lines of its fields stay where they were first written."""
        known = dict(self.lines)
        if isinstance(node, yaml.SequenceNode):
            parts = [self.merged(entry, at) for entry in reversed(node.value)]
            found = {key: value for part in parts for key, value in part.items()}
        elif isinstance(node, yaml.MappingNode):
            found = self.mapping(node, at)
        else:
            raise self.error(node, "'<<' needs a section to take fields from")
        self.lines = {**self.lines, **known}
        return found

    def key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, "a field name is plain text")
        key = self.scalar(node)
        # `0: ...` is a fine name for a sensor
        return key if isinstance(key, str) else str(node.value)

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text = node.value
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise self.error(node, f"{text!r} holds half a character (a lone surrogate)") from None
        tag = node.tag.removeprefix(_PREFIX)
        try:
            if tag == "str":
                return text
            if tag == "null":
                return None
            if tag == "bool":
                return {"true": True, "false": False}[text.lower()]
            if tag == "int":
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            if tag == "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            raise self.error(node, f"{text[:40]!r} is no {tag}") from None
        raise self.error(node, f"the tag {node.tag!r} is not supported here")


def dump_value(value: Any) -> str:
    """Returns a plain value as one line of YAML."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=2**31, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")
