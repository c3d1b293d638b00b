"""The four networks of the paper authors' released code: their options here, and how their tensors are named there.

What is known of them, and from where (repository lxtGH/GALD-DGCNet):

- Layers and names: ``libs/models/GALDNet.py`` and ``libs/models/DualGCNNet.py``. The R-50 GALD net and the blocks of
  both heads are held against recorded numbers; R-101 differs in the blocks of the third stage, 23 for 6, and the
  DualGCN nets in the block, which neither downsamples nor distributes, and in the auxiliary head, which has no ReLU.
- Images: ``libs/datasets/cityscapes.py`` reads BGR in 0..255 and subtracts the mean of Caffe's networks, unless ``--rgb
  1`` asks for RGB in [0, 1] with ImageNet's mean and deviation. ``exp/train_dualseg_r_{50,101}_city_finetrain.sh`` ask
  for it, ``exp/train_gald_r_101_city_finetrain.sh`` and ``inferenceGALD.py`` do not.

This module imports no torch, so that a command line can list the networks at no cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gald.errors import ModelError
from gald.params import AuxHead, Choice, ModelParams
from gald.plugins import nearest

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Regular expressions on our names and what they become, applied in order."""

CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)
"""Mean of blue, green and red in 0..255 that the GALD nets' images are freed of."""

FIRST_CONVOLUTION = "conv1.0.weight"
"""Released name of the one tensor whose input channels are colours."""


@dataclass(frozen=True)
class Released:
    """One network of the released code.

    Attributes
    ----------
    model : ModelParams
        Options that build it here.
    renames : Renames
        From our tensors' names to the released ones.
    rgb : bool
        Its training script reads RGB with ImageNet's mean and deviation (``--rgb 1``), otherwise BGR with Caffe's mean.
    """

    model: ModelParams
    renames: Renames
    rgb: bool


CGNL: Renames = [(r"\bnorm\.", "gn.")]
GALD_BLOCK: Renames = [
    (r"\bdistribution\.reduce\.(\d)", lambda match: f"local_attention.dconv{int(match[1]) + 1}"),
    (r"\breduce\.", "down."), (r"\baggregation\.", "long_relation."), *CGNL,
]  # fmt: skip
COORDINATE_GRAPH: Renames = [
    (r"\bkey\.", "node_k."), (r"\bquery\.", "node_q."), (r"\bvalue\.", "node_v."),
    (r"\bupdate\.0", "conv_wg"), (r"\bupdate\.1", "bn_wg"),
]  # fmt: skip
DUAL_GCN: Renames = [
    (r"\bdown\.(\d)\.(\d)", lambda match: f"local.{2 * int(match[1]) + int(match[2])}"),
    (r"\bcoordinate\.", "gcn_local_attention."), (r"\bfuse\.", "final."),
    (r"\bfeature\.reduce\.0", "phi"), (r"\bfeature\.reduce\.1", "bn_phi"),
    (r"\bfeature\.assign\.0", "theta"), (r"\bfeature\.assign\.1", "bn_theta"),
    (r"\bfeature\.adjacency\.0", "conv_adj"), (r"\bfeature\.adjacency\.1", "bn_adj"),
    (r"\bfeature\.out\.0", "conv3"), (r"\bfeature\.out\.1", "bn3"),
    (r"\bfeature\.update", "update"), *COORDINATE_GRAPH,
]  # fmt: skip
_NET: Renames = [
    (r"^backbone\.stem\.2\.1", "bn1"),
    (r"^backbone\.stem\.(\d)\.(\d)", lambda match: f"conv1.{3 * int(match[1]) + int(match[2])}"),
    (r"^backbone\.stage", "layer"), (r"\.shortcut\.", ".downsample."),
    (r"\.residual\.(\d)\.0\.", lambda match: f".conv{int(match[1]) + 1}."),
    (r"\.residual\.(\d)\.1\.", lambda match: f".bn{int(match[1]) + 1}."),
    (r"^head\.before\.", "head.conva."), (r"^head\.after\.", "head.convb."),
    (r"^head\.fuse\.", "head.bottleneck."), (r"^head\.classifier\.", "head.bottleneck.3."),
    (r"^aux_head\.transform\.", "dsn."),
]  # fmt: skip
_GALD: Renames = [
    *_NET, (r"^aux_head\.classifier\.", "dsn.4."), (r"^head\.block\.", "head.a2block."), *GALD_BLOCK
]  # fmt: skip
_DUAL: Renames = [
    *_NET, (r"^aux_head\.classifier\.", "dsn.3."), (r"^head\.block\.aggregation\.", "head.dualgcn."), *DUAL_GCN
]  # fmt: skip


def _model(depth: Literal[50, 101], *, dual: bool) -> ModelParams:
    return ModelParams(
        backbone=Choice.model_validate(
            {"name": "resnet", "depth": depth, "output_stride": 8, "multi_grid": (1, 2, 4)},
        ),
        channels=512,
        aggregation=Choice(name="dual_gcn" if dual else "cgnl"),
        aggregation_stride=1 if dual else 2,
        distribution=Choice(name="none")
        if dual
        else Choice.model_validate({"name": "mask", "reductions": 3, "residual": "g"}),
        aux_head=AuxHead(channels=512, relu=not dual, dropout=0.1),
        align_corners=True,
    )


NETS: Mapping[str, Released] = {
    "gald_res50": Released(_model(50, dual=False), _GALD, rgb=False),
    "gald_res101": Released(_model(101, dual=False), _GALD, rgb=False),
    "dualgcn_res50": Released(_model(50, dual=True), _DUAL, rgb=True),
    "dualgcn_res101": Released(_model(101, dual=True), _DUAL, rgb=True),
}
"""Every network of the released code, by the name it has here."""


def find(net: str) -> Released:
    """Look up a released network.

    Raises
    ------
    ModelError
        No network has this name.
    """
    if net not in NETS:
        raise ModelError(f"no released network is called {net!r}; {nearest(net, NETS)}")
    return NETS[net]


def released_names(names: Iterable[str], renames: Renames) -> dict[str, str]:
    """Map the released names of tensors to ours.

    Parameters
    ----------
    names : iterable of str
        Ours.
    renames : Renames
        From ours to the released ones.

    Returns
    -------
    dict of str to str
        Released name -> ours, in the order of ours.

    Raises
    ------
    ModelError
        Two of ours come to one name; the renames do not belong to such a network.

    Examples
    --------
    >>> released_names(["head.block.reduce.0.weight", "head.after.1.bias"], NETS["gald_res50"].renames)
    {'head.a2block.down.0.weight': 'head.block.reduce.0.weight', 'head.convb.1.bias': 'head.after.1.bias'}
    """
    found: dict[str, str] = {}
    for ours in names:
        name = ours
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        if name in found:
            raise ModelError(f"tensors {found[name]} and {ours} would both be {name} in the released code")
        found[name] = ours
    return found
