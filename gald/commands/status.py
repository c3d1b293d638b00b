"""`gald status`: every run of a suite and its state, read from the boundary files alone."""

from __future__ import annotations

from gald import paths, progress, provenance
from gald.files import sha256
from gald.params import Run, load_suite
from gald.process import locking

_HEADER = ("run", "state", "mIoU", "tables")


def status(suite: str) -> str:
    """Tell the state of each run of a suite.

    Parameters
    ----------
    suite : str
        Name of a suite.

    Returns
    -------
    str
        One line per run, then what the states ask for, then how far the suite is.

    Raises
    ------
    ParamsError
        The suite does not exist or is invalid.
    """
    loaded = load_suite(suite)
    states = {run.name: state(run) for run in loaded.runs}
    rows = [(run.name, states[run.name], _score(run), ", ".join(run.tables)) for run in loaded.runs]
    found = ", ".join(states.values())
    remedies = [remedy.format(suite=suite) for word, remedy in _REMEDIES.items() if word in found]
    return "\n".join([*_columns([_HEADER, *rows]), "", *remedies, progress.describe(loaded)]) + "\n"


_REMEDIES = {
    "stale": "stale: params or data changed since; the next `snakemake` of the suite redoes these runs",
    "code changed": "code changed: trained by other code of this package, which redoes nothing by itself; "
    "`snakemake {suite} --forcerun runs/<run>/run.json` trains one run and what follows from it again",
    "not trained here": "not trained here: the score came with the repository; `snakemake {suite}` makes it again",
}


def state(run: Run) -> str:
    """Name the state of a run: missing, training, stopped, trained or evaluated, and what is stale about it."""
    record = progress.read_record(paths.run_json(run.name))
    if record is None:
        return _unfinished(run)
    remarks = progress.stale(run, record)
    metrics = progress.read_record(paths.metrics(run.name))
    scored = metrics is not None and metrics.get("run_sha256") == sha256(paths.run_json(run.name))
    if (
        scored
        and metrics is not None
        and metrics.get("evaluate_sha256", run.evaluate_digest()) != run.evaluate_digest()
    ):
        remarks.append("stale evaluate params")
    if metrics is not None and not scored:
        remarks.append("stale metrics")
    if record.get("code", {}).get("digest") != provenance.code_digest():
        remarks.append("code changed since")
    return ", ".join(["evaluated" if scored else "trained", *remarks])


def _unfinished(run: Run) -> str:
    """Tell a run under way from one that was stopped, or was never begun."""
    begun = progress.trace(run).iterations
    if locking.is_held(run.name):
        return f"busy at {begun} of {run.params.train.max_iters}"
    if begun:
        return f"stopped at {begun} of {run.params.train.max_iters}"
    return "not trained here" if paths.metrics(run.name).exists() else "missing"


def _score(run: Run) -> str:
    score = (progress.read_record(paths.metrics(run.name)) or {}).get("scores", {}).get("mean_iou")
    return "" if score is None else f"{100 * score:.1f}"


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
