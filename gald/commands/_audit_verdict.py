"""The verdict of an audit: whether all is there as published, and what a reader should look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gald.commands._audit_benchmark import Benchmark
from gald.commands._audit_counts import absent_classes, number
from gald.commands._audit_duplicates import Group, NearPairs

_OF_MINIATURES = "; a miniature has no published counts"


@dataclass(frozen=True)
class Verdict:
    """What the top of the page says.

    Attributes
    ----------
    kind : {"higher", "lower", "open"}
        Class of the card in the style sheet: all is well, something is missing, something wants a look.
    sentence : str
        The verdict.
    problems : tuple of str
        What is not as it should be.
    hints : tuple of str
        What is no fault by itself.
    """

    kind: str
    sentence: str
    problems: tuple[str, ...]
    hints: tuple[str, ...]


def judge(benchmark: Benchmark, groups: Sequence[Group], pairs: Sequence[NearPairs]) -> Verdict:
    """Judge a benchmark.

    Parameters
    ----------
    benchmark : Benchmark
    groups : sequence of Group
        Images that are the same.
    pairs : sequence of NearPairs
        Images that look alike.
    """
    missing = [*_counts(benchmark), *_skipped(benchmark), *_sums(benchmark)]
    doubtful = [*_duplicates(groups), *_all_ignored(benchmark)]
    hints = [*_near(pairs), *_absent(benchmark)]
    good = []
    if not benchmark.miniature and not _counts(benchmark):
        good.append("counts as published")
    if not any(group.across for group in groups):
        good.append("no duplicates across splits")
    if not _skipped(benchmark):
        good.append("nothing skipped")
    if not missing and not doubtful:
        sentence = f"Complete: {', '.join(good)}{_OF_MINIATURES * benchmark.miniature}."
        return Verdict("higher", sentence, (), tuple(hints))
    kind, sentence = ("lower", "Not complete.") if missing else ("open", "Complete, with something to look at.")
    rest = [f"As it should be: {', '.join(good)}."] if good else []
    return Verdict(kind, sentence, (*missing, *doubtful), (*hints, *rest))


def count_of(amount: int, word: str, words: str = "") -> str:
    """Spell an amount of things.

    Examples
    --------
    >>> count_of(1, "class", "classes"), count_of(1200, "sample")
    ('1 class', '1,200 samples')
    """
    return f"{number(amount)} {word if amount == 1 else words or word + 's'}"


def _counts(benchmark: Benchmark) -> list[str]:
    found = []
    for split, rows in benchmark.rows.items():
        published = benchmark.manifest["splits"][split]["published"]
        if published is not None and published != len(rows):
            how = "fewer" if len(rows) < published else "more"
            found.append(
                f"{split} holds {count_of(len(rows), 'sample')}, {number(abs(len(rows) - published))} {how} than the "
                f"{number(published)} published."
            )
    return found


def _skipped(benchmark: Benchmark) -> list[str]:
    skipped = {split: len(some) for split, some in benchmark.manifest["skipped"].items() if some}
    if not skipped:
        return []
    by_split = ", ".join(f"{split} {number(amount)}" for split, amount in skipped.items())
    return [f"{count_of(sum(skipped.values()), 'sample')} skipped as unreadable or not as promised ({by_split})."]


def _sums(benchmark: Benchmark) -> list[str]:
    """Hold the counts of the manifest against the sizes in the index, which are counted apart."""
    found = []
    for split in benchmark.labelled:
        counted = benchmark.labelled_pixels(split) + benchmark.manifest["ignored_pixels"][split]
        if counted != benchmark.pixels(split):
            found.append(
                f"{split}: the manifest counts {number(counted)} pixels in its masks, the index "
                f"{number(benchmark.pixels(split))}; `gald prepare` made one of them wrong."
            )
    return found


def _duplicates(groups: Sequence[Group]) -> list[str]:
    found = []
    for across, where in ((True, "in more than one split"), (False, "more than once within a split")):
        amount = sum(group.across == across for group in groups)
        if amount:
            found.append(f"{count_of(amount, 'image')} {'occurs' if amount == 1 else 'occur'} {where}.")
    unlike = sum(not group.same_mask for group in groups)
    if unlike:
        found.append(f"{count_of(unlike, 'repeated image')} with masks that differ.")
    return found


def _all_ignored(benchmark: Benchmark) -> list[str]:
    amount = sum(len(some) for some in benchmark.manifest["all_ignored"].values())
    return [f"{count_of(amount, 'sample')} with nothing but ignored pixels."] if amount else []


def _near(pairs: Sequence[NearPairs]) -> list[str]:
    found = [f"{number(pair.total)} of {pair.first} and {pair.second}" for pair in pairs if pair.total]
    total = sum(pair.total for pair in pairs)
    return [f"{count_of(total, 'near pair')} across splits: {', '.join(found)}."] if found else []


def _absent(benchmark: Benchmark) -> list[str]:
    return [
        f"{count_of(len(names), 'class', 'classes')} never {'occurs' if len(names) == 1 else 'occur'} in "
        f"{' and '.join(splits)}."
        for splits, names in absent_classes(benchmark).items()
    ]
