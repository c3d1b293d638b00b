import copy
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from gald import paths
from gald.errors import ModelError
from gald.models import _recompute
from gald.models.backbone import resnet, timm, tiny
from gald.params import Run
from gald.train.recompute import recompute_blocks
from gald.train.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


def passed(backbone: nn.Module, images: Tensor) -> tuple[int, dict[str, Tensor], dict[str, Tensor]]:
    """Bytes saved by a forward pass, gradients after the backward one, and all buffers."""
    saved: dict[int, Tensor] = {}
    own = {id(value) for value in backbone.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        features = backbone(images)
    size = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    torch.manual_seed(5)
    (features.main * torch.randn(features.main.shape)).sum().backward()
    gradients = {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None}
    return size, gradients, dict(backbone.named_buffers())


def check_equal(backbone: nn.Module, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size)
    plain = copy.deepcopy(backbone)
    assert recompute_blocks(backbone) > 0
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    for _ in range(2):
        for model in (plain, backbone):
            model.zero_grad()
        (much, expected, statistics), (little, found, counted) = passed(plain, images), passed(backbone, images)
    assert little < much
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    for name, value in statistics.items():
        assert torch.equal(counted[name], value), name
        if name.endswith("num_batches_tracked"):
            assert value == 2


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_tiny_backbone_computed_twice_is_the_same_to_the_bit(norm: Any) -> None:
    check_equal(tiny.build(norm=norm, blocks=3), (32, 48))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet50", "tf_efficientnet_lite0"])
def test_a_large_backbone_computed_twice_is_the_same_to_the_bit(kind: str) -> None:
    check_equal(resnet.build(depth=50) if kind == "resnet50" else timm.build(model=kind), (48, 64))


def test_every_block_is_one_of_a_residual_network() -> None:
    assert recompute_blocks(resnet.build(depth=50)) == 16
    assert recompute_blocks(tiny.build(blocks=3)) == 3
    with pytest.raises(ModelError, match=r"Sequential has no blocks .* train\.activation_checkpointing to false"):
        recompute_blocks(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_a_copy_computes_with_its_own_weights() -> None:
    """What is validated or published with an average is a copy."""
    backbone = tiny.build().train()
    recompute_blocks(backbone)
    copied = copy.deepcopy(backbone)
    with torch.no_grad():
        for value in backbone.parameters():
            value.zero_()
    images = torch.randn(1, 3, 16, 16)
    assert backbone(images).main.abs().max() == 0
    copied(images).main.sum().backward()
    assert all(value.grad is not None for value in copied.parameters())
    assert copied.last.residual[0].weight.grad.abs().max() > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_blocks_are_computed_twice_where_the_network_is_compiled() -> None:
    torch.compiler.reset()
    backbone = tiny.build(norm="batch", blocks=3).train()
    plain = copy.deepcopy(backbone)
    recompute_blocks(backbone)
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 48).reshape(2, 3, 32, 48)
    sizes = []
    for model in (plain, backbone):
        saved: dict[int, Tensor] = {}
        compiled = torch.compile(model, backend="aot_eager")

        def pack(tensor: Tensor, saved: dict[int, Tensor] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            features = compiled(images)
        features.main.square().sum().backward()
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in saved.values()))
    assert sizes[1] < sizes[0]
    for mine, other in zip(backbone.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    for (name, value), other in zip(backbone.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(value, other, msg=name)


def test_dropout_inside_a_block_draws_the_same_twice() -> None:
    backbone = tiny.build(blocks=2)
    for part in (backbone.early[0], backbone.last):
        part.residual.insert(3, nn.Dropout(0.5))
    plain = copy.deepcopy(backbone)
    recompute_blocks(backbone)
    found = []
    for model in (plain, backbone):
        torch.manual_seed(3)
        model(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)).main.square().sum().backward()
        found.append([value.grad for value in model.parameters()])
    for mine, other in zip(*found, strict=True):
        assert torch.equal(mine, other)


def test_a_training_with_it_gives_the_same_weights_to_the_bit(make_run: Callable[..., Run]) -> None:
    validation = {"every": 3, "split": "test", "samples": 2, "patience": None}
    found = []
    for twice in (False, True):
        recipe = {"max_iters": 6, "average_decay": 0.9, "validation": validation, "activation_checkpointing": twice}
        run = make_run(train=recipe)
        train(run)
        found.append(safetensors.torch.load_file(paths.weights(run.name)))
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name


def test_norms_are_not_computed_again_where_others_decide_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recompute, "LEAST_ELEMENTS", 1)
    feature = torch.randn(2, 3, 4, 4, requires_grad=True)
    assert _recompute.recomputes(feature)
    with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        assert not _recompute.recomputes(feature)


@pytest.mark.slow
def test_both_ways_to_compute_again_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms outside of the blocks are computed again too, those inside by the block alone."""
    monkeypatch.setattr(_recompute, "LEAST_ELEMENTS", 1)
    torch.manual_seed(0)
    plain, images = resnet.build(depth=50), torch.randn(2, 3, 16, 24)
    twice = copy.deepcopy(plain)
    recompute_blocks(twice)
    for model in (plain, twice):
        model(images).main.square().sum().backward()
    for (name, mine), other in zip(twice.named_parameters(), plain.parameters(), strict=True):
        # a norm computed again alone takes its deviation from an inverse, and so rounds differently
        scale = other.grad.abs().max().item()
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-5 * scale, msg=name)
    for (name, mine), other in zip(twice.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, other), name
