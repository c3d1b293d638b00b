"""The block's parts on a GPU, forward and backward in mixed precision, beside the same rivals as on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from gald import plugins
from gald.bench import _block_affinity, _block_aggregation
from gald.bench._block_affinity import Size
from gald.bench._gpu import on_gpu
from gald.bench._measure import tell

_LARGE = (129, 257)  # positions at which the textbook's attention would take some 13 GB
_HEAD = (
    "| what | median | peak memory | against | time of it | memory of it |\n|---|--:|--:|---|--:|--:|\n"  # both ratios
)


def gpu(device: str = "cuda", size: Size = Size(), large: tuple[int, int] = _LARGE) -> str:  # noqa: B008 - immutable
    """Measure on a GPU and return the section of the report, as Markdown.

    Parameters
    ----------
    device : str
        Of torch.
    size : Size
        Shape of the features.
    large : tuple of int
        Height and width at which attention is measured alone.
    """
    rows = [*_affinity(device, size), *_attention(device, size, large), *_products(device, size)]
    return (
        f"## GPU: forward and backward at ({', '.join(map(str, size))}), bfloat16 where autocast takes it\n\n"
        "Memory is the peak of the tensors beyond module, inputs and gradients that were there.\n\n"
        + _HEAD + "\n".join(rows)
    )  # fmt: skip


def _mixed(run: Callable[[], object], device: str) -> Callable[[], object]:
    def mixed() -> None:
        with torch.autocast(device, torch.bfloat16):
            run()

    return mixed


def _rows(device: str, against: str, works: dict[str, Callable[[], Callable[[], object]]]) -> Iterator[str]:
    """Yield a row for each work; all but the first are held against it. One is made ready at a time."""
    first = None
    for what, ready in works.items():
        tell("block", f"{what} on {device}")
        found = on_gpu(_mixed(ready(), device))
        first = first or found
        ratios = ["", "", ""]
        if found is not first:
            ratios = [against, f"{found.seconds / first.seconds:.2f}", f"{found.peak_bytes / first.peak_bytes:.3f}"]
        cells = [what, f"{1e3 * found.seconds:.2f} ms", f"{found.peak_bytes / 2**20:.0f} MiB", *ratios]
        yield f"| {' | '.join(cells)} |"


def _affinity(device: str, size: Size) -> Iterator[str]:
    def ready(what: str, side: int, compiled: bool = False) -> Callable[[], Callable[[], object]]:
        return lambda: _block_affinity.ready(what, side, size, device, compiled)

    for side in _block_affinity.WINDOWS:
        works = {
            f"affinity {side}x{side}, unfold": ready("unfold", side),
            f"dense convolution {side}x{side}": ready("convolution", side),
            f"affinity {side}x{side}": ready("ours", side),
            f"affinity {side}x{side}, compiled": ready("ours", side, True),
        }
        yield from _rows(device, "unfold", works)


def _attention(device: str, size: Size, large: tuple[int, int]) -> Iterator[str]:
    def ready(name: str, kind: str, positions: tuple[int, int]) -> Callable[[], Callable[[], object]]:
        return lambda: _block_aggregation.attention(name, kind, size.channels, positions, True, device)

    for name in _block_aggregation.TEXTBOOK:
        positions = size.height, size.width
        works = {f"{name}, {kind}": ready(name, kind, positions) for kind in ("textbook", "ours")}
        yield from _rows(device, "textbook", works)
        yield from _rows(device, "", {f"{name}, ours at {large[0]}x{large[1]}": ready(name, "ours", large)})


def _products(device: str, size: Size) -> Iterator[str]:
    def ready(make: Callable[..., Callable[[], object]], name: str) -> Callable[[], Callable[[], object]]:
        return lambda: make(name, size.images, size.channels, (size.height, size.width), True, device)

    for name in plugins.available("models/aggregation"):
        if name in _block_aggregation.TEXTBOOK or name == "none":
            continue
        works = {
            f"{name}, its products": ready(_block_aggregation.products, name),
            name: ready(_block_aggregation.whole, name),
        }
        yield from _rows(device, "products", works)
