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
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad if grad.is_contiguous() else turned(grad.transpose(1, 2))


def contiguous_gradient(matrices: Tensor) -> Tensor:
    """Return (N, A, B) as it is; the gradient that passes back through here comes out contiguous."""
    result: Tensor = _GradientLayout.apply(matrices)  # type: ignore[no-untyped-call]
    return result


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        turned = matrices.new_empty(matrices.shape[0], matrices.shape[2], matrices.shape[1])
        for matrix, into in zip(matrices, turned, strict=True):
            into.copy_(matrix.t())
        return turned

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return turned(grad)


def turned(matrices: Tensor) -> Tensor:
    """Transpose (N, A, B) to a contiguous (N, B, A).

    On a CPU torch transposes in blocks that stay in cache where it sees a single matrix, which takes a third of the
    time, and only there. A graph has to hold for any number of matrices.
    """
    if matrices.is_cuda or torch.compiler.is_compiling():
        return matrices.transpose(1, 2).contiguous()
    result: Tensor = _Turned.apply(matrices)  # type: ignore[no-untyped-call]
    return result


def add_residual(update: Tensor, feature: Tensor) -> Tensor:
    """Sum of a fresh update, which is lost, and the feature; of one precision it takes no memory of its own.

    What computed the update must not need it for its backward pass: norms, convolutions and matrix products do not, but
    a ReLU does.
    """
    return update.add_(feature) if update.dtype == feature.dtype else update + feature
