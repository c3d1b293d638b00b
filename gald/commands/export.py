"""`gald export`: a network as one file that other programs run, ONNX or torch.export, checked before it is written.

The file takes images as float32 RGB in [0, 1] and gives logits at their size: normalisation and resizing are inside,
the auxiliary head is not. It is made in memory, run there by the runtime that users have, and compared with the network
at several sizes and batches. Only then is it written, in one step.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from gald import __version__, files
from gald.commands._export_files import FORMATS, Written, check_packages, failures, write_onnx, write_program
from gald.commands._export_trace import LogitsOnly, Shape, bounded, least_side, quietly, trace, trace_shape
from gald.commands._targets import check_file
from gald.errors import GaldError, ParamsError
from gald.models import weights as weights_file

_LOG = logging.getLogger("gald.export")
TOLERANCE = 1e-4
"""Largest absolute difference of a logit, between the network and its export."""


class Checked(NamedTuple):
    """One comparison: shape of the images, and the largest absolute difference of the logits."""

    shape: Shape
    difference: float


def export(
    weights: Path, out: Path, *, size: tuple[int, int] | None = None, static: bool = False, opset: int | None = None
) -> str:
    """Write a network as ONNX or as a torch.export program, if it computes what the network computes.

    Parameters
    ----------
    weights : Path
        Weights that say how to build their network, for example `gald.paths.weights` of a run.
    out : Path
        File to write: ``.onnx``, or ``.pt2`` for torch.export.
    size : (int, int), optional
        Height and width in pixels of the image that the network is traced with.
    static : bool
        Fix the batch to one image and the size to `size`; else all three are free, down to a least size.
    opset : int, optional
        Of ONNX; the one that torch takes by default if not given.

    Returns
    -------
    str
        What was written, how far it is from the network at each size, and how to load it.

    Raises
    ------
    ParamsError
        Another suffix, a place that cannot be written or is a training's, a fixed size that is not given, or an opset
        that does not fit.
    ModelError
        The weights are missing or damaged.
    GaldError
        Packages are missing, the network cannot be traced or takes no image of this size, or the exported file fails or
        differs by more than `TOLERANCE`. Nothing is written then, and an older file stays.
    """
    _check_arguments(weights, out, size, static, opset)
    model = weights_file.load(weights).requires_grad_(False)
    network, title = LogitsOnly(model), FORMATS[out.suffix]
    with quietly(), torch.no_grad():
        shape = trace_shape(network, size, static)
        least = None if static else least_side(network, shape)
        _LOG.info("%s: tracing with images of %s", weights, _spell(shape))
        note = _note(weights, model.class_names, least)
        with bounded(shape[1:]):
            program = trace(network, shape, least)
            _LOG.info("%s: making the %s file", weights, title)
            written = write_onnx(program, note, opset) if out.suffix == ".onnx" else write_program(program, note)
        _LOG.info("%s: comparing both on images of several sizes", weights)
        checked = [_compare(network, written, one) for one in _shapes(shape, least)]
    files.write_bytes(out, written.content)
    return _report(out, title, written, checked, least)


def _check_arguments(weights: Path, out: Path, size: tuple[int, int] | None, static: bool, opset: int | None) -> None:
    if out.suffix not in FORMATS:
        raise ParamsError(f"--out is {out}; its suffix must be .onnx (ONNX) or .pt2 (torch.export)")
    check_file("-o", out, read=[weights])
    if static and size is None:
        raise ParamsError("--static fixes height and width: say which with --size HEIGHT WIDTH")
    if size is not None and min(size) < 1:
        raise ParamsError(f"--size is {size[0]} {size[1]}; both are pixels, 1 or more")
    if out.suffix == ".onnx":
        check_packages(opset)
    elif opset is not None:
        raise ParamsError(f"--opset {opset} is of ONNX, and {out} is a torch.export program; leave it out")


def _note(weights: Path, classes: tuple[str, ...], least: int | None) -> dict[str, str]:
    """Text that goes into the file: classes and params as JSON, and what a user has to know of input and origin."""
    with safe_open(weights, framework="pt") as file:
        params = json.loads(file.metadata()["gald"])["model"]
    digest = files.sha256(weights)
    return {
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "model": files.canonical_json(params),
        "input": "images: float32 (N, 3, H, W), RGB in [0, 1], not normalised; logits: float32 (N, classes, H, W)",
        "least_side": "fixed" if least is None else str(least),
        "origin": f"gald {__version__}, torch {torch.__version__}, weights {weights.name} sha256 {digest}",
    }


def _shapes(shape: Shape, least: int | None) -> list[Shape]:
    """Shapes to compare at: the traced one and, where they are free, other batches, sizes, and the smallest."""
    if least is None:
        return [shape]
    batch, height, width = shape
    odd = (max(least, height * 3 // 4 | 1), max(least, width * 5 // 8 | 1))
    return [shape, (1, height, width), (1, *odd), (batch + 1, height + 7, width + 30), (1, least, least)]


def _compare(network: Callable[[Tensor], Tensor], written: Written, shape: Shape) -> Checked:
    """Run both on the same images.

    Raises
    ------
    GaldError
        The file fails, or is too far from the network.
    """
    batch, height, width = shape
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    try:
        found = written.run(images)
    except failures() as error:
        raise GaldError(
            f"the exported network fails on images of {_spell(shape)}, on which the network runs; nothing was written; "
            f"export it for one size with --static --size HEIGHT WIDTH ({str(error).strip().splitlines()[-1]})"
        ) from error
    if found.shape != expected.shape:
        raise GaldError(
            f"the exported network gives logits of {tuple(found.shape)} for images of {_spell(shape)}, the network "
            f"{tuple(expected.shape)}; nothing was written; export it for one size with --static --size HEIGHT WIDTH"
        )
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE:  # nor is not-a-number
        raise GaldError(
            f"the exported network differs by {difference:.3g} from the network on images of {_spell(shape)}, allowed "
            f"is {TOLERANCE:g}; nothing was written; if it agrees at other sizes, its code depends on the size: export "
            "it for one with --static --size HEIGHT WIDTH; else try the other format"
        )
    return Checked(shape, difference)


def _spell(shape: Shape) -> str:
    """Spell a shape as batch, height and width.

    Examples
    --------
    >>> _spell((2, 192, 256))
    '2x3x192x256'
    """
    return f"{shape[0]}x3x{shape[1]}x{shape[2]}"


def _report(out: Path, title: str, written: Written, checked: list[Checked], least: int | None) -> str:
    free = "none: batch, height and width are fixed"
    if least is not None:
        free = f"batch, height and width, from {least}x{least} pixels on"
    rows = [f"| {_spell(one.shape)} | {one.difference:.2e} |" for one in checked]
    largest = max(one.difference for one in checked)
    return "\n".join(
        [
            f"{out}: {title}, {len(written.content) / 1e6:.1f} MB{written.details}",
            f"dynamic axes: {free}",
            "",
            "| images | maximum difference |",
            "|---|---|",
            *rows,
            "",
            f"maximum difference {largest:.2e}, allowed {TOLERANCE:g}; images are float32 RGB in [0, 1]",
            "",
            *(line.format(file=str(out)) for line in written.usage),
            "",
        ]
    )
