import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gald import paths
from gald.errors import ParamsError
from gald.models.segmentor import build_segmentor
from gald.params import Run, load_suite
from gald.train import loop
from gald.train.parallel import World
from gald.train.recipe import Line, as_record, as_table, effective_recipe, refuse_departures
from gald.train.run import train
from tests.unit.conftest import REPOSITORY

CPU = torch.device("cpu")


@pytest.fixture
def params_here(tmp_path: Path) -> None:
    """Make the project's params those of the current folder."""
    (tmp_path / "params").symlink_to(REPOSITORY / "params")


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


@pytest.mark.usefixtures("params_here", "prepared")
@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k", "pascal_context", "camvid", "coco_stuff10k"])
def test_a_run_of_the_papers_suite_on_eight_devices_departs_in_nothing(dataset: str) -> None:
    assert departures(paper_run(dataset), Pretrained(), World(0, 8, CPU)) == {}
    refuse_departures(paper_run(dataset, strict=True), effective_recipe(
        paper_run(dataset, strict=True), Pretrained(), 2975, World(0, 8, CPU)
    ))  # fmt: skip


@pytest.mark.usefixtures("params_here", "prepared")
def test_what_departs_is_marked_and_nothing_else() -> None:
    world = World(0, 8, CPU)
    norms = departures(paper_run("cityscapes", batch_norm="local"), Pretrained(), world)
    assert norms == {"batch norm sees": "1 samples"}
    smaller = departures(paper_run("cityscapes", batch_size=16, micro_batches=2), Pretrained(), world)
    assert smaller == {"global batch": "16 (8 x 1 x 2: devices, samples, micro-batches)"}
    assert departures(paper_run("cityscapes"), Pretrained(300), world) == {
        "pretrained": "300 of 318 tensors of hub:resnet50s"
    }
    frozen = departures(paper_run("cityscapes", batch_norm="frozen", learning_rate=0.02), Pretrained(), world)
    assert frozen == {"batch norm sees": "frozen statistics", "learning rate": "0.02, poly 0.9"}
    groups = Pretrained()
    groups.norm = nn.GroupNorm(1, 3)
    assert departures(paper_run("cityscapes"), groups, world) == {"batch norm sees": "no batch norm in this network"}


@pytest.mark.usefixtures("params_here", "prepared")
def test_hard_pixels_are_said_to_be_those_of_a_device() -> None:
    lines = {
        line.what: line for line in effective_recipe(paper_run("cityscapes"), Pretrained(), 2975, World(0, 8, CPU))
    }
    assert lines["loss"].effective == "OHEM, threshold 0.7, at least 800000 pixels, of each device's 1 samples"
    assert lines["loss"].departs is False
    assert lines["global batch"].effective == "8 (8 x 1 x 1: devices, samples, micro-batches)"
    assert lines["batch norm sees"].effective == "8 samples"
    assert lines["samples seen"].effective == "400000"
    assert lines["epochs"].effective == "134.5"
    assert lines["iterations"].effective == "50000"
    assert lines["crop"].effective == "769x769"
    assert lines["precision"].effective == "float32"
    assert lines["pretrained"].effective == "318 of 318 tensors of hub:resnet50s"
    assert lines["scored on"].effective == "val"
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


@pytest.mark.usefixtures("params_here")
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


def test_strict_without_a_paper_to_compare_with_is_refused(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"strict": True})
    with pytest.raises(
        ParamsError, match=r"train\.strict is on, and there is no folder params .* set train\.strict to"
    ):
        train(run)


@pytest.mark.usefixtures("params_here")
def test_a_run_records_and_tells_its_recipe(make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gald")
    run = make_run(train={"max_iters": 4, "micro_batches": 2})
    train(run)
    recipe = json.loads(paths.run_json(run.name).read_text())["recipe"]
    by_name = {line["what"]: line for line in recipe}
    assert by_name["global batch"]["effective"] == "4 (1 x 2 x 2: devices, samples, micro-batches)"
    assert by_name["batch norm sees"] == {
        "what": "batch norm sees", "planned": "4 samples", "effective": "2 samples", "paper": "8 samples",
        "departs": True,
    }  # fmt: skip
    assert by_name["samples seen"]["effective"] == "16"
    assert by_name["determinism"]["effective"] == "bitwise"
    told = [message for message in caplog.messages if "batches of 4 (1 x 2 x 2" in message]
    assert len(told) == 1
    assert "batch norm sees 2 samples" in told[0]
    first = next(index for index, message in enumerate(caplog.messages) if "training 4 iterations" in message)
    assert caplog.messages.index(told[0]) < first


@pytest.mark.usefixtures("params_here")
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
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("no compiler here")
    found = []
    for compiled in (False, True):
        run = make_run(train={"max_iters": 4, "log_every": 4, "compile": compiled})
        train(run)
        record = json.loads(paths.run_json(run.name).read_text())
        found.append(json.loads(paths.history(run.name).read_text())["loss"])
        assert record["iterations"] == 4
    assert found[1] == pytest.approx(found[0], rel=0.05)
