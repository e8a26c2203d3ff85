"""The models. Each module here that defines a `ModelSpec` is found by itself: no list to add it to."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from difflib import get_close_matches
from functools import cache

from models.spec import ModelSpec
from schemas.errors import DealerIQError

__all__ = ["SpecError", "UnknownModelError", "spec", "specs"]


class UnknownModelError(DealerIQError):
    """No model has that name."""

    remedy = "List the models with `dealeriq models ls`."
    exit_code = 2


class SpecError(DealerIQError):
    """A model's file declares something that cannot be."""

    remedy = "Mend the file in models/specs; its contract is models/spec.py."
    exit_code = 5


@cache
def specs() -> dict[str, ModelSpec]:
    """Return every model by name. Raises SpecError where two have the same."""
    found: dict[str, ModelSpec] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda each: each.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if (
                not issubclass(kind, ModelSpec)
                or inspect.isabstract(kind)
                or kind.__module__ != module.__name__
            ):
                continue
            if kind.name in found:
                raise SpecError(f"two models are called {kind.name}: {found[kind.name]!r} and {kind!r}")
            found[kind.name] = kind()
    return found


def spec(name: str) -> ModelSpec:
    """Return the model of a name. Raises UnknownModelError with a near one."""
    known = specs()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UnknownModelError(f"no model is called {name!r}; {hint}")
    return known[name]
