import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gald import paths
from gald.errors import GaldError, ParamsError
from gald.models.segmentor import build_segmentor
from gald.params import (
    Box,
    Choice,
    LossParams,
    PhotometricParams,
    Run,
    TrainParams,
    ValidationParams,
    load_suite,
    paper_params,
)
from gald.train import loop, recipe
from gald.train.parallel import World
from gald.train.planned import loss_in_words, planned
from gald.train.recipe import Line, as_record, as_table, effective_recipe, refuse_departures
from gald.train.run import train
from tests.unit.conftest import REPOSITORY

CPU = torch.device("cpu")


class Pretrained(nn.Module):
    """Stands for a network of which all tensors, or some, are pretrained."""

    def __init__(self, loaded: int = 318) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.coverage: dict[str, Any] = {"loaded": loaded, "of": 318, "origin": "hub:resnet50s"}


@functools.cache
def paper_runs() -> tuple[Run, ...]:
    return load_suite("paper", REPOSITORY / "params").runs


def paper_run(name: str, **changes: Any) -> Run:
    run = next(run for run in paper_runs() if run.dataset == name)
    params = run.params.model_copy(update={"train": run.params.train.model_copy(update=changes)})
    return Run(run.name, run.scale, run.dataset, run.row, run.seed, params)


def departures(run: Run, model: Any, world: World) -> dict[str, str]:
    return {line.what: line.effective for line in effective_recipe(run, model, 2975, world) if line.departs}


