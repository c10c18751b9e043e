"""Public module names for OpenTrn's modules: ``import nki`` and its companions, without the SDK.

A finder at the front of ``sys.meta_path`` answers for the roots in ``_ROOTS``. A module found through it is OpenTrn's
own module
object under a second name, imported when first asked for; a root that a really installed package provides is left
alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from opentrn.nki.earlier import MODULES

__all__ = ["install", "uninstall"]

# Public name -> module behind it. The longest match decides; what follows it is the name of a submodule. None is an
# empty
# package, there only to hold others.
_NAMES: dict[str, str | None] = {
    "nki": "opentrn.nki",
    "nki.dtype": "opentrn.nki.language.dtypes",
    "nki_cpu_simulator": None,
    "nki_cpu_simulator.nki": "opentrn.nki",
    "nki_cpu_simulator.nki.dtype": "opentrn.nki.language.dtypes",
    "neuron_dtypes": "opentrn.nki.neuron_dtypes",
    **MODULES,
}
_ROOTS = ("nki", "nki_cpu_simulator", "neuron_dtypes", "neuronxcc")


class _Alias(Loader):
    """Loads a public name by handing out the module behind it."""

    def __init__(self, target: str | None) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> Any:
        if self.target is None:
            module = types.ModuleType(spec.name, "Holds modules of OpenTrn under their public names.")
            module.__path__ = []
            return module
        module = importlib.import_module(self.target)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        if self.target is not None:
            module.__spec__ = self.spec  # the import system put the alias's there


class _Finder(MetaPathFinder):
    """Answers for the roots that were installed."""

    def __init__(self) -> None:
        self.roots: set[str] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.roots:
            return None
        found = _behind(fullname)
        if found is _MISSING:
            raise ModuleNotFoundError(f"No module named {fullname!r} (OpenTrn has no such module)", name=fullname)
        return ModuleSpec(fullname, _Alias(found), is_package=True)


_MISSING = "missing"
_finder = _Finder()


def _behind(name: str) -> str | None:
    """The module behind a public name; None for an empty package."""
    if name in _NAMES:
        return _NAMES[name]
    head, _, tail = name.rpartition(".")
    parent = _behind(head) if head else _MISSING
    if parent is None or parent is _MISSING:
        return _MISSING
    target = f"{parent}.{tail}"
    try:
        return target if importlib.util.find_spec(target) is not None else _MISSING
    except ModuleNotFoundError:
        return _MISSING


def install(force: bool = False) -> list[str]:
    """Make ``nki``, ``neuronxcc.nki`` and their companions importable; returns the names that are now OpenTrn's.

    Args:
        force: also take names that an installed package provides.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    for root in _ROOTS:
        if root in _finder.roots:
            continue
        if _provided(root):
            if not force:
                continue
            for name in [n for n in sys.modules if n == root or n.startswith(f"{root}.")]:
                del sys.modules[name]
        _finder.roots.add(root)
    # Types that NumPy has no name for, before a kernel's test asks for an array of them.
    if "numpy" in sys.modules:
        importlib.import_module("opentrn.nki.host_types")
    return sorted(_finder.roots)


def _provided(root: str) -> bool:
    """Whether somebody else provides the module."""
    if root in sys.modules:
        return True
    try:
        return importlib.util.find_spec(root) is not None
    except (ImportError, ValueError):
        return False


def uninstall() -> None:
    """Take the public names back."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for root in _finder.roots:
        for name in [n for n in sys.modules if n == root or n.startswith(f"{root}.")]:
            del sys.modules[name]
    _finder.roots.clear()
