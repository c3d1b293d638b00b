"""What a network costs: parameters, and multiply-accumulates for one image."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gald.models.segmentor import Segmentor

_PRODUCTS = (torch.ops.aten.mul, torch.ops.aten.addcmul, torch.ops.aten.addcmul_)


class Cost(NamedTuple):
    """Cost of prediction; the auxiliary head takes no part in it.

    Attributes
    ----------
    parameters : int
        Numbers that training sets.
    gmacs : float
        Billions of multiply-accumulates for one image of `size`: convolutions, matrix products, attention, and products
        of two features element by element, which local distribution is made of. Norms, activations, pooling and
        resizing are not counted, as usual.
    size : (int, int)
        Height and width of that image in pixels.
    """

    parameters: int
    gmacs: float
    size: tuple[int, int]


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulates of all that runs below it, inside custom autograd functions too.

    The formulas are those of `torch.utils.flop_counter`, whose own counter knows neither products element by element
    nor the CPU's fused attention.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping it means importing it, which takes longer than a miniature's whole evaluation.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and add its cost."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            query, key, value = args[:3]
            self.macs += query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
        elif packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=result) // 2
        elif packet in _PRODUCTS:
            factors = [value for value in args[-2:] if isinstance(value, Tensor) and value.numel() > 1]
            self.macs += result.numel() if len(factors) == 2 else 0
        return result


def cost(model: Segmentor, size: tuple[int, int]) -> Cost:
    """Measure a network, in evaluation mode, by running it once on an image of `size` (height, width)."""
    parameters = sum(
        parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("aux_head.")
    )
    with torch.no_grad(), _Counter() as counter:
        model(torch.zeros(1, 3, *size, device=model.mean.device))
    return Cost(parameters, counter.macs / 1e9, size)
