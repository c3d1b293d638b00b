"""Prepared benchmark -> samples: uint8 image and trainId mask, with numpy and Pillow only.

Pixels come from the packed store if there is one of the very same prepared folder, else they are decoded from its
files. They are equal either way, and the index's digests hold for both.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from gald import paths
from gald.datasets._files import FileSamples
from gald.datasets._manifest import parse_manifest
from gald.datasets._packed import Kind, PackedSamples, Pixels, pixels_sha256, read_store
from gald.datasets._samples import Sample, WindowedSample, Windows
from gald.errors import DatasetError
from gald.files import sha256

Store: TypeAlias = Literal["auto", "packed", "files"]

_log = logging.getLogger("gald")


class _Source(Protocol):
    """Where pixels come from: files, or a packed store."""

    def image(self, i: int) -> Pixels: ...

    def windows(self, i: int) -> Windows: ...

    def mask(self, i: int) -> Pixels | None: ...

    def where(self, i: int, kind: Kind) -> str: ...

    def remedy(self) -> str: ...


class PreparedSplit:
    """One or several splits of a prepared benchmark, as a sequence of samples.

    Parameters
    ----------
    folder : Path
        ``data/prepared/<edition>/<dataset>``.
    splits : iterable of str
        Splits, one after another in the order given.
    store : {"auto", "packed", "files"}
        ``auto`` reads ``data/packed/<edition>/<dataset>`` if that was packed from this folder as it is now, else the
        files; the others insist. Arrays from the packed store are views of mapped files: writing into them changes
        what this object yields later, never the disk.
    source : str, optional
        Published form of the benchmark that the folder must be made from; None takes any.

    Attributes
    ----------
    rows : list of dict
        Rows of the splits' indices, see `gald.prepare.index`.
    packed : bool
        Whether the pixels come from the packed store.

    Raises
    ------
    DatasetError
        The folder was not prepared, is of another source, or has no such split; the packed store is damaged, or missing
        although asked for.
    """

    def __init__(
        self, folder: Path, splits: Iterable[str], *, store: Store = "auto", source: str | None = None
    ) -> None:
        self.folder = folder
        if source is not None:
            self._check_source(source)
        self.splits = tuple(splits)
        self.rows: list[dict[str, str]] = []
        self._split_of: list[str] = []
        for split in self.splits:
            rows = self._index(split)
            self.rows += rows
            self._split_of += [split] * len(rows)
        self._store = self._packed(store)
        self.packed = self._store is not None
        self._source: _Source = self._store or FileSamples(folder, self.rows, self._remedy)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The folder's manifest.json."""
        return parse_manifest(self._manifest_bytes, self.folder / "manifest.json", remedy=self._remedy)

    @property
    def manifest_sha256(self) -> str:
        """Digest of the very manifest.json that was read, though another may have taken its place since."""
        return hashlib.sha256(self._manifest_bytes).hexdigest()

    @cached_property
    def _manifest_bytes(self) -> bytes:
        path = self.folder / "manifest.json"
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing; {self._remedy.replace('again', 'first')}") from error

    def _check_source(self, source: str) -> None:
        found, name = self.manifest.get("source"), "/".join(self._name)
        if found != source:
            raise DatasetError(
                f"{self.folder} was prepared from source {found!r}, but the params ask for {source!r}; run `gald "
                f"download {name}` and then `gald prepare {name}`, or set download.sources back in params/base.yaml"
            )

    def _index(self, split: str) -> list[dict[str, str]]:
        known = self.manifest["splits"]
        if split not in known:
            raise DatasetError(f"{self.folder}: no split is called {split!r}; it has {', '.join(known)}")
        path = self.folder / known[split]["index"]
        if not path.is_file() or sha256(path) != known[split]["sha256"]:
            raise DatasetError(f"{path} is not what the manifest beside it promises; {self._remedy}")
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _packed(self, store: Store) -> PackedSamples | None:
        """Open the packed store, unless the files are to be read."""
        if store == "files":
            return None
        name = "/".join(self._name)
        folder = paths.packed(*self._name)
        record = read_store(folder)
        if record is not None and record["manifest_sha256"] == self.manifest_sha256:
            return PackedSamples(folder, self.splits, record)
        problem = "there is no packed store" if record is None else "it was packed from data prepared otherwise"
        if store == "packed":
            raise DatasetError(f"{folder}: {problem}; run `gald pack {name}`")
        if record is not None:
            _log.warning("%s: %s, so files are decoded instead; run `gald pack %s`", folder, problem, name)
        return None

    @property
    def _name(self) -> tuple[str, str]:
        edition, dataset = self.folder.absolute().parts[-2:]
        return edition, dataset

    @property
    def _remedy(self) -> str:
        return f"run `gald prepare {'/'.join(self._name)}` again"

    @property
    def ids(self) -> list[str]:
        """Ids in the order of the samples."""
        return [row["id"] for row in self.rows]

    def size(self, i: int) -> tuple[int, int]:
        """Height and width in pixels of sample `i`, without reading it."""
        return int(self.rows[i]["height"]), int(self.rows[i]["width"])

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    def __getitem__(self, i: int) -> Sample:
        """Read sample `i`.

        Raises
        ------
        DatasetError
            A file is missing or damaged, or the labels of the split are not published.
        """
        return self._labelled(i, self.image(i), self._source.mask(i))

    def windowed(self, i: int) -> WindowedSample:
        """Read sample `i` for a crop: windows of its image are read when they are asked for.

        Raises
        ------
        DatasetError
            As for any sample; of damage to the image, once a window is asked for.
        """
        mask = self._source.mask(i)
        if mask is None:
            raise self._without_labels(self._split_of[i])
        return WindowedSample(self.rows[i]["id"], self._source.windows(i), mask)

    def __iter__(self) -> Iterator[Sample]:
        """Read the samples in order."""
        return (self[i] for i in range(len(self)))

    def image(self, i: int) -> Pixels:
        """Read the image of sample `i` alone, uint8 (h, w, 3), labelled or not.

        Raises
        ------
        DatasetError
            Its file is missing or damaged.
        """
        return self._source.image(i)

    def check_store(self, pulse: Callable[[], None]) -> None:
        """Hold the packed store against its digests, unless that was done before; of files, do nothing.

        Parameters
        ----------
        pulse : callable
            Called every now and then; it may raise to stop.

        Raises
        ------
        DatasetError
            A shard does not hold what was packed; the message names it.
        """
        if self._store is not None:
            self._store.check(pulse)

    def verified(self, i: int) -> Sample:
        """Read sample `i` and compare its pixels with the digests in the index.

        Raises
        ------
        DatasetError
            A file is missing or damaged, pixels are not those that were prepared, or there are no labels.
        """
        return self._labelled(i, *self.verified_pixels(i))

    def verified_pixels(self, i: int) -> tuple[Pixels, Pixels | None]:
        """Read image and mask of sample `i`, the mask None where it is not published, and compare their digests.

        Raises
        ------
        DatasetError
            A file or shard is missing or damaged, or does not hold the pixels that were prepared.
        """
        image, mask = self._source.image(i), self._source.mask(i)
        self._verify(i, "image", image)
        if mask is not None:
            self._verify(i, "mask", mask)
        return image, mask

    def _verify(self, i: int, kind: Kind, pixels: Pixels) -> None:
        found, expected = pixels_sha256(pixels), self.rows[i][f"{kind}_sha256"]
        if pixels.shape[:2] != self.size(i) or found != expected:
            raise DatasetError(
                f"{self._source.where(i, kind)} does not hold the pixels that were prepared (sha256 {found}, the index "
                f"in {self.folder} says {expected}); {self._source.remedy()}"
            )

    def _labelled(self, i: int, image: Pixels, mask: Pixels | None) -> Sample:
        if mask is None:
            raise self._without_labels(self._split_of[i])
        return Sample(self.rows[i]["id"], image, mask)

    @property
    def labelled(self) -> bool:
        """Whether the labels of all the splits are published."""
        return all(self._publishes(split) for split in self.splits)

    def check_labels(self) -> None:
        """Refuse splits without labels, before any of their samples is read.

        Raises
        ------
        DatasetError
            The labels of a split are not published.
        """
        for split in self.splits:
            if not self._publishes(split):
                raise self._without_labels(split)

    def _publishes(self, split: str) -> bool:
        return bool(self.manifest["splits"][split].get("labelled", True))

    def _without_labels(self, split: str) -> DatasetError:
        others = ", ".join(filter(self._publishes, self.manifest["splits"])) or "none"
        return DatasetError(
            f"{self.folder}: the labels of split {split!r} are not published; labelled splits: {others}"
        )
