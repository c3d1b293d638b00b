"""What `gald cost` measures: networks of runs, suites, released code and weights files, or modules on features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from gald import plugins
from gald.datasets import load_spec
from gald.errors import ParamsError
from gald.models import released, weights
from gald.models.block import GlobalThenLocal
from gald.models.segmentor import build_segmentor
from gald.params import Run, find_run, load_suite, suite_names

_POSITIONS = (97, 97)  # of a crop of 769 at output stride 8
_CROP = (769, 769)  # the authors' on Cityscapes, for networks that belong to no recipe here
_CITYSCAPES = 19


class Row(NamedTuple):
    """Something to measure: its name, the shape of its one input without the batch, and how it is built."""

    name: str
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module]


def networks(what: Sequence[str], size: tuple[int, int] | None) -> Iterator[Row]:
    """Each network that is named, once; seeds share theirs.

    Parameters
    ----------
    what : sequence of str
        Weights files, released networks, suites and runs.
    size : (int, int) or None
        Height and width of the image.

    Raises
    ------
    ParamsError
        None of them bears a name.
    ModelError
        A weights file cannot be read.
    """
    rows: dict[str, Row] = {}
    for name in what:
        for row in _named(name, size):
            rows.setdefault(row.name, row)
    yield from rows.values()


def _named(name: str, size: tuple[int, int] | None) -> Iterator[Row]:
    if Path(name).is_file() or Path(name).suffix == ".safetensors":
        described = weights.describe(Path(name))
        yield Row(name, (3, *(size or _CROP)), partial(build_segmentor, described.model, len(described.classes)))
    elif name in released.NETS:
        yield Row(name, (3, *(size or _CROP)), partial(build_segmentor, released.NETS[name].model, _CITYSCAPES))
    elif "/" not in name and name not in suite_names():
        known = [*suite_names(), *released.NETS]
        raise ParamsError(f"no suite, released network or run is called {name!r}; {plugins.nearest(name, known)}")
    else:
        runs = load_suite(name).runs if name in suite_names() else (find_run(name),)
        yield from (_of_run(run, size) for run in runs)


def _of_run(run: Run, size: tuple[int, int] | None) -> Row:
    model = weights.unpretrained(run.params.model.model_dump(mode="json"))  # weights change no figure
    build = partial(build_segmentor, model, len(load_spec(run.dataset, run.params.source).classes))
    return Row(f"{run.scale}/{run.dataset}/{run.row}", (3, *(size or run.params.train.crop_size)), build)


def modules(channels: int, size: tuple[int, int] | None) -> Iterator[Row]:
    """Every aggregation, alone and followed by the affinity distribution, and every distribution."""
    shape = (channels, *(size or _POSITIONS))
    for aggregation in plugins.available("models/aggregation"):
        yield Row(aggregation, shape, partial(GlobalThenLocal, channels, aggregation=aggregation))
        both = partial(GlobalThenLocal, channels, aggregation=aggregation, distribution="affinity")
        yield Row(f"{aggregation}-affinity", shape, both)
    for distribution in plugins.available("models/distribution"):
        if distribution != "none":
            yield Row(distribution, shape, partial(_distribution, channels, distribution))


def _distribution(channels: int, name: str) -> nn.Module:
    """Build a distribution that takes one feature for both."""
    return GlobalThenLocal(channels, aggregation=nn.Identity(), distribution=name)
