"""What is written of any samples, whatever they are called, is what is read of them; and the same again each time."""

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gald.datasets import load_spec
from gald.datasets._reader import PreparedSplit
from gald.files import sha256
from gald.prepare import journal, manifest
from gald.prepare.convert import Failure, Problem, Record
from gald.prepare.images import KINDS

SPEC = replace(load_spec("camvid"), unlabelled=("test",))
RAW = {
    "tree_sha256": "0" * 64,
    "archives": [{"name": "a.zip", "sha256": "1" * 64, "bytes": 3, "source": "by hand"}],
    "source": "segnet",
}
ROOT = Path("raw/files")

pixels = st.integers(0, 10**9)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=12)
odd = st.sampled_from(["a,b", '"a"', " a ", "é\u2028", "\x85", "\x1c\x0b", "a/b", "-", "null"])


@st.composite
def records(draw: st.DrawFn, split: str, name: str) -> Record:
    """One prepared sample, with a mask where the split has them."""
    labelled = split not in SPEC.unlabelled
    row: dict[str, str | int] = {
        "id": name,
        "image": f"images/{split}/{name}.png",
        "mask": f"masks/{split}/{name}.png" if labelled else "",
        "height": draw(st.integers(1, 5000)),
        "width": draw(st.integers(1, 5000)),
        "image_sha256": draw(digests),
        "mask_sha256": draw(digests) if labelled else "",
        "dhash": draw(digests)[:16],
    }
    counts = draw(st.lists(pixels, min_size=11, max_size=11) | st.just([0] * 11)) if labelled else []
    ignored = draw(st.dictionaries(st.just("Void"), pixels)) if labelled else {}
    kinds = draw(st.lists(st.sampled_from(KINDS), unique=True))
    written = [(draw(pixels), draw(digests)) for _ in range(1 + labelled)]
    return Record(split, row, counts, ignored, kinds, written, [(1, 2)] * len(written))


@st.composite
def failures(draw: st.DrawFn, split: str, name: str) -> Failure:
    """One sample that was left out."""
    problem = Problem(draw(st.sampled_from(["missing mask", "size mismatch"])), ROOT / name, draw(ids))
    return Failure(split, name, (problem,) * draw(st.integers(1, 2)))


@st.composite
def benchmarks(draw: st.DrawFn) -> tuple[dict[str, list[Record]], dict[str, list[Failure]]]:
    """Samples of every split that could be prepared, and samples that could not."""
    made: dict[str, list[Record]] = {}
    failed: dict[str, list[Failure]] = {}
    for split in SPEC.counts:
        names = draw(st.lists(ids | odd, max_size=5, unique=True))
        kept = draw(st.integers(0, len(names)))
        made[split] = [draw(records(split, name)) for name in names[:kept]]
        failed[split] = [draw(failures(split, name)) for name in names[kept:]]
    return made, failed


def by_id(listed: Sequence[Any]) -> list[Any]:
    return sorted(listed, key=lambda one: str(one.row["id"] if isinstance(one, Record) else one.id))


def shuffled(samples: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {split: random.Random(0).sample(listed, len(listed)) for split, listed in samples.items()}


@settings(deadline=None, max_examples=25)
@given(benchmarks(), st.sampled_from(["mini", "full"]))
def test_any_samples_are_read_as_they_were_written(
    samples: tuple[dict[str, list[Record]], dict[str, list[Failure]]], edition: str
) -> None:
    made, failed = samples
    top = manifest.head(SPEC, edition, RAW)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / edition / "camvid"
        manifest.write(folder, top, SPEC, made, failed, ROOT)
        found = PreparedSplit(folder, (), store="files", source="segnet")
        assert {key: found.manifest[key] for key in top} == top
        for split, expected in made.items():
            rows = PreparedSplit(folder, (split,), store="files").rows
            assert rows == [{key: str(value) for key, value in one.row.items()} for one in by_id(expected)]
            entry = found.manifest["splits"][split]
            assert (entry["count"], entry["labelled"]) == (len(expected), split != "test")
            assert entry["published"] == (SPEC.counts[split] if edition == "full" else None)
            labelled = [one for one in expected if one.counts]
            sums = [sum(one.counts[k] for one in labelled) for k in range(11)]
            assert found.manifest["pixel_counts"][split] == sums
            assert found.manifest["ignored_pixels"][split] == sum(one.ignored.get("Void", 0) for one in labelled)
            empty = {one.row["id"] for one in labelled if not any(one.counts)}
            assert set(found.manifest["all_ignored"][split]) == empty
            skipped = found.manifest["skipped"][split]
            assert [one["id"] for one in skipped] == [one.id for one in by_id(failed[split])]
        assert found.manifest["on_error"] == ("skip" if any(failed.values()) else "stop")
        before = sha256(folder / manifest.NAME)
        manifest.write(folder, top, SPEC, shuffled(made), shuffled(failed), ROOT)
        assert sha256(folder / manifest.NAME) == before == found.manifest_sha256


@settings(deadline=None, max_examples=25)
@given(benchmarks())
def test_any_records_come_back_from_the_journal(
    samples: tuple[dict[str, list[Record]], dict[str, list[Failure]]],
) -> None:
    listed = [one for split in samples[0].values() for one in split]
    top = manifest.head(SPEC, "mini", RAW)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with journal.Journal(folder, top) as begun:
            for one in listed:
                begun.append(one)
        with journal.Journal(folder, top) as again:
            assert again.known
            assert [plain(one) for one in again.records] == [plain(one) for one in listed]
        journal.keep(folder, top, listed)
        names = [str(one.row["image"]) for one in listed]
        assert journal.damaged(folder, top, names) == names  # known, and not there
        masks = {one.row["mask_sha256"] for one in listed if any(one.counts) or any(one.ignored.values())}
        assert journal.ignored_shares(folder).keys() == masks


def plain(record: Record) -> dict[str, Any]:
    """A record as JSON keeps it, which has no tuples."""
    return vars(record) | {"written": [list(one) for one in record.written], "raw": [list(one) for one in record.raw]}
