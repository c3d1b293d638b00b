"""How far each benchmark is on this machine, read from boundary files and from what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gald import paths
from gald.datasets._spec import Archive, DatasetSpec, Login
from gald.download.gather import misnamed
from gald.download.glance import mistaken
from gald.download.login import credentials, half_told
from gald.download.part import Part
from gald.download.places import OFFLINE, here, mirrors, offline
from gald.download.run import archives_folder
from gald.download.space import download_size, size, unpacked_size
from gald.files import sha256


class Disk(NamedTuple):
    """Bytes that a benchmark takes with all that is made of it.

    Attributes
    ----------
    archives, unpacked : list of int or None
        Of each archive, as published; None where nothing is.
    prepared : int or None
        Files of its own, since an image that is a link to the raw one takes no room; None until it is prepared.
    packed : int or None
        The packed store, 0 where params ask for none; None as long as nobody knows the images' sizes.
    """

    archives: list[int | None]
    unpacked: list[int | None]
    prepared: int | None
    packed: int | None

    @property
    def parts(self) -> list[int | None]:
        """All summands."""
        return [*self.archives, *self.unpacked, self.prepared, self.packed]

    def __str__(self) -> str:
        """Spell the sum."""
        return total(self.parts)


class Step(NamedTuple):
    """The next command to type, and what it brings or needs."""

    command: str
    why: str


@dataclass(frozen=True)
class State:
    """The real edition of one benchmark on this machine.

    Attributes
    ----------
    spec : DatasetSpec
        In the form that the params ask for.
    packs : bool
        Whether trainings are to read a packed store.
    """

    spec: DatasetSpec
    packs: bool

    @cached_property
    def folder(self) -> Path:
        """Where archives may be laid by hand."""
        return archives_folder("full", self.spec.name)

    @cached_property
    def _raw(self) -> dict[str, Any]:
        return _read(paths.raw_json("full", self.spec.name))

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        return _read(paths.manifest("full", self.spec.name))

    @cached_property
    def mistaken(self) -> dict[str, str]:
        """What lies in the place of archives without being them, by the archives' names."""
        found = {}
        for archive in self.spec.archives:
            copy = here(archive, self.folder)
            what = None if copy is None else mistaken(copy, archive, self.spec)
            if what is not None:
                found[archive.name] = what
        return found

    @cached_property
    def missing(self) -> list[Archive]:
        """Archives of which nothing lies here."""
        return [archive for archive in self.spec.archives if here(archive, self.folder) is None]

    @property
    def is_prepared(self) -> bool:
        """Whether it is prepared from what was downloaded last."""
        raw, manifest = self._raw, self._manifest
        made_of = [(one.get("source"), one.get(key)) for one, key in ((manifest, "raw_sha256"), (raw, "tree_sha256"))]
        return manifest.get("source") == self.spec.source and (not raw or made_of[0] == made_of[1])

    @cached_property
    def is_packed(self) -> bool:
        """Whether there is a packed store of the prepared folder as it is now."""
        recorded = _read(paths.packed_json("full", self.spec.name)).get("manifest_sha256")
        return recorded is not None and recorded == sha256(paths.manifest("full", self.spec.name))

    def words(self) -> str:
        """Say in a few words how far it is."""
        if self.is_prepared:
            return "prepared, packed" if self.is_packed else "prepared"
        if self._manifest.get("source") == self.spec.source:
            return "prepared from older files"
        if self._raw.get("source") == self.spec.source:
            return "downloaded"
        former = self._manifest or self._raw
        if former:
            return f"only {former['source']} is here" if "source" in former else "of an older version"
        return self._archives()

    def _archives(self) -> str:
        total = len(self.spec.archives)
        present = total - len(self.missing) - len(self.mistaken)
        begun = sum(Part(self.folder, archive.name).size for archive in self.spec.archives)
        if not (present or begun or self.mistaken):
            return "missing"
        more = [f", {size(begun)} begun"] * bool(begun) + [f", {len(self.mistaken)} mistaken"] * bool(self.mistaken)
        return f"archives: {present} of {total}{''.join(more)}"

    def step(self) -> Step | None:
        """Return the command to type; None if the benchmark can be trained on as the params ask."""
        name = f"full/{self.spec.name}"
        if self.is_prepared:
            if self.is_packed or not self.packs:
                return None
            store = self.disk().packed
            room = "" if store is None else f" ({size(store)})"
            return Step(
                f"gald pack {name}", f"makes the store that trainings read{room}; without it, files are decoded"
            )
        if self._raw.get("source") == self.spec.source:
            return Step(f"gald prepare {name}", "makes images and masks of what is unpacked")
        return Step(f"gald download {name}", "; ".join([*self._strangers(), *self._wanted()]))

    def _strangers(self) -> list[str]:
        """Say what has to be moved away before a download."""
        folders = [self.folder, *(mirror for mirror in mirrors() if isinstance(mirror, Path))]
        other = misnamed(self.spec, self.folder, [folder for folder in folders if folder.is_dir()])
        return [f"{what}: move it away" for what in (*self.mistaken.values(), *([other] if other else []))]

    def _wanted(self) -> list[str]:
        """Say what a download still needs, and first of whom."""
        missing = [
            archive for archive in self.spec.archives if archive in self.missing or archive.name in self.mistaken
        ]
        if not missing:
            return ["verifies and unpacks the archives that are here"]
        wanted = f"{', '.join(archive.name for archive in missing)} ({total(map(download_size, missing))})"
        closed = next((a.login for a in missing if a.login is not None and credentials(a.login) is None), None)
        if closed is not None:
            return [wanted, f"first {self._enter(closed)}"]
        if not all(archive.urls for archive in missing):
            return [wanted, f"first get it from {missing[0].page} and put it into {self.folder}"]
        return [wanted, *([f"first unset {OFFLINE}"] if offline() else [])]

    def _enter(self, login: Login) -> str:
        half = half_told(login)
        if half is not None:
            return f"set the other one too: {half}"
        user, password = login.variables
        return (
            f"register at {login.register} and set {user} and {password}, or put the archives into {self.folder} "
            "yourself"
        )

    def disk(self) -> Disk:
        """Tell how much room it takes in the end."""
        archives = self.spec.archives
        return Disk(
            [download_size(archive) for archive in archives],
            [unpacked_size(archive, self.folder) for archive in archives],
            _own_bytes(paths.prepared("full", self.spec.name)) if self.is_prepared else None,
            self._packed_bytes() if self.packs else 0,
        )

    def _packed_bytes(self) -> int | None:
        """Bytes of the pixels: by the images' one size, or else as the preparation has counted them."""
        bare = self.spec.unlabelled
        if self.spec.size is not None:
            height, width = self.spec.size
            return height * width * sum((3 if split in bare else 4) * n for split, n in self.spec.counts.items())
        if not self.is_prepared or bare:
            return None
        counts: dict[str, list[int]] = self._manifest.get("pixel_counts", {})
        ignored: dict[str, int] = self._manifest.get("ignored_pixels", {})
        return 4 * (sum(map(sum, counts.values())) + sum(ignored.values()))


def total(sizes: Iterable[int | None]) -> str:
    """Spell a sum of bytes; a plus sign stands for what is not known.

    Examples
    --------
    >>> total([1_300_000_000, None]), total([240_000_000]), total([None])
    ('1.3 GB+', '240 MB', 'unknown')
    """
    listed = list(sizes)
    known = [count for count in listed if count is not None]
    return size(sum(known)) + "+" * (len(known) < len(listed)) if known else "unknown"


def _own_bytes(folder: Path) -> int:
    """Bytes of files that lie in no other folder as well."""
    states = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum(state.st_size for state in states if state.st_nlink == 1)


def _read(path: Path) -> dict[str, Any]:
    """Read a boundary file; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
