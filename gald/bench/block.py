"""Time and peak memory of the block's parts, each beside what it is held to, measured in the same run.

Local distribution by affinity against a convolution and the ways it is commonly written; attention over all positions
against the textbook; every other aggregation against the sum of its own convolutions and matrix products.
"""

from __future__ import annotations

import torch

from gald.bench._measure import machine


def bench() -> str:
    """Measure affinity and every aggregation; return the report as Markdown.

    Raises
    ------
    GaldError
        A measurement failed, or this is not Linux, which alone tells a process's peak memory as it is taken here.
    """
    from gald.bench._block_affinity import affinity
    from gald.bench._block_aggregation import aggregation
    from gald.bench._block_gpu import gpu

    parts = [f"{machine()}, torch {torch.__version__}", affinity(), aggregation()]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.get_device_name()}\n\n{gpu()}")
    return "\n\n".join(parts) + "\n"
