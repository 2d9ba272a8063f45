"""A message of every type that the bridge knows, with something in every field."""

from __future__ import annotations

from typing import Any

import numpy as np


def sample(type_name: str, *, seed: int = 0, length: int = 3) -> Any:
    """Returns a message of ``package/msg/Type`` with made-up content, the same for a seed."""
    from saccade.bridge.messages import store

    return _filled(type_name, store(), np.random.default_rng(seed), length)


def _filled(type_name: str, types: Any, random: np.random.Generator, length: int) -> Any:
    _, fields = types.fielddefs[type_name]
    if type_name == "std_msgs/msg/Empty":
        return types.types[type_name](structure_needs_at_least_one_member=0)
    return types.types[type_name](**{name: _value(field, types, random, length) for name, field in fields})


def _value(field: Any, types: Any, random: np.random.Generator, length: int) -> Any:
    from rosbags.interfaces import Nodetype

    kind, content = field
    if kind == Nodetype.BASE:
        return _scalar(content[0], random)
    if kind == Nodetype.NAME:
        return _filled(content, types, random, length)
    element, count = content
    size = count if kind == Nodetype.ARRAY else length
    values = [_value(element, types, random, length) for _ in range(size)]
    if element[0] == Nodetype.BASE and element[1][0] != "string":
        return np.array(values, dtype={"byte": "uint8", "char": "uint8"}.get(element[1][0], element[1][0]))
    return values


def _scalar(name: str, random: np.random.Generator) -> Any:
    if name == "string":
        return "text äöü"[: int(random.integers(0, 9))]
    if name == "bool":
        return bool(random.integers(0, 2))
    if name.startswith("float"):
        return float(np.float32(random.normal()))
    return int(random.integers(0, 100))


def same(one: Any, other: Any) -> bool:
    """Whether two messages agree in every field."""
    if hasattr(one, "__msgtype__"):
        return one.__msgtype__ == other.__msgtype__ and all(
            same(getattr(one, name), getattr(other, name)) for name in vars(one) if not name.startswith("__")
        )
    if isinstance(one, np.ndarray):
        return np.array_equal(one, np.asarray(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other
