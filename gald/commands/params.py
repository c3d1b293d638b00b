"""``gald params``: check a suite, or show a run's merged params."""

from __future__ import annotations

import yaml

from gald.params import find_run, suite_names, validate_suite


def describe(what: str) -> str:
    """Validate a suite and list its runs, or spell a run's merged params as YAML.

    Parameters
    ----------
    what : str
        A suite's or a run's name.

    Raises
    ------
    ParamsError
        The suite or run is unknown or refused.
    """
    if "/" in what or what not in suite_names():
        run = find_run(what)
        text: str = yaml.safe_dump(run.params.model_dump(mode="json"), sort_keys=False)
        return f"# {run.name}, digest {run.digest()[:12]}\n{text}"
    suite = validate_suite(what)
    tables = f"{len(suite.tables)} table{'' if len(suite.tables) == 1 else 's'}"
    lines = [f"{suite.name}: {len(suite.runs)} runs, {tables}; all params are valid"]
    width = max(len(run.name) for run in suite.runs)
    lines += [f"  {run.name:<{width}}  in {', '.join(run.tables)}" for run in suite.runs]
    return "\n".join(lines) + "\n"
