"""What no operator asks for and some depend on: the layout of gradients, and where a sum is put.

A matrix product with a transposed factor leaves that factor's gradient transposed. For one image it then passes for
channels-last, and the backward pass of batch norm on a CPU (seen in torch 2.13) returns wrong numbers in silence. And
where gradients of two layouts meet, their sum takes several times as long.
"""

from typing import Any

import torch
from torch import Tensor


class _GradientLayout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, layout: torch.memory_format) -> Tensor:
        ctx.layout = layout
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.contiguous(memory_format=ctx.layout), None


def contiguous_gradient(tensor: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Return the tensor as it is; the gradient that passes back through here comes out contiguous in the layout."""
    result: Tensor = _GradientLayout.apply(tensor, layout)  # type: ignore[no-untyped-call]
    return result


def add_residual(update: Tensor, feature: Tensor) -> Tensor:
    """Sum of a fresh update, which is lost, and the feature; of one precision it takes no memory of its own.

    What computed the update must not need it for its backward pass: norms, convolutions and matrix products do not.
    """
    return update.add_(feature) if update.dtype == feature.dtype else update + feature
