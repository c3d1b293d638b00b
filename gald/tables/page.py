"""HTML pages from templates: one file each, style inside, nothing fetched from anywhere."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from gald.params import SCORES
from gald.tables import comparisons, render
from gald.tables.content import Comparison, Content
from gald.tables.statistics import points

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = str(resources.files("gald.tables") / "templates")
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def page(template: str, **values: Any) -> str:
    """Fill a template; every value is escaped unless it is markup already.

    Parameters
    ----------
    template : str
        File name among the templates.
    values
        What the template asks for; a missing one is an error.
    """
    from markupsafe import Markup

    style = Markup((resources.files("gald.tables") / "templates" / "style.css").read_text())
    return _environment().get_template(template).render(style=style, **values)


def table_view(content: Content) -> dict[str, Any]:
    """Gather what the templates show of a table."""
    from markupsafe import Markup

    return {
        "name": content.name,
        "title": content.title,
        "caption": content.caption,
        "question": content.question,
        "naming": comparisons.naming(content),
        "html": Markup(render.to_html(content)),  # escaped cell by cell where it is rendered
        "outcomes": [_outcome(comparison, content) for comparison in content.comparisons],
        "notes": render.remarks(content),
    }


def table_page(content: Content) -> str:
    """Render a table as a page of its own."""
    return page("table.html.j2", suite=content.suite, table=table_view(content))


def _outcome(comparison: Comparison, content: Content) -> dict[str, str]:
    change = comparison.change
    kind = "open"
    if change is not None and comparison.distinguishable:
        kind = "higher" if change.mean > 0 else "lower"
    return {
        "score": SCORES[comparison.score].removesuffix(" (%)"),
        "number": "?" if change is None else points(change.mean, signed=True),
        "says": comparisons.says(comparison),
        "kind": kind,
        "sentence": comparisons.sentence(comparison, content),
    }
