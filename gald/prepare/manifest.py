"""manifest.json of a prepared benchmark: what it is, where it came from, and digests of its indices, one per split.

It depends on the raw data alone: not on the number of processes, on interruptions, or on what this machine is called.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gald.datasets._spec import DatasetSpec
from gald.files import digest, sha256, write_json, write_text
from gald.prepare import CONVERTER
from gald.prepare.convert import Failure, Record
from gald.prepare.images import KINDS
from gald.prepare.index import read, render
from gald.prepare.journal import damaged

NAME = "manifest.json"
_MOST_NAMED = 1000  # converted samples of a kind that are named; the count tells of all, and the file stays small
_MOST_TOLD = 20

_log = logging.getLogger("gald")


def head(spec: DatasetSpec, edition: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what is known before the first sample is read; two prepares with the same of it make the same.

    Parameters
    ----------
    spec : DatasetSpec
        The benchmark in the form that was downloaded.
    edition : {"mini", "full"}
        Which raw data.
    raw : mapping
        Content of raw.json.
    """
    ids = [[raw_id, train_id, spec.ignored.get(raw_id)] for raw_id, train_id in sorted(spec.train_ids().items())]
    return {
        "edition": edition,
        "dataset": spec.name,
        "source": spec.source,
        "about_source": spec.about_source,
        "converter": CONVERTER,
        "raw_sha256": raw["tree_sha256"],
        "raw_ids_sha256": digest(ids),
        "archives": [_archive(archive) for archive in raw["archives"]],
        "classes": list(spec.class_names),
        "palette": [list(colour) for colour in spec.palette],
        "ignore_index": spec.ignore_index,
    }


def _archive(archive: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what identifies an archive; of one that nobody has verified, what it was taken for."""
    source = ("source",) if archive["sha256"] is None else ()
    return {key: archive[key] for key in ("name", "sha256", "bytes", *source)}


def write(
    folder: Path,
    top: Mapping[str, Any],
    spec: DatasetSpec,
    records: Mapping[str, Sequence[Record]],
    failures: Mapping[str, Sequence[Failure]],
    raw_root: Path,
) -> None:
    """Write the indices, and then the manifest.

    Parameters
    ----------
    folder : Path
        The folder being made.
    top : mapping
        From `head`.
    spec : DatasetSpec
        The same.
    records, failures : mapping from split to sequence
        What was prepared, and what was left out.
    raw_root : Path
        Folder of the raw files; the manifest names them below it.
    """
    splits: dict[str, dict[str, Any]] = {}
    ordered = {split: sorted(records[split], key=lambda record: str(record.row["id"])) for split in spec.counts}
    for split, rows in ordered.items():
        path = folder / f"{split}.csv"
        write_text(path, render(record.row for record in rows))
        splits[split] = {
            "count": len(rows),
            "published": spec.counts[split] if top["edition"] == "full" else None,
            "labelled": split not in spec.unlabelled,
            "index": path.name,
            "sha256": sha256(path),
        }
    skipped = {split: _skipped(failures.get(split, ()), raw_root) for split in spec.counts}
    content = {
        **top,
        "splits": splits,
        **_pixels(spec, ordered),
        "converted": _converted(ordered),
        "on_error": "skip" if any(skipped.values()) else "stop",  # nothing was left out: it is the strict result
        "skipped": skipped,
    }
    write_json(folder / NAME, content)


def is_whole(folder: Path, top: Mapping[str, Any], spec: DatasetSpec, *, may_skip: bool) -> bool:
    """Whether a folder holds what would be made again: head, indices, and every file, by its digest.

    Parameters
    ----------
    folder : Path
        May be absent.
    top : mapping
        From `head`.
    spec : DatasetSpec
        The same.
    may_skip : bool
        Whether samples may have been left out.
    """
    names: list[str] = []
    try:
        manifest = json.loads((folder / NAME).read_bytes())
        if any(manifest[key] != value for key, value in top.items()) or list(manifest["splits"]) != list(spec.counts):
            return False
        if any(manifest["skipped"].values()) and not may_skip:
            return False
        for split, entry in manifest["splits"].items():
            path = folder / entry["index"]
            if entry["labelled"] != (split not in spec.unlabelled) or sha256(path) != entry["sha256"]:
                return False
            names += [row[kind] for row in read(path) for kind in ("image", "mask") if row[kind]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # absent, damaged, or of an earlier version: made again
    spoilt = damaged(folder, top, names)
    if spoilt:
        _log.warning(
            "%s: %d damaged or missing files, made again: %s", folder, len(spoilt), ", ".join(spoilt[:_MOST_TOLD])
        )
    return not spoilt


def left_out(folder: Path) -> int:
    """Count the samples that a whole folder does without."""
    skipped = json.loads((folder / NAME).read_bytes())["skipped"]
    return sum(len(listed) for listed in skipped.values())


def _pixels(spec: DatasetSpec, ordered: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Sum pixels over each split, and name the masks that hold no class at all."""
    counts: dict[str, list[int]] = {}
    ignored: dict[str, int] = {}
    by_name: dict[str, dict[str, int]] = {}
    all_ignored: dict[str, list[str]] = {}
    for split, records in ordered.items():
        labelled = [record for record in records if record.row["mask"]]
        counts[split] = [sum(record.counts[k] for record in labelled) for k in range(len(spec.classes))]
        names = dict.fromkeys(spec.ignored.values())
        sums = {name: sum(record.ignored.get(name, 0) for record in labelled) for name in names}
        by_name[split] = {name: pixels for name, pixels in sums.items() if pixels}
        ignored[split] = sum(by_name[split].values())
        all_ignored[split] = [str(record.row["id"]) for record in labelled if not any(record.counts)]
        if all_ignored[split]:
            named = ", ".join(all_ignored[split][:_MOST_TOLD])
            more = f" and {len(all_ignored[split]) - _MOST_TOLD} more" if len(all_ignored[split]) > _MOST_TOLD else ""
            _log.warning("%s %s: nothing but ignored pixels in %s%s", spec.name, split, named, more)
    return {
        "pixel_counts": counts,
        "ignored_pixels": ignored,
        "ignored_by_name": by_name,
        "all_ignored": all_ignored,
    }


def _converted(ordered: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Name the samples whose image is not the raw file, by what was odd about it."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        samples = [
            f"{split}/{record.row['id']}" for split, rows in ordered.items() for record in rows if kind in record.kinds
        ]
        if samples:
            found[kind] = {"count": len(samples), "samples": samples[:_MOST_NAMED]}
    return found


def _skipped(failures: Sequence[Failure], raw_root: Path) -> list[dict[str, str]]:
    return [
        {"id": failure.id, "problem": "; ".join(map(str, failure.problems)).replace(f"{raw_root}/", "")}
        for failure in sorted(failures, key=lambda failure: failure.id)
    ]
