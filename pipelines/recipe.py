"""Recipes: the readable lists of a config, `resample(0.75) | shift(0.5)`, as objects of a registry.

    recipe := step | step "|" recipe
    step   := [scope ":"] name [ "(" arguments ")" ]

Arguments are numbers and words, also as `key=value`; nothing is evaluated.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
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
    if not all(parts):
        raise RecipeError(f"{text!r}: an empty step; a step is written as name(number, …), between two |")
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
    make, wanted = registry[name], _usage(name, registry[name])
    try:
        inspect.signature(make).bind(*positional, **keywords)
    except TypeError:
        raise RecipeError(f"{text!r}: write it as {wanted}") from None
    try:
        return Step(make(*positional, **keywords), scope)
    except TypeError:
        raise RecipeError(f"{text!r}: a value of the wrong kind in {wanted}") from None
    except ValueError as error:
        raise RecipeError(f"{text!r}: {error}") from None


def _usage(name: str, make: Callable[..., Any]) -> str:
    """The step and what it takes, as one would type it."""
    parameters = inspect.signature(make).parameters.values()
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return f"{name}({', '.join(map(str, plain))})"


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
    """A finite number or a word, with or without quotes."""
    value = node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
    if isinstance(value, str) or (type(value) in (int, float) and math.isfinite(value)):
        return value
    raise ValueError(f"neither a number nor a word: {value!r}")
