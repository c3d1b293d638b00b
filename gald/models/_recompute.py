"""Features that the backward pass computes again instead of keeping them.

A convolution, a norm and a ReLU leave two tensors behind: the norm keeps its input z, and the ReLU and whatever follows
keep its output y. But y is z times a number per channel plus another one, clipped at zero: it takes one cheap pass to
compute it again. So y goes with a `Recipe`, and where torch would keep y for the backward pass, the recipe is kept. The
operators and their backward passes are torch's own, and the values of the forward pass are those of `nn.BatchNorm2d`,
bit for bit.

References
----------
Pleiss, Chen, Huang, Li, van der Maaten, Weinberger: Memory-Efficient Implementation of DenseNets, 2017.
Rota Bulò, Porzi, Kontschieder: In-Place Activated BatchNorm for Memory-Optimized Training of DNNs, CVPR 2018 (which
inverts norm and activation; that loses digits where a weight is small, and is not done here).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import _has_any_global_hook

from gald.errors import ModelError

LEAST_ELEMENTS = 1 << 19
"""Features with fewer elements are kept: what they take is little beside the time that some calls of Python take."""

_ATTRIBUTE = "_gald_recipe"


class Recipe:
    """How to compute a feature again: batch norm with known statistics, perhaps plus a feature, perhaps a ReLU.

    Parameters
    ----------
    source : Tensor
        (N, C, H, W) that is normalised.
    affine, statistics : pair of Tensor
        Weight and bias; mean and 1 / deviation.
    summand : Recipe, Tensor or None
        What is added.
    activated : bool
        End with a ReLU.

    Raises
    ------
    ModelError
        When the feature is asked for: what it is computed from was changed in place meanwhile.
    """

    def __init__(
        self,
        source: Tensor,
        affine: tuple[Tensor, Tensor],
        statistics: tuple[Tensor, Tensor],
        summand: Recipe | Tensor | None,
        *,
        activated: bool,
    ) -> None:
        self._source = source
        self._affine = affine
        self._statistics = statistics
        self._summand = summand
        self._activated = activated
        self._kept = [part for part in (source, summand) if isinstance(part, Tensor)]
        self._versions = [part._version for part in self._kept]
        self._value: Tensor | None = None

    def value(self) -> Tensor:
        """Compute the feature and keep it, since the layers before it ask for it next; so for what it is a sum of."""
        if self._value is None:
            summand = self._summand.value() if isinstance(self._summand, Recipe) else self._summand
            self._value = self._computed(summand)
        return self._value

    def passing(self) -> Tensor:
        """Compute the feature and keep nothing."""
        if self._value is not None:
            return self._value
        return self._computed(self._summand.passing() if isinstance(self._summand, Recipe) else self._summand)

    @torch.no_grad()
    def _computed(self, summand: Tensor | None) -> Tensor:
        if [part._version for part in self._kept] != self._versions:
            raise ModelError(
                "a feature that the backward pass needs was changed in place after a norm or a sum had used it; change "
                "a copy, or set gald.models._recompute.LEAST_ELEMENTS above the features' size"
            )
        (weight, bias), (mean, inverse) = self._affine, self._statistics
        feature = torch.native_batch_norm(self._source, weight, bias, mean, inverse.pow(-2), False, 0.0, 0.0)[0]
        if summand is not None:
            feature.add_(summand)
        return feature.relu_() if self._activated else feature


class _Passing(Recipe):
    """Another recipe's feature, for who needs it long before the layers in front of it do."""

    def __init__(self, recipe: Recipe) -> None:
        self.value = self.passing = recipe.passing  # type: ignore[method-assign]


def _recipe_of(feature: Tensor) -> Recipe | None:
    """Recipe of a feature as it is now; None after somebody has changed it in place."""
    recipe: Recipe | None
    recipe, version = getattr(feature, _ATTRIBUTE, (None, 0))
    return None if recipe is None or feature._version != version else recipe


def _attach(feature: Tensor, recipe: Recipe) -> Tensor:
    setattr(feature, _ATTRIBUTE, (recipe, feature._version))
    return feature