@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k", "pascal_context", "camvid", "coco_stuff10k"])
def test_a_run_of_the_papers_suite_on_eight_devices_departs_in_nothing(dataset: str) -> None:
    loss = paper_run(dataset).params.train.loss
    own = {"loss": loss.model_copy(update={"min_kept": loss.min_kept // 8}) if loss.name == "ohem" else loss}
    run = paper_run(dataset, **own, strict=True)
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


def strict(run: Run) -> TrainParams:
    return run.params.train.model_copy(update={"strict": True})


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
        {"loss": "OHEM, threshold 0.7, at least 100000 pixels of the 2 samples that a device sees at once"},
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
        (8, 1, 100_000, "one sample", False),  # as the authors train
        (1, 1, 800_000, "8 samples", False),  # as the recipe is written down
        (2, 2, 200_000, "2 samples", False),
        (8, 1, 800_000, "one sample", True),  # more than a crop has: nothing would be mined
        (1, 1, 100_000, "8 samples", True),
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
    assert line.effective == f"OHEM, threshold 0.7, at least {kept} pixels of the {of} that a device sees at once"
    assert line.paper == "OHEM, threshold 0.7, at least 800000 pixels of 8 samples"
    assert line.departs == departs


def test_the_words_of_the_papers_recipe_on_eight_devices() -> None:
    lines = {
        line.what: line for line in effective_recipe(paper_run("cityscapes"), Pretrained(), 2975, World(0, 8, CPU))
    }
    assert lines["global batch"].effective == "8 (8 x 1 x 1: devices, samples, micro-batches)"
    assert lines["batch norm sees"].effective == "8 samples"
    assert lines["samples seen"].effective == "400000"
    assert lines["epochs"].effective == "134.5"
    assert lines["iterations"].effective == "50000"
    assert lines["early stop"].effective == "never"
    assert lines["data"].effective == "full cityscapes, fine"
    assert lines["crop"].effective == "769x769"
    assert lines["colours"].effective == "as they are"
    assert lines["precision"].effective == "float32, convolutions in TF32 where the GPU has it"
    assert lines["pretrained"].effective == "318 of 318 tensors of hub:resnet50s"
    assert lines["scored by"].effective.endswith(" on val")
    assert lines["determinism"].planned == lines["determinism"].effective == "seeded"


def test_a_table_marks_what_departs() -> None:
    lines = [
        Line("crop", "32x48", "32x48", "769x769", departs=True),
        Line("flip", "yes", "yes", "yes"),
        Line("precision", "fp16", "fp16"),
    ]
    assert as_table(lines).splitlines() == [
        "           planned  effective  paper",
        "crop       32x48    32x48      !  769x769",
        "flip       yes      yes        same",
        "precision  fp16     fp16",
    ]
    assert as_record(lines)[0] == {
        "what": "crop", "planned": "32x48", "effective": "32x48", "paper": "769x769", "departs": True
    }  # fmt: skip


def test_strict_refuses_before_the_first_iteration(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_one_iteration", lambda *_: pytest.fail("it trained"))
    run = make_run(train={"strict": True})
    with pytest.raises(
        ParamsError, match=r"train\.strict is on.* departs .* in \d+: .*crop: 32x48, the paper: 360x480"
    ):
        train(run)
    assert not paths.run_json(run.name).exists()
    assert not paths.weights(run.name).exists()


def test_a_training_that_is_refused_leaves_the_finished_one_as_it_is(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"strict": True})
    paths.run_json(run.name).parent.mkdir(parents=True)
    paths.run_json(run.name).write_text("of an earlier training")
    with pytest.raises(ParamsError, match=r"train\.strict is on"):
        train(run)
    assert paths.run_json(run.name).read_text() == "of an earlier training"


def test_products_that_the_environment_rounds_to_tf32_are_named() -> None:
    """Images of GPU vendors set a variable for it, which torch reads as it does this setting."""
    run = paper_run("cityscapes")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        lines = {line.what: line for line in effective_recipe(run, Pretrained(), 2975, World(0, 8, CPU))}
    finally:
        torch.set_float32_matmul_precision(before)
    assert lines["precision"].effective == ("float32, convolutions and matrix products in TF32 where the GPU has it")


def test_strict_without_a_paper_to_compare_with_is_refused(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "paper_params", lambda dataset: None)
    run = make_run(train={"strict": True})
    with pytest.raises(
        ParamsError,
        match=r"train\.strict is on, and the paper's recipe of camvid is not known: .* set train\.strict to",
    ):
        train(run)


def test_a_run_records_and_tells_its_recipe(make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gald")
    run = make_run(train={"max_iters": 4, "micro_batches": 2})
    train(run)
    recorded = json.loads(paths.run_json(run.name).read_text())["recipe"]
    by_name = {line["what"]: line for line in recorded}
    assert by_name["global batch"]["effective"] == "4 (1 x 2 x 2: devices, samples, micro-batches)"
    assert by_name["batch norm sees"] == {
        "what": "batch norm sees", "planned": "4 samples", "effective": "2 samples", "paper": "8 samples",
        "departs": True, "changed": False,
    }  # fmt: skip
    assert by_name["samples seen"]["effective"] == "16"
    assert by_name["determinism"]["effective"] == "bitwise"
    told = [message for message in caplog.messages if "batches of 4 (1 x 2 x 2" in message]
    assert len(told) == 1
    assert "micro-batches) (planned: 4), batch norm sees 2 samples (planned: 4 samples), learning rate 0.05" in told[0]
    assert "float32, compiled: no, pretrained: none, bitwise" in told[0]
    first = next(index for index, message in enumerate(caplog.messages) if "training 4 iterations" in message)
    assert caplog.messages.index(told[0]) < first


def test_the_words_of_a_run_on_one_device(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"decay_norm_and_bias": False, "clip_gradient_norm": 1.5, "average_decay": 0.99})
    model = build_segmentor(run.params.model, 4)
    lines = {line.what: line for line in effective_recipe(run, model, 10, World(0, 1, CPU))}
    assert lines["optimiser"].effective == (
        "sgd, momentum 0.9, weight decay 0.0005, none for norms and biases, gradients clipped at 1.5, "
        "weights averaged at 0.99"
    )
    assert lines["learning rate"].effective == "0.05, poly 0.9, head x 2, 3 iterations of warm-up"
    assert lines["pretrained"].effective == "none"
    assert lines["pretrained"].departs
    assert lines["global batch"].effective == "4"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_a_compiled_network_trains_too(make_run: Callable[..., Run]) -> None:
    from torch._inductor import cpp_builder, cpu_vec_isa, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("no compiler here")
    if not cpu_vec_isa.pick_vec_isa():
        pytest.skip("torch writes code that does not compile for a processor without vectors")
    found = []
    for compiled in (False, True):
        run = make_run(train={"max_iters": 4, "log_every": 4, "compile": compiled})
        train(run)
        record = json.loads(paths.run_json(run.name).read_text())
        found.append(json.loads(paths.history(run.name).read_text())["loss"])
        assert record["iterations"] == 4
    assert found[1] == pytest.approx(found[0], rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_a_compiler_that_is_not_there_is_said_in_a_line(make_run: Callable[..., Run]) -> None:
    from torch._inductor import config

    torch.compiler.reset()
    run = make_run(train={"max_iters": 4, "compile": True})
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(GaldError, match=r"camvid.*: torch\.compile failed \(.*\); set train\.compile to false"),
    ):
        train(run)
