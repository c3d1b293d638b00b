"""The layout in which a gradient leaves a module, where torch's batch norm would misread it.

A matrix product with a transposed factor leaves that factor's gradient transposed. For one image it then passes for
channels-last, and the backward pass of batch norm on a CPU (seen in torch 2.13) returns wrong numbers in silence.
"""

from typing import Any

import torch
from torch import Tensor


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()


def contiguous_gradient(tensor: Tensor) -> Tensor:
    """Return the tensor as it is; the gradient that passes back through here comes out contiguous."""
    result: Tensor = _ContiguousGradient.apply(tensor)  # type: ignore[no-untyped-call]
    return result
