"""`gald cost`: what networks and modules cost, counted, and measured on this machine.

Parameters and GMACs are counts and equal everywhere, see `gald.evaluate.cost.Cost`. Peak memory and latency are this
machine's, which is why the report begins with it.
"""

from __future__ import annotations

import csv as csv_format
import io
import logging
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from gald import files, plugins
from gald.datasets import load_spec
from gald.errors import GaldError, ModelError, ParamsError
from gald.evaluate import cost as measuring
from gald.memory import is_out_of_memory
from gald.models.block import GlobalThenLocal
from gald.models.segmentor import build_segmentor
from gald.models.weights import unpretrained
from gald.params import Run, find_run, load_suite, suite_names
from gald.provenance import cpu_name
from gald.tables.render import aligned
from gald.threads import torch_threads

_LOG = logging.getLogger("gald.cost")
_WARM_UP = 2
_COLUMNS = 90  # of the report's running text
_POSITIONS = (97, 97)  # of a crop of 769 at output stride 8
_DISTRIBUTIONS = ("none", "affinity")
FIELDS = (
    *("row", "input", "parameters", "macs", "peak_bytes", "latency_ms", "latency_min_ms", "latency_max_ms"),
    *("device", "dtype", "threads", "runs", "torch"),
)
"""Columns of the CSV file."""


class _Row(NamedTuple):
    """Something to measure: its name, the shape of its one input without the batch, and how it is built."""

    name: str
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module]


class _Figures(NamedTuple):
    row: _Row
    parameters: int
    macs: int
    taken: measuring.Pass


