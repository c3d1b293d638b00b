"""YAML layers merged into one mapping that remembers which file said what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gald import plugins
from gald.errors import ParamsError


class _UniqueKeyLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """YAML refuses nothing when a key stands twice; the first value would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ParamsError(f"{key_node.start_mark.name}: line {line}: key {key!r} stands twice; keep one")
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a params file whose top level is a mapping.

    Raises
    ------
    ParamsError
        The file is missing, is no valid YAML, holds no mapping, or a key stands twice.
    """
    if not path.parent.is_dir():
        raise ParamsError(f"{path}: no such file; run this in the repository's root")
    if not path.is_file():
        siblings = [other.stem for other in path.parent.glob("*.yaml")]
        raise ParamsError(f"{path}: no such file; {plugins.nearest(path.stem, siblings)}")
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected a mapping of keys at the top, found {type(content).__name__}")
    return content


@dataclass(frozen=True)
class Layer:
    """Part of a params file: where it came from, and what it says.

    Parameters
    ----------
    origin : str
        File and key path of the mapping, as shown in messages.
    values : Mapping
        Nested keys; leaves replace, mappings merge.
    """

    origin: str
    values: Mapping[str, Any]


@dataclass
class Merged:
    """A nested mapping with the origin of every key path."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)

    @classmethod
    def of(cls, layers: list[Layer]) -> Merged:
        """Merge layers, later ones winning.

        A mapping with another ``name`` (another aggregation, say) replaces the one below it whole: options of one
        module mean nothing to the next.
        """
        merged = cls()
        for layer in layers:
            merged._add(merged.values, layer.values, layer.origin, ())
        return merged

    def origin(self, path: tuple[str, ...]) -> str:
        """File and key path that last set `path` or the nearest key above it; empty if none did."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return ""

    def _add(self, below: dict[str, Any], above: Mapping[str, Any], origin: str, path: tuple[str, ...]) -> None:
        for key, value in above.items():
            here = (*path, str(key))
            self.origins[here] = origin
            old = below.get(key)
            if isinstance(value, Mapping) and isinstance(old, dict) and not _renames(old, value):
                self._add(old, value, origin, here)
            elif isinstance(value, Mapping):
                below[key] = {}
                self._add(below[key], value, origin, here)
            else:
                below[key] = value


def _renames(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "name" in new and old.get("name") != new["name"]
