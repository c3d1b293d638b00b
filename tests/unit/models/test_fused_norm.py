"""Recomputed features: values, running statistics and gradients of the plain formulation, at half the kept memory."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from gald.errors import ModelError
from gald.models import _recompute, layers
from gald.models.backbone.resnet import Bottleneck
from gald.models.heads import AuxHead, MainHead


class _Chain(nn.Module):
    """Two bottlenecks, the first of which projects, and both heads: every way in which a feature is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Bottleneck(6, 4, 2, 1, True), Bottleneck(16, 4, 1, 2, False))
        self.blocks.append(Bottleneck(16, 4, 1, 2, False))
        self.head = MainHead(16, 8, 3, nn.Identity())
        self.aux = AuxHead(16, 8, 3, relu=False, dropout=0.0)

    def forward(self, images: Tensor) -> Tensor:
        feature = self.blocks(images)
        return self.head(feature) + self.aux(feature)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recompute, "LEAST_ELEMENTS", 0)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = _Chain()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):  # a sign and a size of its own for every channel
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return net


def textbook(net: nn.Module) -> nn.Module:
    """Copy of a network in which conv, norm and ReLU are plain sequences."""
    net = copy.deepcopy(net)
    for part in net.modules():
        if isinstance(part, Bottleneck | MainHead | AuxHead):
            part.forward = {Bottleneck: _bottleneck, MainHead: _main, AuxHead: _aux}[type(part)].__get__(part)
    return net


def _bottleneck(self: Bottleneck, feature: Tensor) -> Tensor:
    residual = feature
    for unit in self.residual:
        residual = nn.Sequential.forward(unit, residual)
    projected = feature if isinstance(self.shortcut, nn.Identity) else nn.Sequential.forward(self.shortcut, feature)
    return (residual + projected).relu()


def _main(self: MainHead, feature: Tensor) -> Tensor:
    context = nn.Sequential.forward(self.after, self.block(nn.Sequential.forward(self.before, feature)))
    return self.classifier(nn.Sequential.forward(self.fuse, torch.cat([feature, context], 1)))


def _aux(self: AuxHead, feature: Tensor) -> Tensor:
    return self.classifier(self.dropout(nn.Sequential.forward(self.transform, feature)))


