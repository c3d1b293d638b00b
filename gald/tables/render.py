"""A table's content as CSV, Markdown, LaTeX and HTML.

Percent exist only here; the CSV keeps fractions, with every seed's own value, so that nobody has to read numbers off
a rounded cell.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields

from gald.params import SCORES
from gald.tables.comparisons import naming, sentence
from gald.tables.content import Content, Line, Machine
from gald.tables.grid import Grid, grid
from gald.tables.statistics import points

_MACHINE = tuple(entry.name for entry in fields(Machine))


def to_csv(content: Content) -> str:
    """Render one line per row and benchmark; scores are fractions, a seed's values are joined by semicolons."""
    header = ["dataset", "row", "label", "edition", "split", "n", "seeds", "parameters", "gmacs", "gmacs_size"]
    for column in content.columns:
        header += [column, f"{column}_deviation", f"{column}_values"]
        header += [f"published_{column}", f"published_{column}_source"]
    header += [*(_MACHINE if content.measures else ()), "protocol", "protocol_text"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for line in content.lines:
        writer.writerow(_csv_cells(content, line))
    return out.getvalue()


def _csv_cells(content: Content, line: Line) -> list[object]:
    cells: list[object] = [line.dataset, line.row, line.label, content.edition, line.protocol.split, len(line.seeds)]
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
    return [*cells, line.protocol.name, line.protocol.text]


def remarks(content: Content) -> list[str]:
    """List what stands under the table besides the main comparison: sources of published numbers, then the notes."""
    cited = [
        f"Published, {line.title}, {line.label}, {SCORES[column]}: {points(reference.value, decimals=2)}; "
        f"{reference.method}; {reference.protocol}; {reference.source}."
        for line in content.lines
        for column, reference in line.published.items()
    ]
    return [*(cited if content.edition == "full" and content.layout == "datasets" else []), *content.notes]


def to_markdown(content: Content) -> str:
    """Render as GitHub-flavoured Markdown with caption, main comparison and notes."""
    laid = grid(content)
    lines = [f"# {content.title}", "", content.caption, ""]
    lines += [_pipes(laid.header), _pipes(["---:" if right else "---" for right in laid.numeric])]
    lines += [_pipes([cell.replace("|", "\\|") for cell in row]) for row in laid.rows]
    if content.comparisons:
        lines += ["", f"Main comparison, {naming(content)}. {content.question}", ""]
        lines += [f"- {sentence(comparison, content)}" for comparison in content.comparisons]
    lines += ["", *(f"- {remark}" for remark in remarks(content))]
    return "\n".join(lines).rstrip() + "\n"


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def aligned(table: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """List the lines of a Markdown table that is also read as it stands, on a terminal.

    Parameters
    ----------
    table : sequence of sequence of str
        Header, then rows.
    left : int
        How many columns begin flush left; the others hold numbers.

    Examples
    --------
    >>> for line in aligned([["row", "n"], ["psp", "12"]]):
    ...     print(line)
    | row |  n |
    |-----|---:|
    | psp | 12 |
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for number, cells in enumerate(table):
        padded = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        yield _pipes(padded)
        if number == 0:
            rules = ["-" * (width + 2) if i < left else "-" * (width + 1) + ":" for i, width in enumerate(widths)]
            yield f"|{'|'.join(rules)}|"


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
    laid = grid(content)
    columns = "".join("r" if right else "l" for right in laid.numeric)
    below = [sentence(comparison, content) for comparison in content.comparisons] + remarks(content)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{tex(content.title)}. {tex(content.caption)}}}",
        f"\\label{{tab:{content.name}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(map(tex, laid.header)) + " \\\\",
        "\\midrule",
    ]
    for begins, row in zip(laid.begins, laid.rows, strict=True):
        lines += ["\\midrule"] if begins else []
        lines.append(" & ".join(map(tex, row)) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}", "\\par\\smallskip\\footnotesize"]
    return "\n".join([*lines, *map(tex, below), "\\end{table}"]) + "\n"


def to_html(content: Content) -> str:
    """Render the bare ``<table>``; the page around it gives it its looks. Everything is escaped."""
    laid = grid(content)
    out = ["<table>", "<thead>", *_group_header(laid), "<tr>"]
    header = laid.header
    for title, _ in laid.groups:  # a group's title stands once, above its columns
        header = [name.removeprefix(f"{title} ") for name in header]
    out += [_cell("th", name, right) for name, right in zip(header, laid.numeric, strict=True)]
    out += ["</tr>", "</thead>", "<tbody>"]
    for begins, row in zip(laid.begins, laid.rows, strict=True):
        out.append('<tr class="first">' if begins else "<tr>")
        out += [_cell("td", cell, right) for cell, right in zip(row, laid.numeric, strict=True)]
        out.append("</tr>")
    return "\n".join([*out, "</tbody>", "</table>"]) + "\n"


def _group_header(laid: Grid) -> list[str]:
    if not laid.groups:
        return []
    titled = ' class="group"'
    cells = [
        f'<th{titled if title else ""} colspan="{width}">{html.escape(title)}</th>' for title, width in laid.groups
    ]
    return ["<tr>", *cells, "</tr>"]


def _cell(tag: str, text: str, right: bool) -> str:
    kind = ' class="number"' if right else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"
