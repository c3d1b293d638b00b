"""The download stage: archives found, fetched or drawn, verified, and unpacked into ``files``; raw.json last.

``data/raw/<edition>/<dataset>/archives`` keeps what was drawn, downloaded or laid there by hand, ``files`` what was
needed of it. ``files`` takes its name only when it is whole; after that files.sha256, the list whose own digest is that
of the tree, and raw.json are written: a rerun after a kill at any moment starts from what is whole.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gald import paths
from gald.datasets import load_spec
from gald.datasets._spec import DatasetSpec
from gald.download.archives import unpack
from gald.download.fetch import Fetched
from gald.download.gather import gather
from gald.download.space import check_room
from gald.download.unpacked import REMEDY, take
from gald.errors import ArchiveError, DatasetError
from gald.files import LISTING, listing_digest, replaced_folder, sha256, tree_listing, write_json, write_text
from gald.process import locking

_TELL_FROM = 1000
"""Files whose comparison takes more than a moment, and is told."""

_log = logging.getLogger("gald")


class Params(Protocol):
    """What this stage needs of the ``download`` section."""

    @property
    def seed(self) -> int:
        """Seed of the miniatures."""

    def source(self, dataset: str) -> str:
        """Published form that a benchmark is taken from."""


def download(edition: str, dataset: str, params: Params, *, unpacked: Path | None = None) -> Path:
    """Make ``data/raw/<edition>/<dataset>``.

    Parameters
    ----------
    edition : {"mini", "full"}
        Draw the miniature from ``params.seed``, or get the real benchmark.
    dataset : str
        Name of a file in ``gald/datasets``.
    params : Params
        The download section.
    unpacked : Path, optional
        Folder that the archives of the real benchmark were unpacked into, from which its files are taken.

    Returns
    -------
    Path
        The boundary file raw.json. Another process that downloads or prepares the same benchmark is waited for.

    Raises
    ------
    ArchiveError
        An archive is nowhere, damaged, altered or unsafe.
    OSError
        The disk is full or read-only.
    """
    spec = load_spec(dataset, params.source(dataset))
    if edition not in ("mini", "full"):
        raise DatasetError(f"no edition is called {edition!r}; editions are mini and full")
    lock = f"download/{edition}/{dataset}"
    with locking.held(lock, wait_s=math.inf, say=_log.warning), named(paths.raw(edition, dataset)):
        generator = _generator(params.seed) if edition == "mini" else None
        if _is_whole(edition, spec, generator):
            _log.info("%s/%s: already downloaded", edition, dataset)
            return paths.raw_json(edition, dataset)
        paths.raw_json(edition, dataset).unlink(missing_ok=True)  # while files change, nothing vouches for them
        if unpacked is not None:
            return _make(edition, spec, generator, partial(take, spec, unpacked), (str(unpacked), REMEDY))
        fetched = _drawn(spec, params.seed) if edition == "mini" else _fetched(spec)
        origin = ", ".join(str(copy.path) for copy in fetched)
        fill = partial(_unpack_all, edition, spec, fetched)
        return _make(edition, spec, generator, fill, (origin, fetched[0].remedy))


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Let an OSError that names no file, as that of a full disk, name the folder being made."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(folder)
        raise


def _generator(seed: int) -> dict[str, int]:
    from gald.datasets._synthetic import GENERATOR_VERSION

    return {"version": GENERATOR_VERSION, "seed": seed}


def _is_whole(edition: str, spec: DatasetSpec, generator: dict[str, int] | None) -> bool:
    """Whether raw.json is there, was made of the same source or generator, and describes the files now present."""
    boundary = paths.raw_json(edition, spec.name)
    try:
        recorded: dict[str, Any] = json.loads(boundary.read_text())
        made, source = recorded["generator"], recorded["source"]
        tree, count = recorded["tree_sha256"], int(recorded["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False  # absent, damaged, or of an earlier version: made again
    if made != generator or source != spec.source:
        return False
    if count > _TELL_FROM:
        _log.info("%s/%s: comparing %d files with their digest", edition, spec.name, count)
    listing = tree_listing(files(edition, spec.name))
    if tree != listing_digest(listing):
        return False
    _write_listing(edition, spec.name, listing)
    return True


def _write_listing(edition: str, dataset: str, listing: str) -> None:
    """Write the list of files, unless it is there."""
    path = paths.raw(edition, dataset) / LISTING
    if not path.is_file() or path.read_bytes() != listing.encode():
        write_text(path, listing)


def files(edition: str, dataset: str) -> Path:
    """Folder of the unpacked files."""
    return paths.raw(edition, dataset) / "files"


def archives_folder(edition: str, dataset: str) -> Path:
    """Folder of the archives, where a person may lay them by hand."""
    return paths.raw(edition, dataset) / "archives"


def _drawn(spec: DatasetSpec, seed: int) -> list[Fetched]:
    """Draw the miniature's archives."""
    from gald.datasets._writers import draw_archives

    folder = archives_folder("mini", spec.name)
    _log.info("mini/%s: drawing from seed %d", spec.name, seed)
    with replaced_folder(folder) as partial:
        draw_archives(spec.name, partial, seed, source=spec.source)
    drawn = (folder / archive.name for archive in spec.archives)
    return [Fetched(path, "drawn", sha256(path), "run the command again") for path in drawn]


def _fetched(spec: DatasetSpec) -> list[Fetched]:
    """Find or download every archive, once it is certain that the disk holds them and what is in them."""
    folder = archives_folder("full", spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    check_room(spec, folder, files("full", spec.name))
    return gather(spec, folder)


def _unpack_all(edition: str, spec: DatasetSpec, fetched: list[Fetched], target: Path) -> list[dict[str, Any]]:
    """Unpack all archives into one folder; return their entries of raw.json."""
    listed = []
    for archive, copy in zip(spec.archives, fetched, strict=True):
        _log.info("%s/%s: unpacking %s", edition, spec.name, archive.name)
        unpack(copy.path, archive, target, copy.remedy, spec.lookalikes)
        size = copy.path.stat().st_size
        listed.append({"name": archive.name, "sha256": copy.sha256, "bytes": size, "source": copy.source})
    return listed


def _make(
    edition: str,
    spec: DatasetSpec,
    generator: dict[str, int] | None,
    fill: Callable[[Path], list[dict[str, Any]]],
    blame: tuple[str, str],
) -> Path:
    """Fill the folder of files, check its digest if one is known, and write raw.json.

    `blame` is where the files come from, and what to do if they are not the published ones.
    """
    with replaced_folder(files(edition, spec.name)) as folder:
        listed = fill(folder)
        listing = tree_listing(folder)
        tree = listing_digest(listing)
        if edition == "full" and spec.tree_sha256 is not None and tree != spec.tree_sha256:
            origin, remedy = blame
            raise ArchiveError(
                f"{origin}: the unpacked files have digest {tree}, expected {spec.tree_sha256}: not the published "
                f"{spec.title}; {remedy}"
            )
    _write_listing(edition, spec.name, listing)
    boundary = paths.raw_json(edition, spec.name)
    count = listing.count("\n")
    write_json(
        boundary,
        {
            "edition": edition,
            "dataset": spec.name,
            "source": spec.source,
            "archives": listed,
            "tree_sha256": tree,
            "files": count,
            "generator": generator,
        },
    )
    _log.info("%s/%s: %d files, %s", edition, spec.name, count, _licence(edition, spec))
    return boundary


def _licence(edition: str, spec: DatasetSpec) -> str:
    return "drawn here, free of rights" if edition == "mini" else f"licence: {spec.licence}; {spec.terms}"
