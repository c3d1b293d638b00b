"""`gald cost`: what networks and modules cost, counted, and measured on this machine.

Parameters and GMACs are counts and equal everywhere, see `gald.evaluate.cost.Cost`. Peak memory and latency are this
machine's, which is why the report begins with it.
"""

from __future__ import annotations

import csv as csv_format
import io
import logging
import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from gald import files
from gald.commands._cost_rows import Row, modules, networks
from gald.commands._targets import check_file
from gald.errors import GaldError, ModelError, ParamsError
from gald.evaluate import cost as measuring
from gald.process.memory import is_out_of_memory
from gald.process.threads import torch_threads
from gald.provenance import cpu_name
from gald.tables.render import aligned

_LOG = logging.getLogger("gald.cost")
_WARM_UP = 2
_COLUMNS = 90  # of the report's running text
FIELDS = (
    *("row", "input", "parameters", "macs", "peak_bytes", "latency_ms", "latency_min_ms", "latency_max_ms"),
    *("device", "dtype", "threads", "runs", "torch", "refused"),
)
"""Columns of the CSV file."""


class _Figures(NamedTuple):
    row: Row
    parameters: int
    macs: int
    taken: measuring.Pass


class _Refused(NamedTuple):
    row: Row
    reason: str


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
    """Count and measure one forward pass of networks, or of every aggregation and distribution.

    Parameters
    ----------
    what : sequence of str
        Runs; suites, of which each row is measured once whatever its seeds; released networks; weights files. None at
        all means modules on features alone: every aggregation, alone and followed by the affinity distribution, and
        every distribution.
    size : (int, int), optional
        Height and width: of the image for networks, by default the crop of a run and 769x769 for others; in positions
        for modules, 97x97.
    channels : int
        Channels of the modules' features.
    device : {"cpu", "cuda"}
    threads : int
        Of the CPU, as many as it has cores at most.
    runs : int
        Timed passes, after two to warm up.
    csv : Path, optional
        Where to write the figures as well, unrounded.

    Returns
    -------
    str
        Markdown: how it was measured, then a table. A row that refuses the size or the channels, or for which memory
        runs out, has no figures, and its reason stands below.

    Raises
    ------
    ParamsError
        An unknown run, suite or network, a number below 1, more threads than cores, no CUDA device, or a place for the
        figures that cannot be written or is a training's.
    GaldError
        A weights file cannot be read, or all rows refuse; the message names the first.
    """
    check_file("--csv", csv, read=map(Path, what))
    if device == "cuda" and not torch.cuda.is_available():
        raise ParamsError("--device is 'cuda', but torch finds no CUDA device; leave it out")
    if min(*(size or (1, 1)), channels, threads, runs) < 1:
        raise ParamsError(f"size {size}, channels {channels}, threads {threads}, runs {runs}: each must be 1 or more")
    if threads > (cores := os.cpu_count() or 1):
        raise ParamsError(
            f"threads {threads}: this machine has {cores} cores, and more threads only wait; give {cores}"
        )
    rows = list(networks(what, size)) if what else list(modules(channels, size))
    with torch_threads(threads):
        figures = list(_each(rows, device, runs))
    machine = {"device": _device_name(device), "dtype": "float32", "threads": threads, "runs": runs}
    machine["torch"] = torch.__version__
    if csv is not None:
        files.write_text(csv, _csv(figures, machine))
    return _markdown(figures, machine)


def _each(rows: Sequence[Row], device: str, runs: int) -> Iterator[_Figures | _Refused]:
    """Measure row by row; one that refuses keeps none of the others back."""
    refusals: list[GaldError] = []
    for number, row in enumerate(rows, 1):
        try:
            yield _measured(row, device, runs)
        except GaldError as error:
            refusals.append(error)
            if len(refusals) == len(rows):
                raise refusals[0] from None
            yield _Refused(row, str(error))
        _LOG.info("%d of %d: %s", number, len(rows), row.name)


def _measured(row: Row, device: str, runs: int) -> _Figures:
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


def _size(row: Row) -> str:
    channels, height, width = row.shape
    return f"{channels}x{height}x{width}"


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"


def _markdown(figures: Sequence[_Figures | _Refused], machine: dict[str, object]) -> str:
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
    table += [[entry.row.name, *([_size(entry.row)] if each else []), *_cells(entry)] for entry in figures]
    reasons = [line for entry in figures if isinstance(entry, _Refused) for line in ("", *_wrapped(entry.reason))]
    return "\n".join([*_wrapped(head), "", *aligned(table, left=1 + each), *reasons]) + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS)


def _cells(entry: _Figures | _Refused) -> list[str]:
    if isinstance(entry, _Refused):
        return ["-", "-", "-", "-", "refused"]
    least, most = (1000 * of(entry.taken.seconds) for of in (min, max))
    return [
        f"{entry.parameters / 1e6:.3f}",
        f"{entry.macs / 1e9:.4g}",
        f"{entry.taken.peak_bytes / 2**20:.1f}",
        f"{entry.taken.median_ms:.1f}",
        f"{least:.1f} to {most:.1f}",
    ]


def _csv(figures: Sequence[_Figures | _Refused], machine: dict[str, object]) -> str:
    out = io.StringIO()
    writer = csv_format.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    for entry in figures:
        found: dict[str, object] = {"row": entry.row.name, "input": _size(entry.row), **machine}
        if isinstance(entry, _Refused):
            writer.writerow(found | {"refused": entry.reason})
            continue
        least, most = (1000 * of(entry.taken.seconds) for of in (min, max))
        found |= {"parameters": entry.parameters, "macs": entry.macs, "peak_bytes": entry.taken.peak_bytes}
        writer.writerow(found | {"latency_ms": entry.taken.median_ms, "latency_min_ms": least, "latency_max_ms": most})
    return out.getvalue()
