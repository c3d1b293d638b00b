"""Modules looked up by file name, their options read from the source without importing torch.

A plugin is a file with a function ``build`` whose keyword-only arguments are its options. Their types say what a value
may be: plain types, ``Literal``, and the bounded ones of `gald.options`. Files that begin with an underscore are
machinery. Validation parses the file, since importing a module of networks would import torch, which takes seconds.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gald.errors import ParamsError

_PACKAGE = Path(__file__).parent
_MOST_LISTED = 12
_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "tuple": tuple, "None": None, "Literal": typing.Literal}


@dataclass(frozen=True)
class Option:
    """One keyword-only argument of a plugin's ``build``: its type and, unless it is required, its default."""

    annotation: Any
    default: Any
    required: bool


class OptionError(ParamsError):
    """An option that a plugin does not have, lacks, or must not have this value."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem)
        self.option = option


def available(kind: str) -> tuple[str, ...]:
    """Names of the plugins of a kind, sorted.

    Parameters
    ----------
    kind : str
        Folder below the package, for example ``models/aggregation``.
    """
    return tuple(sorted(path.stem for path in (_PACKAGE / kind).glob("*.py") if not path.stem.startswith("_")))


def nearest(name: str, known: Iterable[str]) -> str:
    """Spell what would have been right: the nearest known name, and the whole list unless it is long.

    Examples
    --------
    >>> nearest("psq", ["psp", "cgnl"])
    "did you mean 'psp'? known: cgnl, psp"
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1)
    if close and len(names) > _MOST_LISTED:
        return f"did you mean {close[0]!r}?"  # the first dozen of a long list are noise beside it
    listed = names if len(names) <= _MOST_LISTED else [*names[:_MOST_LISTED], f"and {len(names) - _MOST_LISTED} more"]
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {', '.join(listed) or 'none'}"


def check_name(kind: str, name: str) -> None:
    """Refuse a name that no file of the kind bears."""
    if name not in available(kind):
        word = kind.rpartition("/")[2].removesuffix("s")
        raise ParamsError(f"no {word} is called {name!r}; {nearest(name, available(kind))}")


@cache
def signature(kind: str, name: str) -> dict[str, Option]:
    """Options of a plugin, read from the source of its ``build``.

    Raises
    ------
    ParamsError
        No such plugin.
    """
    check_name(kind, name)
    from gald import options as bounded  # with pydantic, which whoever only lists names does without

    tree = ast.parse((_PACKAGE / kind / f"{name}.py").read_text())
    types = _TYPES | vars(bounded)
    build = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build")
    options = {}
    for argument, default in zip(build.args.kwonlyargs, build.args.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{kind}/{name}.py: option {argument.arg} has no type"
        options[argument.arg] = Option(
            annotation=eval(ast.unparse(argument.annotation), {"__builtins__": {}}, types),  # our own source
            default=None if default is None else ast.literal_eval(default),
            required=default is None,
        )
    return options


def checked(kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Hold options against the signature of a plugin's ``build``; return all of them, defaults filled in.

    Parameters
    ----------
    kind, name : str
        The plugin.
    given : mapping of str to value
        Lists pass for tuples, which YAML does not know; no other type passes for another.

    Raises
    ------
    ParamsError
        No such plugin.
    OptionError
        One is unknown, missing, of another type or out of its bounds.
    """
    known = signature(kind, name)
    for key in given:
        if key not in known:
            raise OptionError(key, f"{name!r} has no option {key!r}; {nearest(key, known)}")
    for key, option in known.items():
        if option.required and key not in given:
            raise OptionError(key, f"{name!r} needs the option {key!r}")
    return {key: _checked(key, option, given.get(key, option.default)) for key, option in known.items()}


def _checked(key: str, option: Option, value: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    value = tuple(value) if isinstance(value, list) else value
    try:
        return TypeAdapter(option.annotation).validate_python(value, strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
    choices = [choice for choice in typing.get_args(option.annotation) if isinstance(choice, str)]
    hint = f"; {nearest(value, choices)}" if isinstance(value, str) and choices else ""
    raise OptionError(key, f"found {value!r}; {message[0].lower()}{message[1:]}{hint}")


def load(kind: str, name: str) -> Callable[..., Any]:
    """Import a plugin and return its ``build``."""
    check_name(kind, name)
    module = importlib.import_module(f"gald.{kind.replace('/', '.')}.{name}")
    build: Callable[..., Any] = module.build
    return build
