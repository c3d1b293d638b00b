"""`gald audit`: one page that shows what a prepared benchmark holds, before anything is trained on it.

The page is one file with its style and pictures inside; it fetches nothing. It follows from the prepared folder alone,
so that the same data gives the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gald import paths
from gald.commands import _audit_counts as counts
from gald.commands import _audit_duplicates as duplicates
from gald.commands._audit_benchmark import Benchmark, read
from gald.commands._audit_duplicates import Group, Member, NearPairs
from gald.commands._audit_pictures import Pictures
from gald.commands._audit_verdict import Verdict, count_of, judge
from gald.files import write_text
from gald.tables.page import page

LOG = logging.getLogger("gald")
_MOST_NAMED = 20  # of a long list
_MOST_PAIRS = 40  # near pairs named for each two splits
_PICTURED = 6  # near pairs, and repeated images, that are shown
_OPEN_CLASSES = 25  # more are folded, and so are longer lists of absent ones


def audit(edition: str, dataset: str) -> Path:
    """Write ``reports/datasets/<edition>/<dataset>.html``.

    Parameters
    ----------
    edition : {"mini", "full"}
    dataset : str
        Name of a file in ``gald/datasets``.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DatasetError
        The folder was not prepared, or a file of it is missing or damaged.
    OSError
        The page cannot be written.
    """
    benchmark = read(edition, dataset)
    groups, pairs = duplicates.exact(benchmark.rows), duplicates.near(benchmark.rows, _MOST_PAIRS)
    verdict = judge(benchmark, groups, pairs)
    target = paths.audit(edition, dataset)
    write_text(target, _render(benchmark, groups, pairs, verdict))
    LOG.info("%s: %s", target, verdict.sentence)
    return target


def _render(benchmark: Benchmark, groups: Sequence[Group], pairs: Sequence[NearPairs], verdict: Verdict) -> str:
    pictures = Pictures(benchmark)
    return page(
        "audit.html.j2",
        name=f"{benchmark.manifest['edition']}/{benchmark.manifest['dataset']}",
        title=benchmark.spec.title,
        miniature=benchmark.miniature,
        verdict=verdict,
        facts=list(_facts(benchmark)),
        archives=list(_archives(benchmark)),
        splits=counts.split_rows(benchmark),
        labelled=benchmark.labelled,
        **_classes(benchmark),
        ignored=counts.ignored_rows(benchmark),
        sizes=counts.size_rows(benchmark),
        frequent_sizes=counts.frequent_sizes(benchmark),
        **_oddities(benchmark),
        **_repeated(benchmark, groups, pairs, pictures),
        samples=pictures.samples(),
        legend=pictures.legend(),
        ignored_seen=pictures.ignored_seen,
    )


def _facts(benchmark: Benchmark) -> Iterable[tuple[str, str]]:
    manifest, spec = benchmark.manifest, benchmark.spec
    others = [name for name in spec.sources if name != manifest["source"]]
    yield "Edition", "miniature: drawn scenes in the files of the real one" if benchmark.miniature else "the real one"
    yield "Source", f"{manifest['source']}: {manifest['about_source']}"
    if others:
        yield "Other forms", ", ".join(others)
    yield (
        "Licence",
        f"drawn here, free of rights (the real one: {spec.licence})" if benchmark.miniature else spec.licence,
    )
    if not benchmark.miniature:
        yield "Terms", str(spec.terms)
    yield "Classes", f"{len(manifest['classes'])}, ignored pixels are {manifest['ignore_index']}"
    yield "Converter", f"version {manifest['converter']}"
    yield "Digest of the raw files", manifest["raw_sha256"][:16]


def _archives(benchmark: Benchmark) -> Iterable[dict[str, str]]:
    for archive in benchmark.manifest["archives"]:
        if archive["sha256"] is None:
            yield {"name": archive["name"], "unverified": archive["source"]}
            continue
        size = counts.number(archive["bytes"]) if archive["bytes"] is not None else "–"  # noqa: RUF001
        yield {"name": archive["name"], "sha256": archive["sha256"][:16], "bytes": size}


def _classes(benchmark: Benchmark) -> dict[str, Any]:
    rows = counts.class_rows(benchmark)
    return {
        "classes": rows[:_OPEN_CLASSES],
        "more_classes": rows[_OPEN_CLASSES:],
        "absent": [
            {
                "splits": " and ".join(splits),
                "count": count_of(len(names), "class", "classes"),
                "names": ", ".join(names),
                "folded": len(names) > _OPEN_CLASSES,
            }
            for splits, names in counts.absent_classes(benchmark).items()
        ],
    }


def _oddities(benchmark: Benchmark) -> dict[str, Any]:
    manifest = benchmark.manifest
    return {
        "converted": [
            {"kind": kind, "count": counts.number(entry["count"]), "names": shortened(entry["samples"], entry["count"])}
            for kind, entry in manifest["converted"].items()
            if entry["count"]
        ],
        "all_ignored": {split: shortened(ids, len(ids)) for split, ids in manifest["all_ignored"].items() if ids},
        "skipped": [
            {"split": split, "id": entry["id"], "problem": entry["problem"]}
            for split, entries in manifest["skipped"].items()
            for entry in entries
        ],
    }


def _repeated(
    benchmark: Benchmark, groups: Sequence[Group], pairs: Sequence[NearPairs], pictures: Pictures
) -> dict[str, Any]:
    flat = {split: len(rows) - len(duplicates.hashed(rows)) for split, rows in benchmark.rows.items()}
    found = sorted(
        (bits, number, Member(pair.first, i), Member(pair.second, j))
        for number, pair in enumerate(pairs)
        for bits, i, j in pair.closest
    )
    return {
        "threshold": duplicates.THRESHOLD,
        "groups": [_group(benchmark.rows, group) for group in groups[:_MOST_PAIRS]],
        "group_count": count_of(len(groups), "image"),
        "more_groups": max(0, len(groups) - _MOST_PAIRS),
        "group_pictures": [
            [pictures.thumbnail(member) for member in group.members[:2]] for group in groups[:_PICTURED]
        ],
        "near_counts": [(pair.first, pair.second, counts.number(pair.total)) for pair in pairs],
        "near": [
            {"bits": bits, "members": [_named(benchmark.rows, first), _named(benchmark.rows, second)]}
            for bits, _, first, second in found[:_MOST_PAIRS]
        ],
        "more_near": counts.number(max(0, sum(pair.total for pair in pairs) - len(found[:_MOST_PAIRS]))),
        "near_pictures": [
            {"bits": bits, "shots": [pictures.thumbnail(first), pictures.thumbnail(second)]}
            for bits, _, first, second in found[:_PICTURED]
        ],
        "flat": {split: amount for split, amount in flat.items() if amount},
    }


def _group(rows: Mapping[str, Sequence[Mapping[str, str]]], group: Group) -> dict[str, Any]:
    named = [_named(rows, member) for member in group.members]
    return {
        "where": "across splits" if group.across else "within a split",
        "members": shortened(named, len(named)),
        "masks": "the same" if group.same_mask else "differ",
    }


def _named(rows: Mapping[str, Sequence[Mapping[str, str]]], member: Member) -> str:
    return f"{member.split}: {rows[member.split][member.position]['id']}"


def shortened(names: Sequence[str], total: int) -> str:
    """Name the first of a long list, and say how many more there are.

    Examples
    --------
    >>> shortened(["a", "b"], 5)
    'a, b and 3 more'
    """
    shown = names[:_MOST_NAMED]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {counts.number(more)} more" if more > 0 else "")
