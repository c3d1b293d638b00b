"""What a benchmark is: its classes, its raw ids, its splits and archives, and how its native files are read.

One file per benchmark exposes one `DatasetSpec` as ``SPEC``; nothing else in the project tests a dataset's name. Raw
ids become train ids by one lookup table, in which every id that may occur is listed, mapped or ignored by name: an id
that is in neither list is an error, never silently ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets import IGNORE_INDEX
from gald.errors import DatasetError

if TYPE_CHECKING:  # numpy is imported where arrays are made, so that a SPEC is cheap to import
    import numpy as np
    import numpy.typing as npt

UNKNOWN = -1
_MOST_NAMED = 10
"""Entry of the lookup table for a raw id that the benchmark does not define."""


@dataclass(frozen=True)
class ClassInfo:
    """One class: its name, its colour in plots, and the raw ids that mean it."""

    name: str
    colour: tuple[int, int, int]
    raw_ids: tuple[int, ...]


@dataclass(frozen=True)
class Login:
    """The account that a host asks for before it hands out archives; the words themselves are never kept.

    Attributes
    ----------
    title : str
        Name of the host, for messages.
    url : str
        Where user name and password are posted; a redirect is the sign of success.
    register : str
        Where a person gets an account and accepts the terms.
    variables : tuple of str
        Environment variables of user name and password.
    client, author : str
        Name and author of the official client, in whose per-user data folder ``credentials.json`` is looked for.
    """

    title: str
    url: str
    register: str
    variables: tuple[str, str]
    client: str
    author: str


@dataclass(frozen=True)
class Archive:
    """A file the benchmark is published in.

    Attributes
    ----------
    name : str
        File name, in a mirror and in the ``archives`` folder alike.
    urls : tuple of str
        Where it can be had, tried in this order; empty if only a person can get it.
    members : str
        Regular expression that a member's path, after `strip`, must match as a whole to be unpacked.
    strip : str
        Regular expression of the leading part of a member's path to be cut off, for example a top folder.
    digests : mapping from str to str
        Known checksums: algorithm (sha256, sha1 or md5) to hex digits. Empty if none is published.
    size : int or None
        Known size in bytes.
    about : int or None
        Size in bytes as published in words ("11 GB"), where the exact one is not known; never compared with a file.
    unpacked : int or None
        Bytes that unpacking the wanted members takes, roughly, for the check of free disk space before a download.
    page : str
        Where a person gets it, or reads about it.
    login : Login or None
        Account that the host of `urls` asks for.
    """

    name: str
    urls: tuple[str, ...] = ()
    members: str = ".*"
    strip: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    about: int | None = None
    unpacked: int | None = None
    page: str = ""
    login: Login | None = None


@dataclass(frozen=True)
class Terms:
    """What a person accepts or does before the data may be used: a few words, and where the terms can be read.

    Examples
    --------
    >>> str(Terms("for research alone", ("https://example.org/terms",)))
    'for research alone, https://example.org/terms'
    """

    text: str
    urls: tuple[str, ...]

    def __str__(self) -> str:
        """Spell both in one line."""
        return f"{self.text}, {' and '.join(self.urls)}"


@dataclass(frozen=True)
class Lookalike:
    """An archive that people take for the benchmark's own.

    Attributes
    ----------
    pattern : str
        Regular expression that its file name, or the path of one of its members, matches from the start.
    what : str
        What it is, and which archive is meant instead; the end of a message.
    """

    pattern: str
    what: str


@dataclass(frozen=True)
class Submission:
    """What the benchmark's test server takes: a zip of 8-bit PNG masks of raw ids, one for each test image.

    `page` is where it is handed in, `pattern` a regular expression of the stem of an image's name, whose group ``name``
    is the mask's stem, `example` such a stem, and `images` the size of the real test split.
    """

    page: str
    pattern: str
    example: str
    images: int


@dataclass(frozen=True)
class Segment:
    """One entry of a run-length encoded mask: `raw_id` where `counts` says, in a map of (height, width)."""

    raw_id: int
    size: tuple[int, int]
    counts: str


@dataclass(frozen=True)
class RawSample:
    """One image and its annotation as unpacked: a mask file, or segments painted in order on a map of `size`.

    A sample of a split whose labels are not published has no mask.
    """

    id: str
    image: Path
    mask: Path | None
    segments: tuple[Segment, ...] = ()
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """One benchmark, in one of the forms it is published in.

    Attributes
    ----------
    name, title : str
        Name of the file, and as printed.
    source : str
        Name of this form, a value of ``download.sources.<name>``.
    about_source : str
        What this form is, in one line.
    classes : tuple of ClassInfo
        In train id order.
    ignored : mapping from int to str
        Raw ids excluded from loss and metric, with their names.
    train_splits : tuple of str
        Splits the literature trains on for the published number.
    eval_split : str
        Split that number is reported on.
    counts : mapping from str to int
        Samples of each split in the real benchmark; prepare makes every split named here.
    unlabelled : tuple of str
        Those of the splits whose masks are not published.
    size : (int, int) or None
        Height and width of every image, where all are alike.
    archives : tuple of Archive
        What download fetches.
    licence : str
        Its name, in one line.
    terms : Terms
        What a person accepts or does.
    index : callable
        Unpacked folder -> samples of each split. Raises `DatasetError`.
    read_mask : callable
        Sample -> raw ids, an integer array of shape (h, w).
    tree_sha256 : str or None
        Known digest of the unpacked files (`gald.files.tree_digest`).
    lookalikes : tuple of Lookalike
        Archives that must be refused by name.
    submission : Submission or None
        What its test server takes; None where there is no server.
    alternatives : tuple of DatasetSpec
        The other forms it is published in.
    """

    name: str
    title: str
    source: str
    about_source: str
    classes: tuple[ClassInfo, ...]
    ignored: Mapping[int, str]
    train_splits: tuple[str, ...]
    eval_split: str
    counts: Mapping[str, int]
    archives: tuple[Archive, ...]
    licence: str
    terms: Terms
    index: Callable[[Path], dict[str, list[RawSample]]]
    read_mask: Callable[[RawSample], npt.NDArray[np.generic]]
    unlabelled: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    tree_sha256: str | None = None
    lookalikes: tuple[Lookalike, ...] = ()
    submission: Submission | None = None
    alternatives: tuple[DatasetSpec, ...] = ()
    ignore_index: int = IGNORE_INDEX

    @property
    def sources(self) -> dict[str, DatasetSpec]:
        """Every form by name; the one used unless another is asked for comes first."""
        return {spec.source: spec for spec in (self, *self.alternatives)}

    @property
    def labelled(self) -> tuple[str, ...]:
        """Splits that have masks."""
        return tuple(split for split in self.counts if split not in self.unlabelled)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in train id order."""
        return tuple(info.name for info in self.classes)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colours in train id order."""
        return tuple(info.colour for info in self.classes)

    def raw_ids(self) -> npt.NDArray[np.uint16]:
        """Return the raw id of each class in train id order, uint16 (K,).

        Raises
        ------
        DatasetError
            A class stands for several raw ids, of which a prediction cannot tell which is meant.
        """
        import numpy as np

        merged = next((info for info in self.classes if len(info.raw_ids) > 1), None)
        if merged is not None:
            several = ", ".join(map(str, merged.raw_ids[:_MOST_NAMED])) + ", ..." * (len(merged.raw_ids) > _MOST_NAMED)
            raise DatasetError(
                f"{self.name}/{self.source}: class {merged.name} stands for the raw ids {several}, and a prediction "
                "cannot tell which; leave raw ids out, or name another source"
            )
        return np.array([info.raw_ids[0] for info in self.classes], dtype=np.uint16)

    def train_ids(self) -> dict[int, int]:
        """Return the whole map: each defined raw id -> its train id, or `ignore_index`."""
        mapped = {raw: train_id for train_id, info in enumerate(self.classes) for raw in info.raw_ids}
        return mapped | dict.fromkeys(self.ignored, self.ignore_index)

    def lookup(self) -> npt.NDArray[np.int16]:
        """Return the map as a table indexed by raw id; `UNKNOWN` where the benchmark defines no such id.

        Returns
        -------
        ndarray of int16, shape (highest raw id + 1,)
        """
        import numpy as np

        known = self.train_ids()
        table = np.full(max(known) + 1, UNKNOWN, dtype=np.int16)
        table[list(known)] = list(known.values())
        return table