def _keep(feature: Tensor, recipe: Recipe) -> saved_tensors_hooks:
    """Context in which operators keep the recipe where they would keep the feature."""
    address, shape, dtype, strides = feature.data_ptr(), feature.shape, feature.dtype, feature.stride()

    def pack(tensor: Tensor) -> Recipe | Tensor:
        # a transposed square one has all but the strides in common with it
        same = tensor.data_ptr() == address and tensor.shape == shape and tensor.stride() == strides
        same = same and tensor.dtype == dtype
        return recipe if same else tensor.detach()  # an output that keeps itself would never be freed

    def unpack(packed: Recipe | Tensor) -> Tensor:
        return packed.value() if isinstance(packed, Recipe) else packed

    return saved_tensors_hooks(pack, unpack)


def recomputes(feature: Tensor) -> bool:
    """Whether what follows from a feature may be computed again: large, in a plain training step of torch.

    Compilers decide by themselves what they compute again, and others who have a say in what is kept (activation
    checkpointing, for example) keep it.
    """
    return (
        torch.is_grad_enabled()
        and feature.device.type in ("cpu", "cuda")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and type(feature) in (Tensor, nn.Parameter)
        and torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None
        and feature.numel() >= LEAST_ELEMENTS  # last: asked while a graph is traced, it would bind the graph to it
    )


def applied(operator: Callable[[Tensor], Tensor], feature: Tensor) -> Tensor:
    """Apply an operator, which keeps the feature's recipe, if there is one, instead of the feature."""
    recipe = _recipe_of(feature)
    if recipe is None or not recomputes(feature):
        return operator(feature)
    with _keep(feature, recipe):
        return operator(feature)


def early(feature: Tensor) -> Tensor:
    """Return a feature for a branch whose backward pass comes long before that of the layers in front of it.

    Computed again for the branch, it is not kept until those layers need it.
    """
    recipe = _recipe_of(feature)
    return feature if recipe is None else _attach(feature.view_as(feature), _Passing(recipe))


def norm_act(norm: nn.Module, activation: nn.Module | None, feature: Tensor, summand: Tensor | None = None) -> Tensor:
    """Normalise a feature, add another one if given, and apply the activation if given.

    Parameters
    ----------
    norm : nn.Module
        Only what a plain `nn.BatchNorm2d` with the statistics of the batch returns is computed again.
    activation : nn.Module or None
        Only a plain `nn.ReLU` is.
    feature : Tensor
        (N, C, H, W), which nobody else changes in place.
    summand : Tensor, optional
        Of the same shape.

    Returns
    -------
    Tensor
        (N, C, H, W).
    """
    if not (recomputes(feature) and _is_plain(norm, activation) and _alike(feature, summand)):
        feature = norm(feature)
        if summand is not None:
            in_place = not torch.is_grad_enabled() and _alike(feature, summand)  # new memory costs more than the sum
            feature = feature.add_(summand) if in_place else feature + summand
        return feature if activation is None else activation(feature)
    return _normed(norm, feature, summand, activated=activation is not None)


def _is_plain(norm: nn.Module, activation: nn.Module | None) -> bool:
    """Whether norm and activation do what torch's own do in training, and nobody looks on."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and (activation is None or type(activation) is nn.ReLU)
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
        and not any(_watched(part) for part in (norm, activation) if part is not None)
    )


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _alike(feature: Tensor, summand: Tensor | None) -> bool:
    return summand is None or (feature.shape == summand.shape and feature.dtype == summand.dtype)


def _normed(norm: Any, feature: Tensor, summand: Tensor | None, *, activated: bool) -> Tensor:
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    normed, mean, inverse = torch.native_batch_norm(
        feature, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
    )
    kept = None if summand is None else _recipe_of(summand) or summand.detach()
    affine, statistics = (norm.weight.detach(), norm.bias.detach()), (mean.detach(), inverse.detach())
    recipe = Recipe(feature.detach(), affine, statistics, kept, activated=activated)
    if summand is not None:
        normed = normed.add_(summand)
    if activated:
        with _keep(normed, recipe):
            normed = normed.relu_()
    return _attach(normed, recipe)
