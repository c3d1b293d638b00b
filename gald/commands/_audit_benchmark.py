"""A prepared benchmark as the audit reads it: its manifest and its indices, checked for what the page needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gald import paths
from gald.datasets import load_spec
from gald.datasets._reader import PreparedSplit
from gald.datasets._spec import DatasetSpec
from gald.errors import DatasetError
from gald.prepare.index import FIELDS
from gald.prepare.journal import ignored_shares

_KEYS = (
    *("edition", "dataset", "source", "about_source", "converter", "raw_sha256", "archives", "classes", "palette"),
    *("ignore_index", "splits", "pixel_counts", "ignored_pixels", "ignored_by_name", "all_ignored", "converted"),
    "skipped",
)


@dataclass(frozen=True)
class Benchmark:
    """One prepared benchmark.

    Attributes
    ----------
    spec : DatasetSpec
        Its file in the package, in the published form that was prepared.
    folder : Path
        ``data/prepared/<edition>/<dataset>``.
    manifest : mapping
        Its manifest.json.
    readers : mapping from str to PreparedSplit
        Samples of each split, in the manifest's order.
    """

    spec: DatasetSpec
    folder: Path
    manifest: Mapping[str, Any]
    readers: Mapping[str, PreparedSplit]

    @cached_property
    def rows(self) -> dict[str, list[dict[str, str]]]:
        """Index rows of each split."""
        return {split: reader.rows for split, reader in self.readers.items()}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.rows)

    @property
    def labelled(self) -> tuple[str, ...]:
        """Splits that have masks."""
        return tuple(split for split in self.rows if self.manifest["splits"][split]["labelled"])

    @property
    def miniature(self) -> bool:
        """Whether it was drawn here instead of downloaded."""
        return bool(self.manifest["edition"] == "mini")

    @cached_property
    def ignored_shares(self) -> dict[str, list[float]]:
        """Share of ignored pixels of each mask of the labelled splits; of one without a record, the mask is read."""
        recorded = ignored_shares(self.folder)
        return {
            split: [
                recorded[row["mask_sha256"]] if row["mask_sha256"] in recorded else self._ignored_share(split, position)
                for position, row in enumerate(self.rows[split])
            ]
            for split in self.labelled
        }

    def _ignored_share(self, split: str, position: int) -> float:
        mask = self.readers[split][position].mask
        return float((mask == self.manifest["ignore_index"]).mean())

    def pixels(self, split: str) -> int:
        """Pixels of all images of a split."""
        return sum(int(row["height"]) * int(row["width"]) for row in self.rows[split])

    def labelled_pixels(self, split: str) -> int:
        """Pixels of a split that bear a class."""
        return sum(self.manifest["pixel_counts"][split])


def read(edition: str, dataset: str) -> Benchmark:
    """Read manifest and indices.

    Parameters
    ----------
    edition : {"mini", "full"}
    dataset : str
        Name of a file in ``gald/datasets``.

    Returns
    -------
    Benchmark

    Raises
    ------
    DatasetError
        The folder was not prepared, is damaged, or is older than what the audit reads.
    """
    spec, folder = load_spec(dataset), paths.prepared(edition, dataset)
    manifest = PreparedSplit(folder, (), store="files").manifest
    readers = {split: PreparedSplit(folder, (split,), store="files") for split in manifest["splits"]}
    rows = [row for reader in readers.values() for row in reader.rows]
    missing = [key for key in _KEYS if key not in manifest]
    missing += [f"labelled of {split}" for split, entry in manifest["splits"].items() if "labelled" not in entry]
    missing += [f"column {name}" for name in FIELDS if any(name not in row for row in rows)]
    if missing:
        raise DatasetError(
            f"{folder} was prepared by an older version: {', '.join(missing)} missing; "
            f"run `gald prepare {edition}/{dataset}` again"
        )
    return Benchmark(spec.sources.get(manifest["source"], spec), folder, manifest, readers)
