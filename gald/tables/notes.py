"""What a reader must know to read a table's numbers: data, protocol, scores, absent classes, code, determinism."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from gald import paths
from gald.datasets import load_spec
from gald.params import SCORES, Suite, Table
from gald.tables import machine
from gald.tables.content import MEASURES, Line, Measured, sign
from gald.tables.grid import stem

_LISTED = 12  # absent classes named in a note; the miniatures of large benchmarks lack well over a hundred
_LEVELS = {
    "bitwise": "the same code, params and kind of machine train the same weights again, bit for bit",
    "seeded": "only the random draws are the same again",
}
_MEANINGS = {
    "mean_accuracy": "Mean accuracy: mean recall of the classes.",
    "frequency_weighted_iou": "Frequency-weighted IoU: classes weighed by their pixels.",
    "trimap_mean_iou": "Trimap mIoU: of the pixels within that distance of a boundary between classes in the truth "
    "(Kohli, Ladicky and Torr 2009).",
    "boundary_iou": "Boundary IoU: of the bands of that width inside the predicted and the true regions, mean over "
    "classes (Cheng et al. 2021).",
    "boundary_f": "Boundary F-score: of the boundary pixels of a class that lie within that distance of the other "
    "mask's (Csurka et al. 2013); mean over the images that show the class, then over classes.",
    "object_accuracy": "Accuracy by size: share of right pixels of the objects (connected components of a class in "
    "the truth) of a quarter, mean over classes; by area: {edges}.",
    "object_found": "Objects found: share of these objects of which at least half of the pixels are right, mean over "
    "classes.",
    "border_mean_iou": "mIoU by zone of distance to the image's border: up to {border} % of its short side, then "
    "farther inside.",
}


def notes(suite: Suite, table: Table, lines: Sequence[Line]) -> Iterator[str]:
    """List the sentences that stand under a table, its own and those of its comparisons left out."""
    runs = list({run.name: run for line in lines for run in line.runs}.values())
    columns = [column for column in table.columns if column in SCORES]
    if columns:
        yield from _data(runs)
        yield from _protocols(lines)
        yield from _meanings(columns, runs)
    sizes = dict.fromkeys("{}x{}".format(*line.gmacs_size) for line in lines)
    spread_note = " ±: sample standard deviation over n seeds." if columns else ""
    yield f"GMACs: one forward pass at {', '.join(sizes)} (height x width).{spread_note}"
    if any(column in MEASURES for column in table.columns):
        yield from machine.notes(suite.name, lines)
    if columns:
        yield from _absent(runs)
        if suite.edition == "mini":
            yield "Drawn scenes of the miniature edition: no published number can be compared with these."
    yield from _flags(runs)


def _protocols_differ(dataset: str, lines: Iterable[Line]) -> bool:
    """Whether rows of a benchmark were scored by more than one protocol."""
    return len({line.protocol.meaning for line in lines if line.dataset == dataset}) > 1


def _protocols(lines: Sequence[Line]) -> Iterator[str]:
    """Say how the scores came about, and where a column holds scores that came about differently."""
    by_meaning = {line.protocol.meaning: line.protocol for line in reversed(lines)}
    for meaning in dict.fromkeys(line.protocol.meaning for line in lines):
        protocol = by_meaning[meaning]
        where = dict.fromkeys(
            f"{line.title} {line.protocol.split} with {len(line.runs[0].classes)} classes{sign(line, lines)}"
            for line in lines
            if line.protocol.same(protocol)
        )
        text = f"Protocol {protocol.name} ({', '.join(where)}): {protocol.text}."
        yield f"{text} The last iterate is scored, no checkpoint is picked."
    for dataset in dict.fromkeys(line.dataset for line in lines):
        if _protocols_differ(dataset, lines):
            title = load_spec(dataset).title
            yield (
                f"MIXED PROTOCOLS: rows of {title} were scored by different protocols; they are marked, and never "
                "subtracted from each other."
            )


def _meanings(columns: Sequence[str], runs: Sequence[Measured]) -> Iterator[str]:
    """Define the scores that are shown, the well-known ones left out."""
    for name in dict.fromkeys(stem(column) for column in columns):
        if name == "object_accuracy":
            yield _MEANINGS[name].format(edges="; ".join(_edges(runs)))
        elif name == "border_mean_iou":
            from gald.metrics.border import BORDER  # here, because torch comes with it

            yield _MEANINGS[name].format(border=", ".join(f"{100 * share:g}" for share in BORDER))
        elif name in _MEANINGS:
            yield _MEANINGS[name]


def _edges(runs: Sequence[Measured]) -> Iterator[str]:
    for dataset, run in {run.dataset: run for run in reversed(runs)}.items():
        yield f"{load_spec(dataset).title}, up to {', '.join(map(str, run.metrics['area_edges']))} pixels and larger"


def _absent(runs: Sequence[Measured]) -> Iterator[str]:
    """Name the classes that no mask of a split holds."""
    for dataset in dict.fromkeys(run.dataset for run in runs):
        absent = dict.fromkeys(name for run in runs if run.dataset == dataset for name in run.metrics["absent"])
        if absent:
            yield _absent_note(dataset, list(absent), next(run for run in runs if run.dataset == dataset))


def _absent_note(dataset: str, absent: list[str], run: Measured) -> str:
    total = len(run.metrics["per_class"])
    names = ", ".join(absent) if len(absent) <= _LISTED else f"listed in {paths.metrics(run.name)}"
    title = load_spec(dataset).title
    return f"{title}: {len(absent)} of {total} classes are absent from the split and left out of every mean: {names}."


def _data(runs: Sequence[Measured]) -> Iterator[str]:
    """Say which published form of each benchmark was used, and what of it was left out."""
    first = {run.dataset: run for run in reversed(runs)}
    titles = {dataset: load_spec(dataset).title for dataset in dict.fromkeys(run.dataset for run in runs)}
    forms = [f"{title}, {first[name].metrics['source']['about']}" for name, title in titles.items()]
    drawn = ", drawn in the format of" * (runs[0].metrics["edition"] == "mini")
    yield f"Data{drawn}: {'; '.join(forms)}."
    for name, title in titles.items():
        skipped = {split: count for split, count in first[name].metrics["skipped"].items() if count}
        if skipped:
            counts = ", ".join(f"{count} of {split}" for split, count in skipped.items())
            page = paths.audit(first[name].metrics["edition"], name)
            yield f"SKIPPED: {title}: unreadable samples were left out ({counts}); {page} names them."


def _flags(runs: Sequence[Measured]) -> Iterator[str]:
    levels = Counter(str(run.record["determinism"]) for run in runs)
    reached = "; ".join(f"{name} ({n} of {len(runs)} runs), {_LEVELS.get(name, name)}" for name, n in levels.items())
    yield f"Determinism reached in training: {reached}."
    commits = Counter(run.commit for run in runs)
    yield f"Code: commit {', '.join(f'{name} ({n} of {len(runs)} runs)' for name, n in commits.items())}."
    trained = Counter(run.record["code"]["digest"] for run in runs)
    scored = Counter(run.metrics["evaluation_code_digest"] for run in runs)
    for word, codes in (("trained", trained), ("evaluated", scored)):
        if len(codes) > 1:
            listed = ", ".join(f"{name[:12]} ({n} of {len(runs)} runs)" for name, n in codes.items())
            yield f"MIXED CODE: the runs were {word} by different versions of the package: {listed}."
    resumed = [run.name for run in runs if run.record["resumed_from"]]
    if resumed:
        yield f"Stopped and resumed by other code or on another machine: {', '.join(resumed)}."
    other = [run.name for run in runs if not run.params_match]
    if other:
        yield f"OTHER PARAMS: trained or evaluated with other params than the suite asks for now: {', '.join(other)}."
    machines = Counter(f"{run.record['environment']['cpu']}, {run.record['environment']['device']}" for run in runs)
    if len(machines) > 1:
        yield f"Trained on different machines: {'; '.join(machines)}."
