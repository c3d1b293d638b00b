"""From a protocol's name in a run's params to what it says, read from ``params/protocols.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gald import plugins
from gald.errors import ParamsError
from gald.params._merge import Merged, read_yaml
from gald.params._sections import ProtocolParams
from gald.params._validate import validated


def load_protocol(name: object, crop_size: object, root: Path) -> ProtocolParams:
    """Look a protocol up by name.

    Parameters
    ----------
    name : object
        As the params have it.
    crop_size : object
        The training's (height, width), which a window called ``crop`` stands for.
    root : Path
        Folder of the params.

    Raises
    ------
    ParamsError
        No protocol bears the name, or it says something impossible.
    """
    path = root / "protocols.yaml"
    known = read_yaml(path)
    if not isinstance(name, str) or name not in known:
        raise ParamsError(f"evaluate.protocol: no protocol {name!r} in {path}; {plugins.nearest(str(name), known)}")
    content: dict[str, Any] = {"name": name, **(known[name] or {})}
    if content.get("window") == "crop":
        content["window"] = crop_size
    return validated(ProtocolParams, content, lambda _: f"{path}: {name}")


def resolve_protocol(merged: Merged, root: Path) -> None:
    """Put what a protocol says in the place of its name, in a run's merged params."""
    evaluate = merged.values.get("evaluate", {})
    if isinstance(evaluate, dict) and isinstance(evaluate.get("protocol"), str):
        crop_size = merged.values.get("train", {}).get("crop_size")
        evaluate["protocol"] = load_protocol(evaluate["protocol"], crop_size, root).model_dump(mode="json")
