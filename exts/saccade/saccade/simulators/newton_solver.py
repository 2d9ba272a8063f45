"""Starts Newton's MuJoCo solver without importing the kernels that MuJoCo on the CPU never runs."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

PACKAGE = "mujoco_warp"


class _DeferredPackage(types.ModuleType):
    """Stands for a package: a public name brings in the module that defines it, and no other."""

    def __init__(self, name: str, sources: dict[str, tuple[str, str]]):
        super().__init__(name)
        self._sources = sources

    def __getattr__(self, name: str) -> Any:
        source = self.__dict__.get("_sources", {}).get(name)
        if source is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(source[0]), source[1])
        setattr(self, name, value)
        return value


def defer_mujoco_warp() -> bool:
    """Puts off importing the parts of ``mujoco_warp`` until their names are read.

    The package defines several hundred kernels when it is imported, a fifth of the time to the first frame; Newton
    imports it for either solver, and MuJoCo on the CPU reads only what describes a model. Every public name still
    leads to the same object.

    Returns:
        Whether the import was put off; ``False`` where it happened already, the package is missing, or it does more
        on import than bring in names from its own modules.
    """
    if PACKAGE in sys.modules:
        return False
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return False
    sources = _public_names(Path(spec.origin).read_text(encoding="utf-8"))
    if not sources:
        return False
    module = _DeferredPackage(PACKAGE, sources)
    for name, value in (
        ("__spec__", spec),
        ("__loader__", spec.loader),
        ("__file__", spec.origin),
        ("__package__", PACKAGE),
        ("__path__", spec.submodule_search_locations),
        ("__version__", importlib.metadata.version(PACKAGE)),
    ):
        setattr(module, name, value)
    sys.modules[PACKAGE] = module
    return True


def _public_names(text: str) -> dict[str, tuple[str, str]]:
    """Returns module and name by public name, of a package that only brings in names; else nothing."""
    sources = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith(f"{PACKAGE}."):
            for alias in node.names:
                if alias.name == "*":
                    return {}
                sources[alias.asname or alias.name] = (str(node.module), alias.name)
        elif not (isinstance(node, ast.Try | ast.ImportFrom | ast.Import) or _is_docstring(node)):
            return {}
    return sources


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
