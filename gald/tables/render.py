"""A table's content as CSV, Markdown, LaTeX and HTML.

Percent exist only here; the CSV keeps fractions, with every seed's own value, so that nobody has to read numbers off
a rounded cell.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable
from dataclasses import fields

from gald.tables.content import MEASURES, SCORES, Comparison, Content, Line, Machine
from gald.tables.statistics import Spread, points, verdict

NOT_AVAILABLE = "not available"
_MACHINE = tuple(entry.name for entry in fields(Machine))
_TEXT_COLUMNS = ("Benchmark", "Row", "Protocol", "Source and protocol")


def to_csv(content: Content) -> str:
    """Render one line per row and benchmark; scores are fractions, a seed's values are joined by semicolons."""
    header = ["dataset", "row", "label", "edition", "split", "n", "seeds", "parameters", "gmacs", "gmacs_size"]
    for column in content.columns:
        header += [column, f"{column}_deviation", f"{column}_values"]
        header += [f"published_{column}", f"published_{column}_source"]
    header += [*(_MACHINE if content.measures else ()), "protocol"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for line in content.lines:
        writer.writerow(_csv_cells(content, line))
    return out.getvalue()


def _csv_cells(content: Content, line: Line) -> list[object]:
    cells: list[object] = [line.dataset, line.row, line.label, content.edition, line.split, len(line.seeds)]
    cells += [";".join(map(str, line.seeds)), line.parameters, repr(line.gmacs), "x".join(map(str, line.gmacs_size))]
    for column in content.columns:
        whole = line.spreads.get(column)
        values = ";".join(repr(line.scores[column][seed]) for seed in sorted(line.scores[column]))
        deviation = "" if whole is None or whole.deviation is None else repr(whole.deviation)
        cells += ["" if whole is None else repr(whole.mean), deviation, values]
        published = line.published.get(column)
        source = "; ".join((published.method, published.protocol, published.source)) if published else ""
        cells += [repr(published.value) if published else "", source]
    if content.measures:
        cells += ["" if line.machine is None else getattr(line.machine, name) for name in _MACHINE]
    return [*cells, line.protocol]


def score_cell(whole: Spread | None) -> str:
    """Spell a score as percent, mean and sample standard deviation.

    Examples
    --------
    >>> score_cell(Spread(0.61249, 0.0041, 3)), score_cell(Spread(0.5, None, 1)), score_cell(None)
    ('61.2 ± 0.4', '50.0', 'absent')
    """
    if whole is None:
        return "absent"
    return points(whole.mean) + ("" if whole.deviation is None else f" ± {points(whole.deviation)}")


def grid(content: Content) -> tuple[list[str], list[list[str]]]:
    """Lay out header and cells as plain text, the same in every rendered format.

    Returns
    -------
    header : list of str
    rows : list of list of str
        In layout ``rows`` one for each line of the content; in layout ``datasets`` one for each row of the table.
    """
    return _grid_of_datasets(content) if content.layout == "datasets" else _grid_of_rows(content)


def _grid_of_rows(content: Content) -> tuple[list[str], list[list[str]]]:
    several = len(content.datasets) > 1
    protocols = len({(line.dataset, line.protocol) for line in content.lines}) > len(content.datasets)
    full = content.edition == "full"
    cited = [column for column in content.columns if any(column in line.published for line in content.lines)]
    cited = cited or list(content.columns[:1])  # so that a missing number is said to be missing
    header = [*(["Benchmark"] if several else []), "Row", "Parameters (M)", "GMACs"]
    header += [MEASURES[measure] for measure in content.measures]
    scored = bool(
        content.columns
    )  # a table of costs shows no seeds, and how the scores came about is none of its business
    header += [*(SCORES[column] for column in content.columns), *(["n"] if scored else [])]
    header += ["Protocol"] if protocols and scored else []
    for column in cited if full else []:
        header += [f"Published {SCORES[column]}", "Ours - published", "Source and protocol"]
    rows = []
    for line in content.lines:
        cells = [
            *([line.title] if several else []),
            line.label,
            _three_digits(line.parameters / 1e6),
            _three_digits(line.gmacs),
        ]
        cells += [_measure_cell(line.machine, measure) for measure in content.measures]
        cells += [*(score_cell(line.spreads.get(column)) for column in content.columns)]
        cells += [str(len(line.seeds))] if scored else []
        cells += [line.protocol] if protocols and scored else []
        for column in cited if full else []:
            cells += _published_cells(line, column)
        rows.append(cells)
    return header, rows


def _measure_cell(machine: Machine | None, measure: str) -> str:
    if machine is None:
        return "not measured"
    return f"{machine.peak_bytes / 2**20:.1f}" if measure == "peak_memory" else f"{machine.latency_ms:.1f}"


def _published_cells(line: Line, column: str) -> list[str]:
    published, ours = line.published.get(column), line.spreads.get(column)
    if published is None:
        return [NOT_AVAILABLE, "", ""]
    gap = points(ours.mean - published.value, signed=True) if ours else ""
    return [points(published.value, decimals=2), gap, f"{published.method}; {published.protocol}; {published.source}"]


def _grid_of_datasets(content: Content) -> tuple[list[str], list[list[str]]]:
    full = content.edition == "full"
    header = ["Row", "Parameters (M)", "GMACs"]
    for dataset in content.datasets:
        for column in content.columns:
            header += [f"{content.dataset_title(dataset)} {SCORES[column]}", *(["published"] if full else [])]
    rows = []
    for row in content.rows:
        lines = {line.dataset: line for line in content.lines if line.row == row}
        present = list(lines.values())
        cells = [present[0].label, _range(_three_digits(line.parameters / 1e6) for line in present)]
        cells.append(_range(_three_digits(line.gmacs) for line in present))
        for dataset in content.datasets:
            for column in content.columns:
                cells += _dataset_cells(lines.get(dataset), column, full)
        rows.append([*cells, "/".join(dict.fromkeys(str(len(line.seeds)) for line in present))])
    return [*header, "n"], rows


def _dataset_cells(line: Line | None, column: str, full: bool) -> list[str]:
    if line is None:
        return ["not run", *([""] if full else [])]
    published = line.published.get(column)
    ours = score_cell(line.spreads.get(column))
    return [ours, *([points(published.value, decimals=2) if published else NOT_AVAILABLE] if full else [])]


def _range(cells: Iterable[str]) -> str:
    """Join the lowest and the highest of some numbers, or give the one that they all are."""
    known = sorted(set(cells), key=float)
    return known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def remarks(content: Content) -> list[str]:
    """List what stands under the table besides the main comparison: sources of published numbers, then the notes."""
    cited = [
        f"Published, {line.title}, {line.label}, {SCORES[column]}: {points(reference.value, decimals=2)}; "
        f"{reference.method}; {reference.protocol}; {reference.source}."
        for line in content.lines
        for column, reference in line.published.items()
    ]
    return [*(cited if content.edition == "full" and content.layout == "datasets" else []), *content.notes]


def sentence(comparison: Comparison, content: Content) -> str:
    """Say the outcome of a named comparison in one sentence.

    Examples
    --------
    A mean of +2.0 points over three seeds reads ``Cityscapes, mIoU: GA then LD minus GA: +1.0, +2.0, +3.0 (seeds 0,
    1, 2), mean +2.0 points, 95 % t interval -0.48 to +4.48: not distinguishable (the interval covers zero).``
    """
    labels = {(line.dataset, line.row): line.label for line in content.lines}
    candidate, baseline = (labels[comparison.dataset, row] for row in (comparison.candidate, comparison.baseline))
    change = comparison.change
    title = SCORES[comparison.score].removesuffix(" (%)")
    head = f"{content.dataset_title(comparison.dataset)}, {title}: {candidate} minus {baseline}: "
    if change is None:
        return f"{head}{verdict(change)}."
    each = ", ".join(points(value, signed=True) for value in change.values)
    if len(change.seeds) == 1:
        return f"{head}{each} points (seed {change.seeds[0]}); {verdict(change)}."
    text = f"{head}{each} (seeds {', '.join(map(str, change.seeds))}), mean {points(change.mean, signed=True)} points"
    if change.interval is not None:
        low, high = (points(end, signed=True, decimals=2) for end in change.interval)
        text += f", 95 % t interval {low} to {high}"
    return f"{text}: {verdict(change)}."


def to_markdown(content: Content) -> str:
    """Render as GitHub-flavoured Markdown with caption, main comparison and notes."""
    header, rows = grid(content)
    numeric = _numeric(header)
    lines = [f"# {content.title}", "", content.caption, ""]
    lines += [_pipes(header), _pipes(["---:" if right else "---" for right in numeric])]
    lines += [_pipes([cell.replace("|", "\\|") for cell in row]) for row in rows]
    if content.comparisons:
        lines += ["", f"Main comparison, named beforehand. {content.question}", ""]
        lines += [f"- {sentence(comparison, content)}" for comparison in content.comparisons]
    lines += ["", *(f"- {remark}" for remark in remarks(content))]
    return "\n".join(lines).rstrip() + "\n"


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _numeric(header: list[str]) -> list[bool]:
    """Say which columns hold numbers and are set flush right."""
    return [name not in _TEXT_COLUMNS for name in header]


def _group_begins(content: Content) -> list[bool]:
    """Say before which rendered rows a rule separates one benchmark from the next."""
    if content.layout == "datasets":
        return [False for _ in content.rows]
    previous = [content.lines[0].dataset, *(line.dataset for line in content.lines)]
    return [line.dataset != before for line, before in zip(content.lines, previous, strict=False)]


_TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_TEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$"}


def tex(text: str) -> str:
    r"""Escape plain text for LaTeX.

    Examples
    --------
    >>> tex("coco_stuff10k, 5 % ± 1")
    'coco\\_stuff10k, 5 \\% $\\pm$ 1'
    """
    return "".join(_TEX.get(character, character) for character in text)


def to_latex(content: Content) -> str:
    """Render as a ``table`` environment of the booktabs style, notes as a paragraph under it."""
    header, rows = grid(content)
    columns = "".join("r" if right else "l" for right in _numeric(header))
    below = [sentence(comparison, content) for comparison in content.comparisons] + remarks(content)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{tex(content.title)}. {tex(content.caption)}}}",
        f"\\label{{tab:{content.name}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(map(tex, header)) + " \\\\",
        "\\midrule",
    ]
    for begins, row in zip(_group_begins(content), rows, strict=True):
        lines += ["\\midrule"] if begins else []
        lines.append(" & ".join(map(tex, row)) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}", "\\par\\smallskip\\footnotesize"]
    return "\n".join([*lines, *map(tex, below), "\\end{table}"]) + "\n"


