"""Names of suites, of scales and of runs, and what to say of one that is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gald import paths, plugins
from gald.params._merge import read_yaml


def suite_names(root: Path = paths.PARAMS) -> tuple[str, ...]:
    """Names of all suites, sorted."""
    return tuple(sorted(path.stem for path in (root / "suites").glob("*.yaml")))


def suites_of_scale(scale: str, root: Path = paths.PARAMS) -> Iterator[str]:
    """Names of the suites whose runs live under `scale`; the one of that name first."""
    for name in sorted(suite_names(root), key=lambda name: (name != scale, name)):
        if read_yaml(root / "suites" / f"{name}.yaml").get("scale", name) == scale:
            yield name


def scales(root: Path) -> list[str]:
    """Scales of all suites."""
    return [str(read_yaml(root / "suites" / f"{suite}.yaml").get("scale", suite)) for suite in suite_names(root)]


def no_such_run(name: str, known: Sequence[str], root: Path) -> str:
    """Say what is wrong with a name that none of the `known` runs of its scale has."""
    scale, is_run, _ = name.partition("/")
    if name in suite_names(root):
        return f"{name!r} is a suite: `snakemake {name}` makes its runs, `gald params {name}` lists them; name one"
    if known:
        return f"no run is called {name!r}; {plugins.nearest(name, known)}"
    if not is_run:
        return f"no suite and no run is called {name!r}; {plugins.nearest(name, suite_names(root))}"
    nearest = plugins.nearest(scale, scales(root))
    return f"no run is called {name!r}, since none begins with {scale + '/'!r}; {nearest}"
