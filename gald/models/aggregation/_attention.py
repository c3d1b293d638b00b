"""Exact softmax attention over all positions whose memory grows with the positions, not with their square.

Torch's fused attention does it where queries, keys and values are of one width, and falls back to the whole L x L
matrix, in silence, where values are wider than keys. There a block of queries is compared with all keys at a time; the
backward pass makes a block's weights again.

References
----------
Rabe, Staats: Self-attention Does Not Need O(n^2) Memory, arXiv 2112.05682, section 2.
Dao, Fu, Ermon, Rudra, Ré: FlashAttention, NeurIPS 2022, appendix B.2 (the backward pass).
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_HELD = 2**21  # similarities held at a time: large enough for fast matrix products, 8 MB in float32


def _blocks(queries: int, keys: int) -> Iterator[slice]:
    """Cut the queries so that a block's similarities with all keys number `_HELD` or less, one query at the least."""
    rows = max(1, _HELD // keys)
    return (slice(start, start + rows) for start in range(0, queries, rows))


class _Attention(torch.autograd.Function):
    """softmax(q^T k) v, image by image; similarities and sums over blocks are in float32 or better."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        precise = torch.promote_types(value.dtype, torch.float32)
        out = value.new_empty(value.shape[0], value.shape[1], query.shape[2])
        with torch.autocast(query.device.type, enabled=False):
            for image in range(query.shape[0]):
                q, k, v = query[image].to(precise), key[image].to(precise), value[image]
                for block in _blocks(q.shape[1], k.shape[1]):
                    weights = (q[:, block].T @ k).softmax(1)  # (queries of the block, L)
                    out[image, :, block] = v @ weights.to(v.dtype).T
        ctx.save_for_backward(query, key, value)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        precise = torch.promote_types(value.dtype, torch.float32)
        of_query, of_key, of_value = (torch.zeros_like(part, dtype=precise) for part in (query, key, value))
        with torch.autocast(query.device.type, enabled=False):
            for image in range(query.shape[0]):
                q, k, v, g = query[image].to(precise), key[image].to(precise), value[image], grad[image]
                for block in _blocks(q.shape[1], k.shape[1]):
                    weights = (q[:, block].T @ k).softmax(1)
                    if v.dtype == precise:
                        of_value[image].addmm_(g[:, block], weights)
                    else:
                        of_value[image] += g[:, block] @ weights.to(v.dtype)
                    of_weights = (g[:, block].T @ v).to(precise)
                    of_logits = torch._softmax_backward_data(of_weights, weights, 1, precise)
                    of_query[image, :, block] = k @ of_logits.T
                    of_key[image].addmm_(q[:, block], of_logits)
        return of_query.to(query.dtype), of_key.to(key.dtype), of_value.to(value.dtype)


def by_position(part: Float[Tensor, "n d l"]) -> Float[Tensor, "n d l"]:
    """Lay a tensor out position after position.

    A caller that hands over queries, keys and values of one width so keeps no second copy of them beside.
    """
    return part.transpose(1, 2).contiguous().transpose(1, 2)


def attend(
    query: Float[Tensor, "n d q"], key: Float[Tensor, "n d l"], value: Float[Tensor, "n c l"], *, scale: float = 1.0
) -> Float[Tensor, "n c q"]:
    """Attention softmax(scale q^T k) v of every query over all positions, never in one L x L matrix.

    Parameters
    ----------
    query, key, value : Tensor
        (N, d, Q), (N, d, L) and (N, C, L), of one dtype; the widths d and C are free.
    scale : float
        Factor of the similarities.

    Returns
    -------
    Tensor
        (N, C, Q), each column a weighted mean of the values. Differentiable once.

    Notes
    -----
    An exported graph holds torch's attention whatever the widths: a loop over blocks is a graph of one size alone.
    """
    if key.shape[1] == value.shape[1] or torch.compiler.is_exporting():
        return _fused(query, key, value, scale)
    result: Float[Tensor, "n c q"] = _Attention.apply(query * scale, key, value)  # type: ignore[no-untyped-call]
    return result


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Torch's attention, one head; contiguous, because it is several times slower otherwise."""
    q, k, v = (by_position(part).transpose(1, 2).unsqueeze(1) for part in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, scale=scale).squeeze(1).transpose(1, 2)