def to_html(content: Content) -> str:
    """Render the bare ``<table>``; the page around it gives it its looks. Everything is escaped."""
    header, rows = grid(content)
    numeric = _numeric(header)
    out = ["<table>", "<thead>", *(_group_header(content) if content.layout == "datasets" else []), "<tr>"]
    titles = [content.dataset_title(dataset) + " " for dataset in content.datasets]
    if content.layout == "datasets":  # the benchmark's name stands once, above its columns
        for title in titles:
            header = [name.removeprefix(title) for name in header]
    out += [_cell("th", name, right) for name, right in zip(header, numeric, strict=True)]
    out += ["</tr>", "</thead>", "<tbody>"]
    for begins, row in zip(_group_begins(content), rows, strict=True):
        out.append('<tr class="first">' if begins else "<tr>")
        out += [_cell("td", cell, right) for cell, right in zip(row, numeric, strict=True)]
        out.append("</tr>")
    return "\n".join([*out, "</tbody>", "</table>"]) + "\n"


def _group_header(content: Content) -> list[str]:
    width = len(content.columns) * (2 if content.edition == "full" else 1)
    groups = [
        f'<th class="group" colspan="{width}">{html.escape(content.dataset_title(dataset))}</th>'
        for dataset in content.datasets
    ]
    return ["<tr>", '<th colspan="3"></th>', *groups, "<th></th>", "</tr>"]


def _cell(tag: str, text: str, right: bool) -> str:
    kind = ' class="number"' if right else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"
