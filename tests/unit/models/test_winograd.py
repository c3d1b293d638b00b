"""Fast 3x3 convolutions against torch's in double precision."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gald.models import _winograd
from gald.models._winograd import WinogradConvs, fits


def convolution(in_channels: int, out_channels: int, *, bias: bool, seed: int) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias).requires_grad_(False)


def exact(one: nn.Conv2d, feature: Tensor) -> Tensor:
    bias = None if one.bias is None else one.bias.double()
    return functional.conv2d(feature.double(), one.weight.double(), bias, padding=1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (2, 2), (3, 8), (8, 3), (13, 17), (16, 16)])
@pytest.mark.parametrize("block_bytes", [1, 20_000, 1 << 26])  # two rows at a time, some, all
def test_any_size_and_any_block(monkeypatch: pytest.MonkeyPatch, height: int, width: int, block_bytes: int) -> None:
    monkeypatch.setattr(_winograd, "_BLOCK_BYTES", block_bytes)
    both = [convolution(5, 7, bias=True, seed=0), convolution(5, 3, bias=False, seed=1)]
    feature = torch.randn(2, 5, height, width)
    for given in (feature, feature.contiguous(memory_format=torch.channels_last)):
        for one, found in zip(both, WinogradConvs(both)(given), strict=True):
            assert found.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(found.double(), exact(one, feature), atol=2e-6, rtol=0)


def test_no_images() -> None:
    (found,) = WinogradConvs([convolution(5, 7, bias=True, seed=0)])(torch.empty(0, 5, 8, 9))
    assert found.shape == (0, 7, 8, 9)


def test_rounding_is_that_of_direct_convolution() -> None:
    one = convolution(512, 64, bias=True, seed=0)
    feature = torch.randn(1, 512, 24, 24).relu_()
    expected = exact(one, feature)
    found, direct = WinogradConvs([one])(feature)[0], one(feature)
    assert (found - expected).abs().max() < 2 * (direct - expected).abs().max()


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that an operator returns."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.most = max([self.most, *(one.nbytes for one in tree_leaves(result) if isinstance(one, Tensor))])
        return result


def test_making_them_takes_little_more_than_they_do() -> None:
    one = convolution(512, 64, bias=True, seed=0)
    with Largest() as seen:
        made = WinogradConvs([one])
    assert seen.most == made.weight.nbytes


def test_what_fits() -> None:
    assert fits(nn.Conv2d(512, 512, 3, padding=1))
    for other in (
        nn.Conv2d(511, 512, 3, padding=1),
        nn.Conv2d(512, 512, 3),
        nn.Conv2d(512, 512, 3, padding=1, stride=2),
        nn.Conv2d(512, 512, 3, padding=2, dilation=2),
        nn.Conv2d(512, 512, 3, padding=1, groups=2),
        nn.Conv2d(512, 512, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(512, 512, 1, padding=1),
        nn.Conv2d(512, 512, 3, padding=1).double(),
        nn.Conv2d(512, 512, 3, padding=1, device="meta"),
        nn.Linear(512, 512),
    ):
        assert not fits(other)
