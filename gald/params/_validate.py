"""Pydantic's findings told as file, key path, what was found, what is allowed, and the nearest valid name."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gald.errors import ParamsError
from gald.plugins import nearest

Model = TypeVar("Model", bound=BaseModel)
_EXPONENT = re.compile(r"[-+]?[\d.]+e[-+]?\d+", re.IGNORECASE)


def validated(model: type[Model], content: dict[str, Any], origin: Callable[[tuple[str, ...]], str]) -> Model:
    """Validate strictly, as JSON: no string passes for a number, and lists become tuples.

    Parameters
    ----------
    model : type of BaseModel
        What `content` must be.
    content : dict
        Nested mapping, as read from YAML.
    origin : callable
        Key path -> the file (and entry) that said it.

    Raises
    ------
    ParamsError
        One line per problem.
    """
    try:
        return model.model_validate_json(json.dumps(content), strict=True)
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):  # a date, say, which YAML knows and JSON does not
            raise ParamsError(f"{origin(())}: {error}") from error
        raise ParamsError("\n".join(_line(model, finding, origin) for finding in _causes(error))) from None


def _causes(error: ValidationError) -> list[dict[str, Any]]:
    """Findings, but for lists that are too short because what they hold was refused, which is told."""
    findings: list[dict[str, Any]] = [dict(finding) for finding in error.errors()]
    refused = {finding["loc"][:-1] for finding in findings}
    return [finding for finding in findings if finding["type"] != "too_short" or finding["loc"] not in refused]


def _line(model: type[BaseModel], finding: dict[str, Any], origin: Callable[[tuple[str, ...]], str]) -> str:
    at = finding.get("ctx", {}).get("at")
    path = tuple(str(part) for part in (*finding["loc"], *([at] if at else [])))
    where = f"{origin(path)}: {'.'.join(path)}".removesuffix(": ")
    kind, value = finding["type"], finding["input"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key; {nearest(path[-1], _fields(model, path[:-1]))}"
    if kind == "missing":
        return f"{where}: this key is missing"
    message = finding["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{where}: {message}"
    hint = ""
    if isinstance(value, str) and kind.startswith(("float", "int")) and _EXPONENT.fullmatch(value):
        hint = " (YAML reads 1e-2 as text: write 0.01 or 1.0e-2)"
    return f"{where}: found {value!r}; {message[0].lower()}{message[1:]}{hint}"


def _fields(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """Keys allowed at a path of nested models."""
    here: Any = model
    for part in path:
        if part.isdigit():  # a place in a list, whose entries were stepped into with its key
            continue
        annotation = here.model_fields[part].annotation if part in getattr(here, "model_fields", {}) else None
        choices = [annotation, *typing.get_args(annotation)]
        here = next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if here is None:
            return []
    return list(here.model_fields)
