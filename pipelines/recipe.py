"""Recipes: the readable lists of a config, `resample(0.75) | shift(0.5)`, as objects of a registry.

    recipe := step | step "|" recipe
    step   := [scope ":"] name [ "(" arguments ")" ]

Arguments are numbers, words, lists of these, and `key=value`, as in Python; nothing is evaluated.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that cannot be read; the message quotes the step and says what would do."""


@dataclass(frozen=True)
class Step(Generic[T]):
    """One entry of a recipe; `scope` is what stood before the colon, or "" ."""

    what: T
    scope: str = ""


def parse(
    text: str, registry: Mapping[str, Callable[..., T]], scopes: Collection[str] = ()
) -> tuple[Step[T], ...]:
    """The steps of `text`, in order; the empty text is the empty recipe. Raises RecipeError."""
    parts = [part.strip() for part in text.split("|")] if text.strip() else []
    return tuple(_step(part, registry, scopes) for part in parts)


def _step(text: str, registry: Mapping[str, Callable[..., T]], scopes: Collection[str]) -> Step[T]:
    scope, colon, call = (part.strip() for part in text.rpartition(":"))
    if colon and scope not in scopes:
        raise RecipeError(f"{text!r}: {scope!r} is none of {', '.join(scopes) or 'no scope'}")
    name, positional, keywords = _call(call)
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(registry)}"
        raise RecipeError(f"{text!r}: unknown step {name!r}; {hint}")
    try:
        return Step(registry[name](*positional, **keywords), scope)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{text!r}: {str(error).replace('__init__()', name)}") from None


def _call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, arguments and keywords of `name` or `name(…)`."""
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, [], {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            keywords = {str(k.arg): _value(k.value) for k in node.keywords}
            return node.func.id, [_value(argument) for argument in node.args], keywords
    except (SyntaxError, ValueError):
        pass
    raise RecipeError(f"{text!r}: a step is written as name(number, …), such as shift(0.5)")


def _value(node: ast.expr) -> Any:
    """A literal; a bare word stands for itself."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
