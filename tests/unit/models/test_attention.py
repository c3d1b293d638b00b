"""Attention in blocks against the textbook: values, gradients, precision, and what it never holds."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gald.models.aggregation import _attention, criss_cross, dual_attention, non_local
from gald.models.aggregation._attention import attend


def textbook(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return value @ (query.transpose(1, 2) @ key).softmax(2).transpose(1, 2)


def draws(width: int, channels: int, queries: int = 11, keys: int = 13, dtype=torch.float64) -> tuple[Tensor, ...]:
    shapes = ((2, width, queries), (2, width, keys), (2, channels, keys))
    return tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)


@pytest.fixture
def blocks_of_three(monkeypatch):
    """Eleven queries over thirteen keys make four blocks, the last of two queries."""
    monkeypatch.setattr(_attention, "_HELD", 13 * 3)
    assert [block.start for block in _attention._blocks(11, 13)] == [0, 3, 6, 9]


@pytest.mark.parametrize(("width", "channels"), [(2, 5), (5, 2), (1, 1), (4, 4)])
def test_values_and_gradients_are_the_textbooks(blocks_of_three, width, channels):
    inputs = draws(width, channels)
    results = []
    for function in (attend, textbook):
        output = function(*inputs)
        results.append([output, *torch.autograd.grad(output.sin().sum(), inputs)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_gradients_are_those_of_differences(blocks_of_three):
    assert torch.autograd.gradcheck(attend, draws(2, 3))


def test_scale_multiplies_the_similarities(blocks_of_three):
    query, key, value = draws(2, 3)
    torch.testing.assert_close(attend(query, key, value, scale=0.5), textbook(0.5 * query, key, value))
    same = torch.randn(2, 2, 13, dtype=torch.float64)
    torch.testing.assert_close(attend(query, key, same, scale=0.5), textbook(0.5 * query, key, same))


def test_one_query_more_keys_than_a_block_may_hold(monkeypatch):
    monkeypatch.setattr(_attention, "_HELD", 1)
    inputs = draws(2, 3)
    torch.testing.assert_close(attend(*inputs), textbook(*inputs))


def test_similarities_beyond_the_range_of_exp_stay_exact(blocks_of_three):
    query, key, value = draws(2, 3)
    inputs = (1e4 * query, 1e4 * key, value)
    torch.testing.assert_close(attend(*inputs), textbook(*inputs))
    grads = torch.autograd.grad(attend(*inputs).sum(), (query, key, value))
    assert all(grad.isfinite().all() for grad in grads)


def test_half_precision_accumulates_in_single(blocks_of_three):
    inputs = draws(8, 16, dtype=torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    ours, expected = attend(*inputs), textbook(*exact)
    assert ours.dtype == torch.bfloat16
    assert (ours - expected).norm() < 0.01 * expected.norm()
    grads = torch.autograd.grad(ours.double().square().sum(), inputs)
    for grad, reference in zip(grads, torch.autograd.grad(expected.square().sum(), exact), strict=True):
        assert grad.dtype == torch.bfloat16
        assert (grad - reference).norm() < 0.02 * reference.norm()


def test_autocast_leaves_its_precision_alone():
    inputs = draws(2, 3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = attend(*inputs)
    torch.testing.assert_close(output, textbook(*inputs))


class Largest(TorchDispatchMode):
    """Largest number of elements of what any operator returns, in the backward pass too."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, Tensor):
                self.elements = max(self.elements, part.numel())
        return result


def largest(module: nn.Module, side: int) -> int:
    feature = torch.randn(1, 16, side, side, requires_grad=True)
    with Largest() as seen:
        module(feature).sum().backward()
    return seen.elements


@pytest.mark.parametrize("build", [non_local.build, dual_attention.build])
def test_no_matrix_of_all_pairs_of_positions_exists(build, monkeypatch):
    monkeypatch.setattr(_attention, "_HELD", 2**16)
    assert largest(build(16, zero_start=False), 40) <= 2**16 < 1600**2 / 32


def test_recorder_sees_a_matrix_of_all_pairs(monkeypatch):
    monkeypatch.setattr(dual_attention, "attend", textbook)
    assert largest(dual_attention.build(16, zero_start=False), 40) == 1600**2


def test_criss_cross_holds_a_row_and_a_column_for_each_position():
    assert largest(criss_cross.build(16, zero_start=False), 40) == 1600 * 80
