"""Makes the worlds known to Gymnasium as soon as somebody uses it: neither it nor PyTorch is imported for that.

A program may import Gymnasium before the engine or after. Before: the worlds are registered at once. After: a finder on
`sys.meta_path` waits for that import, lets the others find it, and registers when it is done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ID = "fairstate/World-v0"
GYMNASIUM = "gymnasium"


def register() -> None:
    """Register `fairstate/World-v0` now. Needs Gymnasium."""
    import gymnasium

    if ID not in gymnasium.registry:
        home = "engine.environments"
        gymnasium.register(ID, entry_point=f"{home}:WorldEnv", vector_entry_point=f"{home}:WorldVectorEnv")


def register_when_used() -> None:
    """Register now if Gymnasium is there already, else when it is imported."""
    if sys.modules.get(GYMNASIUM) is not None:
        register()
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


class _Waiting(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != GYMNASIUM:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def then_register(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = then_register  # type: ignore[method-assign]
        return spec
