"""The whole DualGCN net against a plain formulation of the released code's forward pass, under the released names.

No output of this net was recorded. Names and shapes alone do not hold what feeds what, so that is written out here.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gald.models.backbone._checkpoint import tensors
from gald.models.released import NETS, released_names
from gald.models.segmentor import Segmentor, build_segmentor

Weights = dict[str, Tensor]
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def conv(w: Weights, name: str, x: Tensor, **options: int) -> Tensor:
    apply = functional.conv1d if x.ndim == 3 else functional.conv2d
    return apply(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **options)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, mean, variance, weight, bias)


def bottleneck(w: Weights, name: str, x: Tensor, stride: int, dilation: int) -> Tensor:
    out = norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x)).relu()
    out = conv(w, f"{name}.conv2", out, stride=stride, padding=dilation, dilation=dilation)
    out = norm(w, f"{name}.bn2", out).relu()
    out = norm(w, f"{name}.bn3", conv(w, f"{name}.conv3", out))
    if f"{name}.downsample.0.weight" in w:
        x = norm(w, f"{name}.downsample.1", conv(w, f"{name}.downsample.0", x, stride=stride))
    return (out + x).relu()


def stem(w: Weights, x: Tensor) -> Tensor:
    x = norm(w, "conv1.1", conv(w, "conv1.0", x, stride=2, padding=1)).relu()
    x = norm(w, "conv1.4", conv(w, "conv1.3", x, padding=1)).relu()
    x = norm(w, "bn1", conv(w, "conv1.6", x, padding=1)).relu()
    return functional.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)


def stages(w: Weights, x: Tensor, blocks: tuple[int, ...]) -> Iterator[Tensor]:
    """Output of each stage; the third is dilated by 2, the fourth by 4 times the multi-grid (1, 2, 4)."""
    dilations = ((1,), (1,), (2,), (4, 8, 16))
    for number, (count, rates) in enumerate(zip(blocks, dilations, strict=True), 1):
        for index in range(count):
            stride = 2 if (number, index) == (2, 0) else 1
            x = bottleneck(w, f"layer{number}.{index}", x, stride, rates[index % len(rates)])
        yield x


def coordinate_graph(w: Weights, name: str, x: Tensor) -> Tensor:
    k, q, v = (conv(w, f"{name}.node_{part}", x).flatten(2) for part in "kqv")
    mixing = torch.bmm(q, v.permute(0, 2, 1)).softmax(-1)
    states = torch.bmm(k.permute(0, 2, 1), mixing).transpose(1, 2)
    states = norm(w, f"{name}.bn_wg", conv(w, f"{name}.conv_wg", states)).unflatten(2, x.shape[2:])
    return (norm(w, f"{name}.out.1", conv(w, f"{name}.out.0", states)) + x).relu()


def feature_graph(w: Weights, name: str, x: Tensor) -> Tensor:
    phi = norm(w, f"{name}.bn_phi", conv(w, f"{name}.phi", x)).flatten(2)
    theta = norm(w, f"{name}.bn_theta", conv(w, f"{name}.theta", x)).flatten(2)
    nodes = torch.matmul(phi, theta.transpose(1, 2))
    smooth = norm(w, f"{name}.bn_adj", conv(w, f"{name}.conv_adj", nodes.transpose(1, 2))).transpose(1, 2) + nodes
    states = norm(w, f"{name}.bn_wg", conv(w, f"{name}.conv_wg", smooth))
    back = torch.matmul(states, theta).unflatten(2, x.shape[2:])
    return (x + norm(w, f"{name}.bn3", conv(w, f"{name}.conv3", back))).relu()


def dual_gcn(w: Weights, name: str, x: Tensor) -> Tensor:
    small = x
    for index in (0, 2, 4):
        small = conv(w, f"{name}.local.{index}", small, stride=2, padding=1, groups=x.shape[1])
        small = norm(w, f"{name}.local.{index + 1}", small)
    gate = coordinate_graph(w, f"{name}.gcn_local_attention", small)
    gate = functional.interpolate(gate, x.shape[2:], mode="bilinear", align_corners=True)
    both = torch.cat([x * gate + x, feature_graph(w, name, x)], 1)
    return norm(w, f"{name}.final.1", conv(w, f"{name}.final.0", both))


def released_forward(w: Weights, images: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Logits of the main and of the auxiliary head, at the features' size."""
    *_, third, fourth = stages(w, stem(w, images), BLOCKS[depth])
    context = norm(w, "head.conva.1", conv(w, "head.conva.0", fourth, padding=1)).relu()
    context = dual_gcn(w, "head.dualgcn", context)
    context = norm(w, "head.convb.1", conv(w, "head.convb.0", context, padding=1)).relu()
    fused = conv(w, "head.bottleneck.0", torch.cat([fourth, context], 1), padding=1)
    main = conv(w, "head.bottleneck.3", norm(w, "head.bottleneck.1", fused).relu())
    aux = conv(w, "dsn.3", norm(w, "dsn.1", conv(w, "dsn.0", third, padding=1)))  # no ReLU, and no dropout here
    return main, aux


def drawn(net: str) -> Segmentor:
    """Build a released network whose every tensor matters to what comes out, in float64."""
    torch.manual_seed(0)
    model = build_segmentor(NETS[net].model, 3).double().eval()
    for name, tensor in tensors(model.state_dict()).items():
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.1)
        elif name not in ("mean", "std"):
            tensor.normal_(0, tensor[0].numel() ** -0.5)
    return model


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("depth", [50, 101])
def test_the_dualgcn_net_equals_the_released_forward_pass(depth):
    net = f"dualgcn_res{depth}"
    model = drawn(net)
    own = tensors(model.state_dict())
    names = released_names((name for name in own if name not in ("mean", "std")), NETS[net].renames)
    weights = {name: own[ours] for name, ours in names.items()}
    images = torch.rand(2, 3, 49, 65, dtype=torch.float64)
    normalised = (images - model.mean) / model.std
    main, aux = released_forward(weights, normalised, depth)
    found = model(images, with_aux=True, full_size=False)
    for ours, theirs in zip(found, (main, aux), strict=True):
        assert ours.shape == theirs.shape == (2, 3, 7, 9)
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)
