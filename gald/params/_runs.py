"""Runs: a name and the params that decide its numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from gald.errors import ParamsError
from gald.files import canonical_json, digest
from gald.params._run_params import RunParams

BITLESS = ("workers", "log_every", "checkpoint_every", "strict")
"""Keys of the train section that change no bit of the weights: nothing is trained again for them."""


@dataclass(frozen=True)
class Run:
    """One training with its evaluation: a name and the merged, validated params."""

    name: str
    scale: str
    dataset: str
    row: str
    seed: int
    params: RunParams
    tables: tuple[str, ...] = ()

    @cached_property
    def train_json(self) -> str:
        """Canonical JSON of what decides the weights; see `BITLESS`."""
        values = self.params.model_dump(mode="json")
        values["train"] = {key: value for key, value in values["train"].items() if key not in BITLESS}
        return canonical_json({key: values[key] for key in ("edition", "dataset", "source", "model", "train")})

    @cached_property
    def evaluate_json(self) -> str:
        """Canonical JSON of what decides the scores of given weights."""
        return canonical_json(self.params.model_dump(mode="json")["evaluate"])

    def digest(self) -> str:
        """Sha256 of what decides the weights, as 64 hex digits."""
        return digest(self.train_json)

    def evaluate_digest(self) -> str:
        """Sha256 of what decides the scores of given weights."""
        return digest(self.evaluate_json)


class Runs:
    """Runs by name and by params: one name means one set of params, and equal params are one run."""

    def __init__(self) -> None:
        self._by_name: dict[str, Run] = {}
        self._by_params: dict[str, str] = {}

    def add(self, run: Run, table: str) -> Run:
        key = canonical_json(run.params.model_dump(mode="json"))
        name = self._by_params.setdefault(key, run.name)
        known = self._by_name.get(name, run)
        if known.params != run.params:
            raise ParamsError(
                f"tables {', '.join(known.tables)} and {table} both name {run.name!r} with different params; "
                "rename one of the rows"
            )
        if table not in known.tables:
            known = dataclasses.replace(known, tables=(*known.tables, table))
        self._by_name[name] = known
        return known

    def all(self) -> tuple[Run, ...]:
        return tuple(self._by_name.values())
