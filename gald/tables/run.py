"""The tables stage: one table of a suite, rendered; its plots go with the start page."""

from __future__ import annotations

import logging

from gald import paths
from gald.files import write_text
from gald.params import Suite
from gald.tables import render
from gald.tables.collect import collect
from gald.tables.page import table_page

LOG = logging.getLogger("gald")


def build_table(suite: Suite, table_name: str) -> None:
    """Write ``reports/<suite>/tables/<table>.{csv,md,tex,html}``.

    Everything is rendered before the first file is written, so that a refused table leaves its old files as they were.

    Parameters
    ----------
    suite : Suite
    table_name : str
        One of the suite's tables.

    Raises
    ------
    StaleMetrics
        A run's metrics are missing, belong to other weights or to another edition of the data.
    ParamsError
        The suite has no such table.
    """
    content = collect(suite, table_name)
    texts = {
        "csv": render.to_csv(content),
        "md": render.to_markdown(content),
        "tex": render.to_latex(content),
        "html": table_page(content),
    }
    for suffix, text in texts.items():
        write_text(paths.table(suite.name, table_name, suffix), text)
    LOG.info("%s", paths.table(suite.name, table_name, "md"))