def step(net: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    net.zero_grad()
    images = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = net(images)
    output.double().square().mean().backward()
    return output.detach(), [images.grad, *(parameter.grad for parameter in net.parameters())]


def images(seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 6, 13, 15, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def kept_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes of what the graph of a forward pass holds, each memory once."""
    seen, storages, waiting = set(), {}, [net(x).grad_fn]

    def take(packed: object) -> None:
        if isinstance(packed, Tensor):
            storages[packed.untyped_storage().data_ptr()] = packed.untyped_storage().nbytes()

    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for name in dir(node):
            if name.startswith("_raw_saved_"):
                raw = getattr(node, name)
                take(getattr(raw, "data", None))
        waiting += [before for before, _ in node.next_functions]
    return sum(storages.values())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_statistics_and_gradients_are_the_textbooks(layout: torch.memory_format) -> None:
    ours = network().to(memory_format=layout)
    plain = textbook(ours)
    x = images().contiguous(memory_format=layout)
    for _ in range(2):
        found, gradients = step(ours, x)
        expected, reference = step(plain, x)
        assert torch.equal(found, expected)  # the forward pass is torch's own
        for one, other in zip(gradients, reference, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for (name, one), other in zip(ours.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other), name
    assert ours.blocks[0].residual[0][1].num_batches_tracked == 2


@pytest.mark.usefixtures("small")
def test_gradients_in_double_precision() -> None:
    ours = network().double()
    plain = textbook(ours)
    x = images(dtype=torch.float64)
    for one, other in zip(step(ours, x)[1], step(plain, x)[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)
    unit = layers.conv_norm_act(2, 3).double()
    after = layers.conv_norm_act(3, 2, activation=False).double()
    little = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: after(unit(x), x), (little,))


@pytest.mark.usefixtures("small")
def test_the_same_bits_twice_and_through_a_kept_graph() -> None:
    first, second = (step(network(), images())[1] for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    net = network()
    loss = net(images()).double().square().mean()
    once = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


@pytest.mark.usefixtures("small")
def test_less_is_kept() -> None:
    net = network()
    x = torch.randn(2, 6, 65, 65)
    found, expected = kept_bytes(net, x), kept_bytes(textbook(net), x)
    assert found < 0.75 * expected


@pytest.mark.usefixtures("small")
def test_a_recipe_does_not_outlive_a_change_of_its_feature() -> None:
    feature = layers.conv_norm_act(3, 4)(torch.randn(2, 3, 4, 5))
    assert _recompute._recipe_of(feature) is not None
    with torch.no_grad():
        feature.mul_(2.0)
    assert _recompute._recipe_of(feature) is None


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("frozen", [False, True])
def test_evaluation_and_frozen_norms(frozen: bool) -> None:
    net = network()
    step(net, images())
    for part in net.modules():
        part.train(frozen and not isinstance(part, nn.BatchNorm2d))
    before = copy.deepcopy(net.state_dict())
    plain = textbook(net)
    (found, gradients), (expected, reference) = step(net, images(2)), step(plain, images(2))
    assert torch.equal(found, expected)
    assert all(torch.equal(one, other) for one, other in zip(gradients, reference, strict=True))
    with torch.inference_mode():
        torch.testing.assert_close(net(images(2)), expected)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.usefixtures("small")
def test_autocast() -> None:
    net = network()
    plain = textbook(net)
    with torch.autocast("cpu", torch.bfloat16):
        (found, gradients), (expected, reference) = step(net, images()), step(plain, images())
    assert torch.equal(found, expected)
    for one, other in zip(gradients, reference, strict=True):
        assert (one - other).norm() <= 0.02 * other.norm() + 1e-6


@pytest.mark.usefixtures("small")
def test_synchronised_norms_are_still_found_and_left_alone() -> None:
    net = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    kinds = [type(part) for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert kinds
    assert set(kinds) == {nn.SyncBatchNorm}
    # of a single process, statistics are those of the batch: on a CPU torch refuses, so they are watched from outside
    unit = net.blocks[0].residual[0]
    seen = []
    unit[1].forward = lambda feature: seen.append(feature.shape) or feature
    unit(images())
    assert seen == [(2, 4, 13, 15)]


@pytest.mark.usefixtures("small")
def test_hooks_on_a_norm_are_called() -> None:
    unit, seen = layers.conv_norm_act(6, 4), []
    unit[1].register_forward_hook(lambda *_: seen.append("norm"))
    unit[2].register_forward_hook(lambda *_: seen.append("relu"))
    unit[0].register_forward_hook(lambda *_: seen.append("conv"))
    unit(images())
    assert seen == ["conv", "norm", "relu"]


@pytest.mark.usefixtures("small")
def test_hooks_of_all_modules_are_called() -> None:
    unit, seen = layers.conv_norm_act(6, 4), []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        unit(images())
    finally:
        hook.remove()
    assert {"Conv2d", "BatchNorm2d", "ReLU"} <= set(seen)


@pytest.mark.usefixtures("small")
def test_a_summand_that_is_changed_later_is_refused_and_not_computed_with() -> None:
    """Torch itself allows it, since a sum keeps nothing; the sum computed again would be another one."""
    unit = layers.conv_norm_act(3, 3)
    x = torch.randn(2, 3, 4, 5)
    summand = torch.randn(2, 3, 4, 5)
    loss = unit(x, summand).sum()
    summand.mul_(-1.0)
    with pytest.raises(ModelError, match="changed in place"):
        loss.backward()


@pytest.mark.usefixtures("small")
def test_what_only_looks_like_the_feature_is_kept_as_it_is() -> None:
    feature = layers.conv_norm_act(3, 4)(torch.randn(2, 3, 5, 5))
    other = torch.randn(2, 4, 5, 5, requires_grad=True)
    product = _recompute.applied(lambda it: it.transpose(2, 3) * other, feature)
    (gradient,) = torch.autograd.grad(product.sum(), other)
    assert torch.equal(gradient, feature.transpose(2, 3))


@pytest.mark.usefixtures("small")
def test_who_decides_what_is_kept_is_heeded() -> None:
    net = network()
    expected = step(net, images())[1]
    net.load_state_dict(network().state_dict())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda it: it):
        found = step(net, images())[1]
    assert len(kept) > 40  # all that the textbook keeps passes by
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    net.load_state_dict(network().state_dict())
    net.blocks[1].forward = lambda x, block=net.blocks[1]: torch.utils.checkpoint.checkpoint(
        type(block).forward, block, x, use_reentrant=False
    )
    for one, other in zip(step(net, images())[1], expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("small")
def test_features_and_networks_are_copied_and_pickled_without_their_recipes() -> None:
    net = network()
    net(images())
    names = net.state_dict().keys()
    assert copy.deepcopy(net).state_dict().keys() == names == pickle.loads(pickle.dumps(net)).state_dict().keys()


def test_small_features_take_the_plain_path() -> None:
    feature = layers.conv_norm_act(3, 4)(torch.randn(2, 3, 4, 5))
    assert _recompute._recipe_of(feature) is None
