"""Modules ``omni``, ``carb`` and ``isaacsim`` of one Isaac Sim version, made from its signatures.

What a version does not have raises as the real one would (``ImportError``, ``AttributeError``, ``TypeError``); what it
has but nothing here models raises ``NotImplementedError``. What the models do is listed with its source in
``behaviours.md``.
"""

from __future__ import annotations

import enum
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.contracts.isaac.behaviours import MODELS
from tests.contracts.isaac.surface import VERSIONS, Entry, signature_of, surface_of
from tests.contracts.isaac.world import Behaviour, World

__all__ = ["VERSIONS", "Behaviour", "Double", "install"]

ROOTS = ("carb", "isaacsim", "omni")
"""Top packages that the doubles take over."""

USERS = ("saccade.kit", "saccade.simulators.isaac_5", "saccade.simulators.isaac_6", "saccade.simulators.isaac_kit")
"""Modules that import one of them when they are loaded."""

_ANNOTATOR_MODULE = "omni.replicator.core (annotator name)"


class Double:
    """One installed version."""

    def __init__(self, version: str, behaviour: Behaviour, without: tuple[str, ...], **world: Any) -> None:
        self.version = version
        self.surface = surface_of(version, without=without)
        self.called: set[str] = set()
        """Qualified names that were called."""
        self.world = World(version, behaviour, **world)
        """What happens behind the interface, and what a test may look at or break."""
        self.world.annotator_names = set(self.surface.modules.get(_ANNOTATOR_MODULE, {}))
        self.world.commands = {
            name.split("'")[1]: entry
            for name, entry in self.surface.modules.get("omni.kit.commands", {}).items()
            if entry.kind == "kit-command"
        }
        self.world.check_arguments = self.check
        self.modules: dict[str, types.ModuleType] = {}
        self.usd_modules: dict[str, types.ModuleType] = {}
        """What Omniverse's USD has beyond ``usd-core``, put into the real package."""
        for name, entries in self.surface.modules.items():
            if " " not in name:
                self._module(name, entries)
        if "isaacsim.simulation_app" in self.modules:
            # The one name that may be imported before the application runs, from the top package.
            self.modules["isaacsim"].SimulationApp = self.modules["isaacsim.simulation_app"].SimulationApp  # type: ignore[attr-defined]

    def check(self, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises as Python does when a call does not fit an entry's signature."""
        signature = signature_of(entry)
        if signature is None:
            return
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{error}. In Isaac Sim {self.version} it is {entry.describe()}") from None
        if entry.keywords is not None:
            variable = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
            extra = set(bound.arguments.get(variable[0], {})) - entry.keywords
            if extra:
                raise TypeError(f"{entry.qualified}: no use of {', '.join(sorted(extra))} was seen; it needs a reason")

    def _package(self, name: str) -> types.ModuleType:
        if name in self.modules:
            return self.modules[name]
        module = types.ModuleType(name)
        module.__path__ = []  # type: ignore[attr-defined]
        (self.usd_modules if name.startswith("pxr.") else self.modules)[name] = module
        surface, version = self.surface, self.version

        def missing(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            raise AttributeError(surface.why_missing(name, attribute) + f" (double of {version})")

        module.__getattr__ = missing  # type: ignore[method-assign]
        parent, _, child = name.rpartition(".")
        if parent and parent != "pxr":
            setattr(self._package(parent), child, module)
        return module

    def _module(self, name: str, entries: dict[str, Entry]) -> None:
        module = self._package(name)
        models = MODELS.get(name, types.SimpleNamespace())
        grouped: dict[str, dict[str, Entry]] = {}
        for qualified, entry in entries.items():
            if entry.kind == "kit-command":
                continue
            top, _, rest = qualified.partition(".")
            grouped.setdefault(top, {})[rest] = entry
        for top, members in grouped.items():
            model = getattr(models, top, None)
            alone = members.get("")
            if alone is not None and len(members) == 1 and alone.kind in ("function", "async", "call"):
                value: Any = self._checked(alone, model, first=(self.world,))
            elif alone is not None and alone.kind.startswith("constant"):
                value = alone.kind.split("'")[1]
            elif all(entry.kind == "attribute" for entry in members.values()):
                value = enum.Enum(top, [(member, i) for i, member in enumerate(members)], module=name)
            else:
                value = self._class(name, top, members, model)
            setattr(module, top, value)

    def _class(self, module: str, name: str, members: dict[str, Entry], model: Any) -> Any:
        namespace: dict[str, Any] = {"__module__": module, "_world": self.world}
        for base in reversed(inspect.getmro(model)[:-1] if model is not None else ()):
            namespace.update(
                (key, value)
                for key, value in vars(base).items()
                if key.startswith("_") and key not in ("__dict__", "__weakref__", "__module__", "__qualname__")
            )
        nested: dict[str, dict[str, Entry]] = {}
        for member, entry in members.items():
            if not member:
                continue
            head, _, rest = member.partition(".")
            if rest:
                nested.setdefault(head, {})[rest] = entry
                continue
            function = inspect.getattr_static(model, member, None) if model is not None else None
            namespace[member] = self._member(entry, function)
        for head, inside in nested.items():
            inner = getattr(model, head, None)
            namespace[head] = property(functools.partial(_inner, self._class(module, head, inside, inner)))
        made = type(name, (), namespace)
        if name[:1].islower():  # a namespace of functions, such as rep.create
            return made()
        return made

    def _member(self, entry: Entry, function: Any) -> Any:
        if entry.kind in ("property", "attribute"):
            return function if isinstance(function, property) else property(_unmodelled(entry))
        bare = function.__func__ if isinstance(function, (classmethod, staticmethod)) else function
        if entry.kind == "classmethod" or (entry.kind == "call" and isinstance(function, classmethod)):
            return classmethod(self._checked(entry, bare, skip=1))
        if entry.kind == "staticmethod":
            return staticmethod(self._checked(entry, bare, first=(self.world,)))
        return self._checked(entry, bare, skip=1)

    def _checked(self, entry: Entry, function: Any, *, skip: int = 0, first: tuple[Any, ...] = ()) -> Any:
        called, world = self.called, self.world

        def call(*args: Any, **kwargs: Any) -> Any:
            if len(args) < skip:
                raise TypeError(f"{entry.qualified}() lacks the object that it belongs to: it is no class method here")
            self.check(entry, args[skip:], kwargs)
            called.add(entry.qualified)
            world.log.append(entry.qualified)
            if function is None:
                _unmodelled(entry)()
            return function(*first, *args, **kwargs)

        call.__name__ = entry.name.rsplit(".", 1)[-1]
        if inspect.iscoroutinefunction(function):

            async def call_async(*args: Any, **kwargs: Any) -> Any:
                return await call(*args, **kwargs)

            return call_async
        return call


def _inner(kind: type, owner: Any) -> Any:
    made = kind.__new__(kind)
    made._owner = owner
    return made


def _unmodelled(entry: Entry) -> Any:
    def refuse(*_: Any) -> Any:
        raise NotImplementedError(f"the double of Isaac Sim does not model {entry.qualified}")

    return refuse


@contextmanager
def install(
    version: str, behaviour: Behaviour | None = None, *, without: tuple[str, ...] = (), **world: Any
) -> Iterator[Double]:
    """Puts the double of ``version`` where ``import omni`` and the like find it, and takes it away again.

    Args:
        version: One of :data:`VERSIONS`.
        behaviour: What it does beyond its interface; ``None`` = as the reference documents.
        without: Qualified names that this version lacks, for negative controls.
        world: More for :class:`tests.contracts.isaac.world.World`.
    """
    double = Double(version, behaviour or Behaviour(), without, **world)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in ROOTS}
    # What imports them when it is loaded is loaded anew inside, and never outlives the double.
    _forget_users()
    sys.modules.update({**double.modules, **double.usd_modules})
    import pxr

    for name, module in double.usd_modules.items():
        setattr(pxr, name.removeprefix("pxr."), module)
    try:
        yield double
    finally:
        double.world.close()
        for name in double.usd_modules:
            delattr(pxr, name.removeprefix("pxr."))
            del sys.modules[name]
        for name in list(sys.modules):
            if name.split(".")[0] in ROOTS:
                del sys.modules[name]
        _forget_users()
        sys.modules.update(before)


def _forget_users() -> None:
    for name in list(sys.modules):
        if not name.startswith(USERS):
            continue
        parent, _, child = name.rpartition(".")
        vars(sys.modules.get(parent, types)).pop(child, None)
        del sys.modules[name]
