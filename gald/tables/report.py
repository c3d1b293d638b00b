"""The start page of a suite: tables, plots, classes, pictures, and where every number comes from."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gald import paths
from gald.files import replaced_folder, write_bytes, write_text
from gald.params import Suite
from gald.tables import figures, gallery
from gald.tables.collect import collect
from gald.tables.content import Content, Line, Measured, Protocol
from gald.tables.families import families_svg
from gald.tables.page import page, table_view
from gald.tables.significance import MIN_FLIPS
from gald.tables.statistics import MIN_SEEDS, points, spread

LOG = logging.getLogger("gald")
_OPEN_CLASSES = 20  # longer lists of classes are folded, and all but the first


def build_report(suite: Suite) -> None:
    """Write ``reports/<suite>/index.html`` with its ``figures/`` and ``gallery/``.

    The page is one file with its style inside; it fetches nothing and reads well without any picture.

    Parameters
    ----------
    suite : Suite

    Raises
    ------
    StaleMetrics
        A run's metrics are missing, belong to other weights or to another edition of the data.
    """
    contents = [collect(suite, table.name) for table in suite.tables]
    with replaced_folder(paths.figures(suite.name)) as folder:
        plots = dict(_draw_plots(folder, contents))
    with replaced_folder(paths.gallery(suite.name)) as folder:
        blocks, notes = gallery.draw(folder, contents)
    text = page(
        "index.html.j2",
        suite=suite.name,
        title=suite.title,
        lede=_lede(suite, contents),
        shows=list(_shows(suite, contents)),
        shows_not=list(_shows_not(suite, contents)),
        tables=[{**table_view(content), "plots": plots[content.name]} for content in contents],
        classes=list(_class_blocks(contents)),
        gallery=blocks,
        gallery_notes=notes,
        photographs=suite.edition == "full",
        data=list(_data_views(suite, contents)),
        runs=list(_run_views(suite, contents)),
        environments=list(_environments(contents)),
    )
    write_text(paths.index(suite.name), text)
    LOG.info("%s", paths.index(suite.name))


def _draw_plots(folder: Path, contents: Sequence[Content]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Draw the plots of each table; training losses once, where the first table shows their runs."""
    told: set[str] = set()
    for content in contents:
        plots, runs = [("scores", *_scores_plot(content))], {run.name for run in content.runs}
        if content.columns and not runs <= told:
            text = "Training loss, a line for each run, on a logarithmic scale."
            plots.append(("loss", figures.loss_svg(content), text))
            told |= runs
        shown = []
        for name, drawn, text in plots:
            if drawn is not None:
                write_bytes(folder / f"{content.name}-{name}.svg", drawn)
                shown.append({"file": f"figures/{content.name}-{name}.svg", "text": text})
        yield content.name, shown


def _scores_plot(content: Content) -> tuple[bytes | None, str]:
    if content.layout == "scores":
        return families_svg(content), "Dot: mean over seeds, rows side by side. Bar: one standard deviation each way."
    return figures.scores_svg(content), "Dot: mean over seeds. Bar: one standard deviation each way. Tick: a seed."


def _runs(contents: Iterable[Content]) -> list[Measured]:
    return list({run.name: run for content in contents for run in content.runs}.values())


def _lede(suite: Suite, contents: Sequence[Content]) -> str:
    runs = _runs(contents)
    data = "drawn miniatures of the benchmarks" if suite.edition == "mini" else "the real data"
    datasets = ", ".join(dict.fromkeys(line.title for content in contents for line in content.lines))
    return f"{_count(contents, 'table')} from {_count(runs, 'trained run')} on {data}: {datasets}."


def _count(things: Sequence[object], word: str, words: str = "") -> str:
    return f"{len(things)} {word if len(things) == 1 else words or word + 's'}"


def _seed_count(line: Line) -> int:
    return len(line.seeds)


def _shows(suite: Suite, contents: Sequence[Content]) -> Iterable[str]:
    for content in contents:
        fewest, most = min(content.lines, key=_seed_count).seeds, max(content.lines, key=_seed_count).seeds
        n = _count(most, "seed") if len(fewest) == len(most) else f"{len(fewest)} to {_count(most, 'seed')}"
        yield f"{content.title}: {_count(content.rows, 'row')} on {_count(content.datasets, 'benchmark')}, {n} a row."
    yield "Scores of the last iterate, whole split in one confusion matrix, with parameters and GMACs beside each row."
    if any(content.comparisons for content in contents):
        yield (
            f"A verdict on a named comparison by a 95 % t interval over at least {MIN_SEEDS} paired seeds, and from "
            f"{MIN_FLIPS} seeds on by a sign-flip test too."
        )
    if any(content.others for content in contents):
        yield "Other comparisons of a table with p values corrected among themselves (Holm 1979)."


