"""Classes with exactly the members, arguments and argument types that one TensorRT release has."""

from __future__ import annotations

import inspect
import operator
from typing import Any

NOTHING = object()


class PybindType(type):
    """As pybind11 does, refuses an object whose base class was not initialized."""

    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        if not made.__dict__.get("_initialized"):
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


class Gated(metaclass=PybindType):
    """Base of every double: public names are those of the release, whatever the model below defines.

    Models keep their own state in names with an underscore. ``_writable`` holds the properties that can be set.
    """

    _api: dict[str, str] = {}
    _native: type | None = None
    _writable: frozenset[str] = frozenset()
    _tensorrt: Any = None
    """The double's state, a :class:`tests.contracts.tensorrt.doubles.TensorRTDouble`."""

    def __init__(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__}: No constructor defined!")

    def __getattribute__(self, name):
        if name.startswith("_"):
            return super().__getattribute__(name)
        kind = type(self)
        if name not in kind._api and not _defined_by_user(self, name):
            raise AttributeError(f"'{kind.__name__}' object has no attribute '{name}'")
        try:
            return super().__getattribute__(name)
        except AttributeError:
            if name not in kind._api:
                raise
        raise NotImplementedError(f"the double of TensorRT does not model {kind.__name__}.{name}")

    def __setattr__(self, name, value):
        kind = type(self)
        if name.startswith("_") or (kind is not kind._native and name not in kind._api):
            object.__setattr__(self, name, value)
        elif name not in kind._api or name not in kind._writable:
            why = "can't set attribute" if name in kind._api else "has no attribute"
            raise AttributeError(f"'{kind.__name__}' object {why} '{name}'")
        else:
            object.__setattr__(self, name, value)


def make(kind: type, **state: Any) -> Any:
    """Returns an object of a class that users cannot construct, with ``state`` in names with an underscore."""
    made = kind.__new__(kind)
    made._initialized = True
    for name, value in state.items():
        object.__setattr__(made, f"_{name}", value)
    return made


def gated_class(name: str, members: dict[str, str], model: type, double: Any) -> type:
    """Returns the class ``name`` of one release: what ``model`` does, of it only what ``members`` lists."""
    namespace: dict[str, Any] = {"_api": members, "_tensorrt": double, "__module__": "tensorrt"}
    for member, text in members.items():
        if text.startswith(f"{member}("):
            function = getattr(model, member, None)
            if function is not None:
                namespace[member] = _checked(member, text, function, double)
    kind = PybindType(name, (model,), namespace)
    kind._native = kind
    return kind


def enumeration(name: str, members: list[str]) -> type:
    """Returns an enumeration as pybind11 makes them: not iterable, convertible to int, comparable to its own kind."""

    def represent(self):
        return f"<{name}.{self.name}: {self.value}>"

    kind = type(
        name,
        (),
        {
            "__int__": lambda self: self.value,
            "__index__": lambda self: self.value,
            "__hash__": lambda self: hash((name, self.value)),
            "__eq__": lambda self, other: type(self) is type(other) and self.value == other.value,
            "__repr__": represent,
            "__module__": "tensorrt",
        },
    )
    values = {}
    for value, member in enumerate(members):
        made = kind()
        made.name, made.value = member, value
        setattr(kind, member, made)
        values[member] = made
    kind.__members__ = values
    return kind


def _defined_by_user(self: Any, name: str) -> bool:
    """Says whether a Python subclass, or an object of one, has a name of its own."""
    kind = type(self)
    if name in self.__dict__:
        return True
    return any(name in base.__dict__ for base in kind.__mro__[: kind.__mro__.index(kind._native)])


def _checked(member: str, text: str, function: Any, double: Any) -> Any:
    """Returns ``function`` behind the arguments that the signature line ``text`` allows."""
    parameters = _parameters(text)
    if parameters is None:
        return function
    signature = inspect.Signature(parameters)

    def call(*args, **kwargs):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{member}(): incompatible function arguments: {error}. It is  {text}") from None
        for argument, value in list(bound.arguments.items())[1:]:
            _check_type(member, argument, signature.parameters[argument].annotation, value, double)
        return function(*args, **kwargs)

    return call


def _parameters(text: str) -> list[inspect.Parameter] | None:
    inside = text[text.index("(") + 1 : text.rindex(")" if "->" not in text else ") ->")]
    if inside.startswith("*"):
        return None
    found = []
    for part in _split(inside):
        name, _, rest = part.partition(":")
        kind, _, default = rest.partition(" = ")
        found.append(
            inspect.Parameter(
                name.strip(),
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=NOTHING if default else inspect.Parameter.empty,
                annotation=kind.strip(),
            )
        )
    return found


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += character in "([<"
        depth -= character in ")]>"
        if character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _check_type(member: str, argument: str, annotation: str, value: Any, double: Any) -> None:
    wanted = getattr(double.module, annotation.rsplit(".", 1)[-1], None)
    if annotation in ("int", "typing.SupportsInt"):
        try:
            operator.index(value)
            fits = True
        except TypeError:
            fits = False
    elif annotation == "str":
        fits = isinstance(value, str)
    elif annotation in ("buffer", "typing_extensions.Buffer"):
        fits = _is_buffer(value)
    elif annotation == "Dims":
        fits = all(isinstance(size, int) for size in value)
    elif isinstance(wanted, type):
        fits = isinstance(value, wanted)
    else:
        fits = True
    if not fits:
        raise TypeError(f"{member}(): incompatible function arguments: {argument} = {value!r} is no {annotation}")


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True