def cost(
    what: Sequence[str] = (),
    *,
    size: tuple[int, int] | None = None,
    channels: int = 512,
    device: str = "cpu",
    threads: int = 1,
    runs: int = 5,
    csv: Path | None = None,
) -> str:
    """Count and measure one forward pass of networks, or of every global aggregation without and with affinity.

    Parameters
    ----------
    what : sequence of str
        Runs, or suites, of which each row is measured once whatever its seeds. None at all means every aggregation, and
        each followed by the affinity distribution, on features alone.
    size : (int, int), optional
        Height and width: of the image for networks, whose crop size is the default; in positions for modules, 97x97.
    channels : int
        Channels of the modules' features.
    device : {"cpu", "cuda"}
    threads : int
        Of the CPU.
    runs : int
        Timed passes, after two to warm up.
    csv : Path, optional
        Where to write the figures as well, unrounded.

    Returns
    -------
    str
        Markdown: how it was measured, then a table.

    Raises
    ------
    ParamsError
        An unknown run or suite, a number below 1, or no CUDA device.
    ModelError
        A network or module refuses the size or the channels.
    GaldError
        Memory runs out; the message names the row.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ParamsError("--device is 'cuda', but torch finds no CUDA device; leave it out")
    if min(*(size or (1, 1)), channels, threads, runs) < 1:
        raise ParamsError(f"size {size}, channels {channels}, threads {threads}, runs {runs}: each must be 1 or more")
    rows = list(_networks(what, size)) if what else list(_modules(channels, size or _POSITIONS))
    with torch_threads(threads):
        figures = []
        for number, row in enumerate(rows, 1):
            figures.append(_measured(row, device, runs))
            _LOG.info("%d of %d: %s", number, len(rows), row.name)
    machine = {"device": _device_name(device), "dtype": "float32", "threads": threads, "runs": runs}
    machine["torch"] = torch.__version__
    if csv is not None:
        files.write_text(csv, _csv(figures, machine))
    return _markdown(figures, machine)


def _networks(what: Sequence[str], size: tuple[int, int] | None) -> Iterator[_Row]:
    """Each row of the runs and suites once; seeds share their network."""
    runs = [run for name in what for run in (load_suite(name).runs if name in suite_names() else (find_run(name),))]
    rows: dict[str, Run] = {}
    for run in runs:
        rows.setdefault(f"{run.scale}/{run.dataset}/{run.row}", run)
    for name, run in rows.items():
        yield _Row(name, (3, *(size or run.params.train.crop_size)), _network(run))


def _network(run: Run) -> Callable[[], nn.Module]:
    params = unpretrained(run.params.model.model_dump(mode="json"))  # weights change no figure
    return lambda: build_segmentor(params, len(load_spec(run.dataset, run.params.source).classes))


def _modules(channels: int, size: tuple[int, int]) -> Iterator[_Row]:
    """Every aggregation alone, and followed by the affinity distribution."""
    for aggregation in plugins.available("models/aggregation"):
        for distribution in _DISTRIBUTIONS:
            name = aggregation if distribution == "none" else f"{aggregation}-{distribution}"
            yield _Row(name, (channels, *size), _block(channels, aggregation, distribution))


def _block(channels: int, aggregation: str, distribution: str) -> Callable[[], nn.Module]:
    return lambda: GlobalThenLocal(channels, aggregation=aggregation, distribution=distribution)


def _measured(row: _Row, device: str, runs: int) -> _Figures:
    try:
        module = row.build().eval().to(device)
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch: 4-d only
        image = torch.rand(1, *row.shape, generator=torch.Generator().manual_seed(0)).to(device)
        image = image.contiguous(memory_format=torch.channels_last)  # as the images of `gald.inference.as_input`
        parameters = measuring.parameters(module)
        return _Figures(
            row,
            parameters,
            measuring.macs(module, image),
            measuring.measure(module, image, warm_up=_WARM_UP, runs=runs),
        )
    except ModelError as error:
        raise ModelError(f"{row.name}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        text = f"{row.name}: an input of {_size(row)} takes more memory than there is; give a smaller size"
        raise GaldError(text) from error


def _size(row: _Row) -> str:
    channels, height, width = row.shape
    return f"{channels}x{height}x{width}"


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"


def _markdown(figures: Sequence[_Figures], machine: dict[str, object]) -> str:
    """Spell the figures as a Markdown table that is aligned where it is read as it stands, on a terminal."""
    sizes = list(dict.fromkeys(_size(entry.row) for entry in figures))
    each = len(sizes) > 1  # else the text above says it once
    head = (
        f"One input (channels x height x width) of {'the size named' if each else sizes[0]} in {machine['dtype']} on "
        f"{machine['device']}, {machine['threads']} thread{'' if machine['threads'] == 1 else 's'}, torch "
        f"{machine['torch']}. Parameters in millions. Peak: memory of one forward pass, beyond weights and input. "
        f"ms: median latency of {machine['runs']} passes after {_WARM_UP} to warm up."
    )
    table = [["row", *(["input"] if each else []), "params (M)", "GMACs", "peak (MiB)", "ms", "min to max"]]
    for row, parameters, macs, taken in figures:
        least, most = (1000 * of(taken.seconds) for of in (min, max))
        cells = [row.name, *([_size(row)] if each else []), f"{parameters / 1e6:.3f}", f"{macs / 1e9:.4g}"]
        cells += [f"{taken.peak_bytes / 2**20:.1f}", f"{taken.median_ms:.1f}", f"{least:.1f} to {most:.1f}"]
        table.append(cells)
    return "\n".join([*textwrap.wrap(head, _COLUMNS), "", *aligned(table, left=1 + each)]) + "\n"


def _csv(figures: Sequence[_Figures], machine: dict[str, object]) -> str:
    out = io.StringIO()
    writer = csv_format.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row, parameters, macs, taken in figures:
        counted = {"row": row.name, "input": _size(row), "parameters": parameters, "macs": macs}
        least, most = (1000 * of(taken.seconds) for of in (min, max))
        measured = {"peak_bytes": taken.peak_bytes, "latency_ms": taken.median_ms}
        writer.writerow(counted | measured | {"latency_min_ms": least, "latency_max_ms": most} | machine)
    return out.getvalue()