def _shows_not(suite: Suite, contents: Sequence[Content]) -> Iterable[str]:
    if suite.edition == "mini":
        yield (
            "Anything about photographs. The scenes are drawn: a far cue decides between look-alike classes, and thin "
            "poles and small discs test detail. Only differences between rows mean something, and only for such scenes."
        )
        yield "The paper's numbers: no published number was measured on these scenes."
    else:
        yield "The authors' setting, unless the table says so: backbone, input size and budget are this suite's own."
    if any(len(line.seeds) == 1 for content in contents if content.columns for line in content.lines):
        yield "One seed, no verdict. Rows with a single seed differ by chance as well as by method."
    yield "Differences that no table compares are not tested; a reader who picks the largest will be misled."


def _class_blocks(contents: Sequence[Content]) -> Iterable[dict[str, Any]]:
    """Lay out IoU by class, one block a benchmark, one column a row of any table."""
    lines: dict[str, dict[str, Line]] = {}
    for line in (line for content in contents for line in content.lines):
        columns = lines.setdefault(line.dataset, {})
        known = columns.get(line.row)
        if known is None or len(line.seeds) > len(known.seeds):
            columns[line.row] = line
    for number, columns in enumerate(lines.values()):
        names = list(next(iter(columns.values())).runs[0].classes)
        cells = {name: [_class_cell(line, name) for line in columns.values()] for name in names}
        present = [name for name in names if any(cell["share"] for cell in cells[name])]
        yield {
            "title": next(iter(columns.values())).title,
            "count": _count(names, "class", "classes"),
            "open": number == 0 and len(present) <= _OPEN_CLASSES,
            "labels": [_class_label(line, list(columns.values())) for line in columns.values()],
            "rows": [{"name": name, "cells": cells[name]} for name in present],
            "absent": [name for name in names if name not in present],
        }


def _class_label(line: Line, beside: Sequence[Line]) -> str:
    """Head of a row's column: its seeds and, beside rows that were scored by another protocol, its own."""
    seeds = f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{len(line.seeds)}"
    alike = all(line.protocol.same(other.protocol) for other in beside)
    return f"{line.label} ({seeds}{'' if alike else f'; {line.protocol.text}'})"


def _class_cell(line: Line, name: str) -> dict[str, str]:
    values = [value for run in line.runs if (value := run.classes.get(name)) is not None]
    if not values:
        return {"text": "absent", "share": ""}
    mean = spread(values).mean
    return {"text": points(mean), "share": f"{mean:.2f}"}


def _data_views(suite: Suite, contents: Sequence[Content]) -> Iterable[dict[str, str]]:
    """Name each benchmark's published form, and the page of its audit."""
    first = {run.dataset: run for run in reversed(_runs(contents))}
    for line in {line.dataset: line for content in contents for line in content.lines}.values():
        about = first[line.dataset].metrics["source"]["about"]
        page = _from(suite, paths.audit(suite.edition, line.dataset))
        yield {"title": line.title, "about": about, "page": page, "name": f"{suite.edition}/{line.dataset}"}


def _from(suite: Suite, path: Path) -> str:
    """Path of a file as the start page's links have it."""
    return Path(os.path.relpath(path, paths.reports(suite.name))).as_posix()


def _run_views(suite: Suite, contents: Sequence[Content]) -> Iterable[dict[str, Any]]:
    protocols = {run.name: Protocol.of(run.metrics) for run in _runs(contents)}
    meanings: dict[str, set[str]] = {}
    for run in _runs(contents):
        meanings.setdefault(run.dataset, set()).add(protocols[run.name].meaning)
    for run in _runs(contents):
        record, text = run.record, protocols[run.name].text
        shown = (content.title for content in contents if any(run.name == other.name for other in content.runs))
        score = run.metrics["scores"]["mean_iou"]
        yield {
            "name": run.name,
            "tables": ", ".join(shown),
            "score": ("absent" if score is None else points(score, decimals=2))
            + (f" ({text})" if len(meanings[run.dataset]) > 1 else ""),
            "iterations": record["iterations"],
            "params": run.metrics["params_sha256"][:10],
            "weights": record["weights"]["sha256"][:10],
            "code": record["code"]["digest"][:10],
            "metrics": _from(suite, paths.metrics(run.name)),
        }


def _environments(contents: Sequence[Content]) -> Iterable[dict[str, Any]]:
    """Group the runs by code and machine, so that one card stands for all that were made alike."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for run in _runs(contents):
        machine = run.record["environment"]
        lines: tuple[str, ...] = (
            f"Commit {run.commit}",
            f"torch {machine['torch']}",
            f"{machine['cpu']}, {machine['instruction_set']}",
            f"Device {machine['device']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}",
            f"Repeatable: {run.record['determinism']}",
        )
        groups.setdefault(lines, []).append(run.name)
    for shared, names in groups.items():
        yield {"title": f"How {len(names)} run{'s were' if len(names) > 1 else ' was'} made", "lines": shared}
