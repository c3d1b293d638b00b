"""What departs from the paper's recipe."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gald.errors import ParamsError
from gald.params import Box, Choice, LossParams, PhotometricParams, ValidationParams, load_suite, paper_params
from gald.train import recipe
from gald.train.parallel import World
from gald.train.planned import loss_in_words, planned
from gald.train.recipe import effective_recipe, refuse_departures
from tests.unit.conftest import REPOSITORY
from tests.unit.train.papers import CPU, Pretrained, departures, paper_run, paper_runs, strict


@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k", "pascal_context", "camvid", "coco_stuff10k"])
def test_a_run_of_the_papers_suite_on_eight_devices_departs_in_nothing(dataset: str) -> None:
    run = paper_run(dataset, strict=True)
    assert departures(run, Pretrained(), World(0, 8, CPU)) == {}
    refuse_departures(run, effective_recipe(run, Pretrained(), 2975, World(0, 8, CPU)))


def test_the_shipped_papers_recipe_is_word_for_word_the_one_that_departures_are_told_from() -> None:
    for run in paper_runs():
        reference = paper_params(run.dataset)
        assert reference is not None
        assert dict(planned(run.params, None)) == dict(planned(reference, None)), run.name


EDITS = [
    ("recipes.yaml", "        max_iters: 160000", "        max_iters: 1600", {"iterations": "1600"}),
    ("recipes.yaml", "crop_size: [512, 512]", "crop_size: [256, 256]", {"crop": "256x256"}),
    ("base.yaml", "momentum: 0.9 ", "momentum: 0.95 ", {"optimiser": "sgd, momentum 0.95, weight decay 0.0005"}),
    ("base.yaml", "learning_rate: 0.01", "learning_rate: 0.02", {"learning rate": "0.02, poly 0.9"}),
    (
        "protocols.yaml",
        "  scales: [1.0]\n  flip: false\n\nsliding:",
        "  scales: [1.0]\n  flip: true\n\nsliding:",
        {"scored by": "whole on val, images resized to at most 2048x512, ratio kept, flipped too, logits averaged"},
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "expected"), EDITS, ids=[new.split()[0] for _, _, new, _ in EDITS])
def test_an_edit_of_the_users_files_is_a_departure_and_moves_no_reference(
    tmp_path: Path, file: str, old: str, new: str, expected: dict[str, str]
) -> None:
    root = tmp_path / "params"
    shutil.copytree(REPOSITORY / "params", root)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    run = next(run for run in load_suite("paper", root).runs if run.dataset == "ade20k")
    run = dataclasses.replace(run, params=run.params.model_copy(update={"train": strict(run)}))
    found = effective_recipe(run, Pretrained(), 20210, World(0, 8, CPU))
    assert {line.what: line.effective for line in found if line.departs} == expected
    with pytest.raises(ParamsError, match=re.escape(f"departs from the paper's in 1: {next(iter(expected))}: ")):
        refuse_departures(run, found)


def test_a_benchmark_of_the_users_own_departs_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paper_params("their_own") is None
    monkeypatch.setattr(recipe, "paper_params", lambda dataset: None)
    assert departures(paper_run("ade20k", learning_rate=0.5), Pretrained(), World(0, 1, CPU)) == {}


def test_what_departs_is_marked_and_nothing_else() -> None:
    world = World(0, 8, CPU)
    norms = departures(paper_run("ade20k", batch_norm="local"), Pretrained(), world)
    assert norms == {"batch norm sees": "2 samples"}
    larger = departures(paper_run("ade20k", batch_size=32, micro_batches=2), Pretrained(), world)
    assert larger == {"global batch": "32 (8 x 2 x 2: devices, samples, micro-batches)"}
    assert departures(paper_run("ade20k"), Pretrained(300), world) == {
        "pretrained": "300 of 318 tensors of hub:resnet50s"
    }
    frozen = departures(paper_run("ade20k", batch_norm="frozen", learning_rate=0.02), Pretrained(), world)
    assert frozen == {"batch norm sees": "frozen statistics", "learning rate": "0.02, poly 0.9"}
    groups = Pretrained()
    groups.norm = nn.GroupNorm(1, 3)
    assert departures(paper_run("ade20k"), groups, world) == {"batch norm sees": "no batch norm in this network"}


def smoothed(**changes: Any) -> dict[str, Any]:
    loss = {"name": "cross_entropy", "threshold": 0.7, "min_kept": 100000, "class_weights": None, "label_smoothing": 0}
    return {"loss": LossParams.model_validate(loss | changes)}


CHANGES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"image_size": (512, 512)}, {"input size": "512x512"}),
    ({"image_size": Box(long_side=520, short_side=520)}, {"input size": "at most 520x520, ratio kept"}),
    ({"crop_size": (512, 1024)}, {"crop": "512x1024"}),
    ({"scale_range": (0.7, 2.1)}, {"scale": "0.7 to 2.1"}),
    ({"flip": False}, {"flip": "no"}),
    (
        {"photometric": PhotometricParams(brightness=0.3, contrast=0, saturation=0, hue=0.1)},
        {"colours": "brightness +-0.3, hue +-0.1"},
    ),
    ({"max_class_ratio": 1.0}, {"crop's largest class": "any share"}),
    ({"max_iters": 1000}, {"iterations": "1000"}),
    ({"splits": ("val",)}, {"training splits": "val"}),
    ({"momentum": 0.95}, {"optimiser": "sgd, momentum 0.95, weight decay 0.0005"}),
    ({"betas": (0.8, 0.9)}, {}),
    ({"optimiser": "adamw"}, {"optimiser": "adamw, betas 0.9, 0.999, weight decay 0.0005"}),
    (
        {"decay_norm_and_bias": False},
        {"optimiser": "sgd, momentum 0.9, weight decay 0.0005, none for norms and biases"},
    ),
    ({"power": 1.0}, {"learning rate": "0.01, poly 1"}),
    ({"warmup_iters": 500}, {"learning rate": "0.01, poly 0.9, 500 iterations of warm-up"}),
    ({"head_learning_rate_factor": 10.0}, {"learning rate": "0.01, poly 0.9, head x 10"}),
    ({"aux_weight": 0.2}, {"auxiliary loss weight": "0.2"}),
    ({"precision": "bf16"}, {"precision": "bf16"}),
    (
        {"validation": ValidationParams(every=500, split="val", samples=100, patience=3)},
        {"early stop": "after 3 validations of 100 samples on val without a better one, every 500"},
    ),
    ({"validation": ValidationParams(every=500, split="val", samples=None, patience=None)}, {}),
    (smoothed(label_smoothing=0.1), {"loss": "cross-entropy, labels smoothed by 0.1"}),
    (smoothed(threshold=0.5, min_kept=5), {}),
    (
        smoothed(name="ohem"),
        {"loss": "OHEM, threshold 0.7, at least 12500 pixels of the 2 samples that a device sees at once"},
    ),
    ({"threads": 4, "workers": 2, "channels_last": False, "log_every": 7, "activation_checkpointing": True}, {}),
    ({"compile": True}, {}),
]


@pytest.mark.parametrize(("changes", "expected"), CHANGES, ids=[", ".join(changes) for changes, _ in CHANGES])
def test_every_change_that_moves_a_number_is_marked(changes: dict[str, Any], expected: dict[str, str]) -> None:
    """Each alone, and nothing else with it."""
    run = paper_run("ade20k", **changes, strict=True)
    found = effective_recipe(run, Pretrained(), 20210, World(0, 8, CPU))
    assert {line.what: line.effective for line in found if line.departs} == expected
    if expected:
        with pytest.raises(ParamsError, match=re.escape(f"departs from the paper's in 1: {next(iter(expected))}: ")):
            refuse_departures(run, found)
    else:
        refuse_departures(run, found)


def test_class_weights_are_compared_by_their_values() -> None:
    """150 weights are more than a table holds, so their digest stands for them."""
    weights = tuple(1 + index / 100 for index in range(150))
    texts = []
    for values in (weights, (*weights[1:], weights[0])):
        found = departures(paper_run("ade20k", **smoothed(class_weights=values)), Pretrained(), World(0, 8, CPU))
        assert re.fullmatch(r"cross-entropy, class weights 1 to 2\.49 \(digest [0-9a-f]{8}\)", found["loss"])
        texts.append(found["loss"])
    assert texts[0] != texts[1]
    few = smoothed(class_weights=(1.0, 0.25, 2.0))["loss"]
    assert loss_in_words(few) == "cross-entropy, class weights 1 0.25 2"


@pytest.mark.parametrize(
    ("section", "changes", "what", "words"),
    [
        ("model", {"aux_head": None}, {"auxiliary loss weight", "network"}, "no auxiliary head"),
        ("model", {"channels": 256}, {"network"}, "resnet depth=50 output_stride=8 .*, neck of 256, auxiliary"),
        ("model", {"align_corners": False}, {"network"}, "dropout 0.1, corners not aligned"),
        ("model", {"aggregation": Choice(name="none")}, set(), ""),  # a row of the paper's own tables
        ("evaluate", {"image_size": (256, 256)}, {"scored by"}, "whole on val, images resized to 256x256"),
        ("evaluate", {"gallery": 0}, set(), ""),
    ],
)
def test_another_network_or_protocol_is_marked(
    section: str, changes: dict[str, Any], what: set[str], words: str
) -> None:
    run = paper_run("ade20k")
    changed = getattr(run.params, section).model_copy(update=changes)
    run = dataclasses.replace(run, params=run.params.model_copy(update={section: changed}))
    found = departures(run, Pretrained(), World(0, 8, CPU))
    assert set(found) == what
    assert re.search(words, " ".join(found.values()))


def test_a_miniature_benchmark_is_not_the_papers_data() -> None:
    run = paper_run("ade20k")
    run = dataclasses.replace(run, params=run.params.model_copy(update={"edition": "mini"}))
    assert set(departures(run, Pretrained(), World(0, 8, CPU))) == {"data"}


@pytest.mark.parametrize(
    ("devices", "micro_batches", "kept", "of", "departs"),
    [
        (1, 1, 800_000, "800000 pixels of the 8 samples", False),
        (2, 2, 800_000, "200000 pixels of the 2 samples", False),
        (8, 1, 800_000, "100000 pixels of the one sample", False),  # as the authors do; a crop has fewer than 800 000
        (1, 1, 100_000, "100000 pixels of the 8 samples", True),
        (8, 1, 800_001, "100001 pixels of the one sample", True),
    ],
)
def test_hard_pixels_are_said_to_be_those_of_a_device(
    devices: int, micro_batches: int, kept: int, of: str, departs: bool
) -> None:
    loss = paper_run("cityscapes").params.train.loss.model_copy(update={"min_kept": kept})
    run = paper_run("cityscapes", loss=loss, micro_batches=micro_batches)
    line = next(
        line for line in effective_recipe(run, Pretrained(), 2975, World(0, devices, CPU)) if line.what == "loss"
    )
    assert line.effective == f"OHEM, threshold 0.7, at least {of} that a device sees at once"
    assert line.paper == "OHEM, threshold 0.7, at least 800000 pixels of 8 samples"
    assert line.departs == departs
