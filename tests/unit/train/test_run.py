import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import gald
from gald import files, paths
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError, GaldError, RunBusy, TrainingDiverged, TrainingInterrupted
from gald.models.segmentor import build_segmentor
from gald.params import Run
from gald.prepare.pack import pack
from gald.process import locking
from gald.train import checkpoint, history, loop, trial
from gald.train import run as train_run
from gald.train import start as start_of
from gald.train.interval import Interval, IterationLosses
from gald.train.loader import CachedSamples
from gald.train.parallel import World
from gald.train.recipe import Line, effective_recipe
from gald.train.run import train
from tests.processes import wait_until
from tests.unit.conftest import write_prepared

CHILD = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
from gald.errors import GaldError
from gald.params import Run, RunParams
from gald.train.run import train
name, content = sys.argv[1:]
params = RunParams.model_validate_json(content)
try:
    train(Run(name, *name.split("/")[:2], "none", params.train.seed, params))
except GaldError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def start(run: Run, **kwargs: Any) -> subprocess.Popen[str]:
    """Train in a process of its own, as a workflow does."""
    environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1])}
    arguments = [sys.executable, "-c", CHILD, run.name, run.params.model_dump_json()]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment, **kwargs)


def outcome(run: Run) -> tuple[str, str, list[dict[str, Any]], str]:
    """What a run leaves, times left out."""
    lines = history.read(paths.history(run.name))
    kept = [
        {
            key: value
            for key, value in line.items()
            if key not in ("images_per_second", "data_wait", "memory_mib", "timestamp")
        }
        for line in lines
    ]
    csv = paths.history_csv(run.name).read_text()
    return files.sha256(paths.weights(run.name)), paths.run_json(run.name).read_text(), kept, csv


def test_a_run_leaves_what_it_promises(make_run: Callable[..., Run]) -> None:
    run = make_run()
    train(run)
    record = json.loads(paths.run_json(run.name).read_text())
    assert record["run"] == run.name
    assert record["params_sha256"] == run.digest()
    assert record["manifest_sha256"] == files.sha256(paths.manifest("mini", "camvid"))
    assert record["weights"] == {"file": "weights.safetensors", "sha256": files.sha256(paths.weights(run.name))}
    assert (record["iterations"], record["num_classes"], record["determinism"]) == (30, 4, "bitwise")
    assert record["environment"]["threads"] == 1
    assert record["resumed_from"] == []
    assert yaml.safe_load(paths.run_params(run.name).read_text())["train"]["max_iters"] == 30
    lines = history.read(paths.history(run.name))
    assert [line["iteration"] for line in lines] == [7, 14, 21, 28, 30]
    assert lines[-1]["loss"] < lines[0]["loss"] / 1.5
    assert paths.history_csv(run.name).read_text().splitlines()[1].startswith("7,")
    assert not paths.checkpoint_dir(run.name).exists()
    model = gald.load(paths.weights(run.name))
    assert model(torch.zeros(1, 3, 32, 48)).logits.shape == (1, 4, 32, 48)


def test_a_repeated_run_is_the_same_to_the_bit_whatever_the_workers(make_run: Callable[..., Run]) -> None:
    run = make_run()
    train(run)
    first = outcome(run)
    train(run)
    assert outcome(run) == first
    threaded = make_run("mini/camvid/none-seed1", train={"workers": 2})
    train(threaded)
    assert outcome(threaded)[0] == first[0]
    assert outcome(threaded)[2:] == first[2:]


def test_the_store_that_samples_are_read_from_changes_no_bit(make_run: Callable[..., Run]) -> None:
    run = make_run()
    train(run)
    from_files = outcome(run)
    pack("mini", "camvid")
    train(run)
    assert outcome(run) == from_files


def blacken(path: Path) -> None:
    """Rewrite the pixels of a mask, or the last part of a shard; its size stays."""
    if path.suffix == ".bin":
        content = path.read_bytes()
        path.write_bytes(content[:1000].ljust(len(content), b"\0"))
    else:
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)


@pytest.mark.parametrize("store", ["packed", "files"])
def test_other_pixels_than_were_prepared_are_refused(make_run: Callable[..., Run], prepared: Path, store: str) -> None:
    run = make_run()
    if store == "packed":
        pack("mini", "camvid")
        train(run)
        blacken(paths.packed("mini", "camvid") / "train-00000.bin")
        message = r"train-00000\.bin does not hold .*; run `gald pack mini/camvid` again"
    else:
        for path in (prepared / "masks/train").iterdir():
            blacken(path)
        message = r"sample train/.*masks/train/scene\d\d\.png does not hold .*; run `gald prepare mini/camvid` again"
    with pytest.raises(DatasetError, match=message):
        train(run)
    assert not list(paths.checkpoint_dir(run.name).glob("*"))


@pytest.mark.parametrize("store", ["packed", "files"])
def test_data_made_again_during_a_training_is_never_mixed_in(
    make_run: Callable[..., Run], prepared: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    def train_some(state: loop.State, samples: Any, params: Any, hooks: loop.Hooks, world: Any) -> None:
        real(state, samples, params, hooks, world)
        write_prepared(prepared, {"train": 10, "test": 5}, seed=1)

    run, real = make_run(), loop.train
    if store == "packed":
        pack("mini", "camvid")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", train_some)
        with pytest.raises(
            DatasetError,
            match=r"manifest\.json changed during the training .*; run `gald train mini/camvid/none-seed0`",
        ):
            train(run)
    assert not paths.run_json(run.name).exists()
    assert not paths.weights(run.name).exists()
    assert not paths.checkpoint_dir(run.name).exists()
    train(run)
    assert json.loads(paths.run_json(run.name).read_text())["manifest_sha256"] == files.sha256(
        prepared / "manifest.json"
    )


def test_a_manifest_that_went_away_costs_no_checkpoint(
    make_run: Callable[..., Run], prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_some(state: loop.State, samples: Any, params: Any, hooks: loop.Hooks, world: Any) -> None:
        real(state, samples, params, hooks, world)
        kept.write_bytes((prepared / "manifest.json").read_bytes())
        (prepared / "manifest.json").unlink()

    run, real, kept = make_run(), loop.train, Path("kept")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", train_some)
        with pytest.raises(DatasetError, match=r"manifest\.json went away .*run `gald prepare mini/camvid`, then"):
            train(run)
    kept.rename(prepared / "manifest.json")
    assert paths.checkpoint_dir(run.name).exists()
    train(run)
    assert paths.run_json(run.name).exists()


def test_data_of_another_source_is_refused(make_run: Callable[..., Run], prepared: Path) -> None:
    path = prepared / "manifest.json"
    path.write_text(path.read_text().replace('"source": "segnet"', '"source": "native"'))
    with pytest.raises(
        DatasetError,
        match=r"from source 'native', .* ask for 'segnet'; run `gald download mini/camvid` .*`gald prepare",
    ):
        train(make_run())


def test_files_are_read_where_the_params_say_so(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def note(split: PreparedSplit, *_: Any) -> None:
        packed.append(split.packed)
        raise GaldError("seen enough")

    caplog.set_level("INFO", "gald")
    packed: list[bool] = []
    monkeypatch.setattr(train_run, "CachedSamples", note)
    hint = "images are decoded while training; after `gald pack mini/camvid` they would come faster"
    for store, there, expected, told in (
        ("auto", False, False, True),
        ("files", False, False, False),
        ("auto", True, True, False),
        ("files", True, False, False),
    ):
        caplog.clear()
        if there:
            pack("mini", "camvid")
        with pytest.raises(GaldError, match="seen enough"):
            train(make_run(), store=store)
        assert packed.pop() == expected
        assert (hint in caplog.text) == told


def test_a_training_waits_for_a_store_under_way(make_run: Callable[..., Run], caplog: Any) -> None:
    caplog.set_level("INFO", "gald")
    with locking.held("pack/mini/camvid", wait_s=0):
        training = threading.Thread(target=train, args=[make_run()])
        training.start()
        wait_until(lambda: "waiting for process" in caplog.text)
        assert not paths.run_json("mini/camvid/none-seed0").exists()
    training.join(60)
    assert paths.run_json("mini/camvid/none-seed0").exists()


def test_threads_and_recipe_are_part_of_a_runs_digest_and_its_evaluation_is_not(make_run: Callable[..., Run]) -> None:
    digest = make_run().digest()
    assert make_run(train={"threads": 2}).digest() != digest
    assert make_run(train={"learning_rate": 0.06}).digest() != digest
    assert make_run(evaluate={"gallery": 7}).digest() == digest


def stop_at(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Let the next training be told to stop after some iterations."""

    def train_some(state: loop.State, samples: Any, params: Any, hooks: loop.Hooks, world: Any) -> None:
        def stop() -> str | None:
            return "a test said so" if state.iteration == iteration else None

        real(state, samples, params, dataclasses.replace(hooks, stop=stop), world)

    real = loop.train
    monkeypatch.setattr(loop, "train", train_some)


LONGER = [pytest.param(iteration, marks=pytest.mark.slow) for iteration in (1, 10, 29)]


@pytest.mark.parametrize("iteration", [7, 17, *LONGER])
def test_stopping_anywhere_changes_no_bit(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    unbroken, broken = make_run(), make_run("mini/camvid/none-seed1")
    train(unbroken)
    with monkeypatch.context() as patch:
        stop_at(patch, iteration)
        with pytest.raises(TrainingInterrupted, match=f"after iteration {iteration} of 30, because a test said so"):
            train(broken)
    assert not paths.run_json(broken.name).exists()
    train(broken)
    expected, found = outcome(unbroken), outcome(broken)
    assert found[0] == expected[0]
    assert found[2:] == expected[2:]


LONG = {"max_iters": 100_000, "checkpoint_every": 50_000}


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_ends_with_a_message(make_run: Callable[..., Run], number: signal.Signals) -> None:
    run = make_run(train=LONG)
    child = start(run)
    wait_until(lambda: (paths.checkpoint_dir(run.name) / "history.jsonl").exists())
    child.send_signal(number)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "TrainingInterrupted: stopped after iteration" in errors
    assert f"because it was sent {number.name}; the same command goes on" in errors
    assert len(list(paths.checkpoint_dir(run.name).glob("*.checkpoint"))) == 1
    assert not paths.run_json(run.name).exists()


@pytest.mark.slow
def test_an_orphan_saves_and_stops(make_run: Callable[..., Run]) -> None:
    run = make_run(train=LONG)
    # a parent like Snakemake, which starts the training and is killed
    waiting = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1])}
    command = [sys.executable, "-c", CHILD, run.name, run.params.model_dump_json()]
    with Path("log").open("w") as log:
        parent = subprocess.Popen([sys.executable, "-c", waiting, *command], stderr=log, env=environment)
    kept = paths.checkpoint_dir(run.name)
    wait_until((kept / "history.jsonl").exists)
    with (
        pytest.raises(RunBusy, match=r"is busy: process \d+ on \S+ holds"),
        locking.held(run.name, wait_s=0),
    ):
        pass
    parent.kill()
    parent.wait()
    with locking.held(run.name, wait_s=120):  # free as soon as the orphan has ended
        assert len(list(kept.glob("*.checkpoint"))) == 1
    assert f"because the process that started it ({parent.pid}) is gone" in Path("log").read_text()


def test_two_trainings_of_one_run_are_one_too_many(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    monkeypatch.setattr(locking, "WAIT_S", 0.2)
    with locking.held(run.name, wait_s=0), pytest.raises(RunBusy, match=f"{run.name} is busy: process {os.getpid()} "):
        train(run)


def test_other_params_start_afresh_and_say_so(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changed = {"learning_rate": 0.02}
    expected = make_run("mini/camvid/none-seed1", train=changed)
    train(expected)
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        with pytest.raises(TrainingInterrupted):
            train(make_run())
    run = make_run(train=changed)
    train(run)
    assert re.search(
        r"none-seed0: its checkpoints were made with other params; they are kept as \S+none-seed0\.[0-9a-f]{8} until",
        caplog.text,
    )
    assert outcome(run)[0] == outcome(expected)[0]
    assert outcome(run)[2] == outcome(expected)[2]
    assert not list(paths.checkpoint_dir(run.name).parent.glob("none-seed0*"))


def test_params_that_return_go_on_from_their_checkpoints(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an advice that did not help."""
    caplog.set_level("INFO", "gald")
    unbroken = make_run("mini/camvid/none-seed1")
    train(unbroken)
    for rate, iteration in ((0.05, 12), (0.02, 11)):
        with monkeypatch.context() as patch:
            stop_at(patch, iteration)
            with pytest.raises(TrainingInterrupted):
                train(make_run(train={"learning_rate": rate}))
    run = make_run(train={"learning_rate": 0.05})
    train(run)
    assert "going on from iteration 12 of 30" in caplog.text
    assert outcome(run)[0] == outcome(unbroken)[0]
    assert outcome(run)[2:] == outcome(unbroken)[2:]
    assert not list(paths.checkpoint_dir(run.name).parent.glob("none-seed0*"))


def test_other_code_goes_on_and_is_recorded(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        patch.setattr("gald.provenance.code_digest", lambda: "0" * 64)
        with pytest.raises(TrainingInterrupted):
            train(run)
    train(run)
    assert "made by other code" in caplog.text
    record = json.loads(paths.run_json(run.name).read_text())
    assert [origin["code"] for origin in record["resumed_from"]] == ["0" * 64]
    assert record["code"]["digest"] != "0" * 64
    assert record["determinism"] == "seeded"


def test_the_recipe_of_each_part_is_recorded_and_what_changed_is_marked(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on other devices, whose number decides what batch norm sees."""

    def on_two(*given: Any) -> list[Line]:
        return [
            dataclasses.replace(line, effective="2 samples") if line.what == "batch norm sees" else line
            for line in effective_recipe(*given)
        ]

    run = make_run()
    for iteration, patched in ((12, True), (20, False)):
        with monkeypatch.context() as patch:
            stop_at(patch, iteration)
            if patched:
                patch.setattr(train_run, "effective_recipe", on_two)
            with pytest.raises(TrainingInterrupted):
                train(run)
    train(run)
    assert "on another machine (other from here on: batch norm sees); run.json says so" in caplog.text
    record = json.loads(paths.run_json(run.name).read_text())
    (origin,) = record["resumed_from"]
    assert {line["what"]: line["effective"] for line in origin["recipe"]}["batch norm sees"] == "2 samples"
    assert [(line["what"], line["effective"]) for line in record["recipe"] if line["changed"]] == [
        ("batch norm sees", "4 samples")
    ]
    assert record["determinism"] == "seeded"


def test_a_checkpoint_of_another_network_is_left_aside(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        patch.setattr(start_of, "build_segmentor", lambda model, classes: build_segmentor(model, classes + 1))
        with pytest.raises(TrainingInterrupted):
            train(run)
    train(run)
    assert "is of another network" in caplog.text
    assert json.loads(paths.run_json(run.name).read_text())["resumed_from"] == []


def test_a_loss_that_is_not_finite_is_named_and_the_last_good_state_kept(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    real = loop.segmentation_loss

    def explode(output: Any, mask: Any, params: Any, **options: Any) -> Any:
        losses = real(output, mask, params, **options)
        return losses._replace(total=losses.total * float("inf")) if next(calls) == 23 else losses

    calls = iter(range(1, 100))
    monkeypatch.setattr(loop, "segmentation_loss", explode)
    message = (
        r"iteration 23: the loss is inf .* learning rate 0\.0\d+ on samples train/scene\d\d, .* Lower train\.l.*afresh"
    )
    with pytest.raises(TrainingDiverged, match=message):
        train(run)
    assert sorted(path.name for path in paths.checkpoint_dir(run.name).glob("*.checkpoint")) == [
        "000000010.checkpoint",
        "000000020.checkpoint",
    ]
    assert not paths.run_json(run.name).exists()


def test_unprepared_data_is_one_clear_error(make_run: Callable[..., Run], prepared: Path) -> None:
    (prepared / "manifest.json").unlink()
    with pytest.raises(DatasetError, match=r"manifest\.json is missing; run `gald prepare mini/camvid`"):
        train(make_run())


def test_training_from_a_thread_works_without_signals(make_run: Callable[..., Run]) -> None:
    run = make_run(train={"max_iters": 4})
    worker = threading.Thread(target=train, args=(run,))
    worker.start()
    worker.join()
    assert paths.run_json(run.name).exists()


def test_torchs_settings_are_put_back(make_run: Callable[..., Run]) -> None:
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    train(make_run(train={"max_iters": 4, "threads": 2}))
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before
    if not torch.cuda.is_available():
        with pytest.raises(gald.errors.GaldError, match="no CUDA device"):
            train(make_run(train={"device": "cuda"}))


def test_the_time_of_a_checkpoint_is_no_wait_for_data(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that a look moves by a second, and a checkpoint by an hour."""

    def look() -> float:
        clock[0] += 1
        return clock[0]

    def save(*given: Any) -> None:
        clock[0] += 3600
        real(*given)

    clock, real = [0.0], checkpoint.save
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=look))
    monkeypatch.setattr(checkpoint, "save", save)
    run = make_run(train={"checkpoint_every": 2, "max_iters": 9, "log_every": 3})
    train(run)
    lines = history.read(paths.history(run.name))
    assert [line["data_wait"] for line in lines] == [0.5, 0.5, 0.5]
    assert [line["images_per_second"] for line in lines] == [2.0, 2.0, 2.0]


class SlowSamples(CachedSamples):
    """Samples that take a second of a clock each."""

    def __getitem__(self, index: int, /) -> Any:
        CLOCK[0] += 1
        return super().__getitem__(index)


CLOCK = [0.0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that reading samples moves, by four seconds an iteration, and computing, by one."""

    def compute(*given: Any) -> Any:
        CLOCK[0] += 1
        return real(*given)

    CLOCK[0] = 0.0
    real = loop.train_one_iteration
    monkeypatch.setattr(loop, "train_one_iteration", compute)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: CLOCK[0]))
    monkeypatch.setattr(train_run, "time", SimpleNamespace(monotonic=lambda: CLOCK[0]))
    for module in (train_run, trial):
        monkeypatch.setattr(module, "CachedSamples", SlowSamples)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("store", "iterations", "told"),
    [
        ("files", 4, ""),  # twenty seconds, in which no training has settled
        ("files", 5, "80 % of the time goes by in waiting for images; run `gald pack mini/camvid`, or raise train.w"),
        ("auto", 5, "80 % of the time goes by in waiting for images; raise train.workers (now 0)"),
    ],
)
def test_who_waits_for_images_is_told_once_what_to_change(
    store: Any, iterations: int, told: str, make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    if store == "auto":
        pack("mini", "camvid")
    run = make_run(train={"max_iters": iterations + 3 * bool(told), "log_every": 1})
    train(run, store=store)
    assert [line["data_wait"] for line in history.read(paths.history(run.name))][:3] == [0.8, 0.8, 0.8]
    found = [message for message in caplog.messages if "waiting for images" in message]
    assert [message.startswith(f"{run.name}: {told}") for message in found] == ([True] if told else [])


@pytest.mark.usefixtures("clock")
def test_trials_tell_it_too(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "80 % of the time goes by in waiting for images; run `gald pack mini/camvid`, or raise train.workers"
    run = make_run(train={"log_every": 2})
    assert advice in trial.limited(run, 4)
    assert advice in trial.overfit(run, 4, 4)
    monkeypatch.setattr(trial, "CachedSamples", CachedSamples)
    assert "waiting for images" not in trial.limited(run, 4)


class TwoThatWait(World):
    """A process whose fellow waits more."""

    def total(self, tensor: Any) -> Any:
        return 2 * tensor

    def largest(self, value: float) -> float:
        return max(value, 0.75)


def test_the_share_of_waiting_is_that_of_whoever_waits_most() -> None:
    losses = IterationLosses(1.0, 1.0, 0.0, 1.0)
    for world, share in ((World(0, 1, torch.device("cpu")), 0.25), (TwoThatWait(0, 2, torch.device("cpu")), 0.75)):
        interval = Interval()
        interval.add(losses, 2.0, 0.5)
        assert interval.line(1, 0.1, 4, world)["data_wait"] == share


@pytest.mark.slow
@pytest.mark.parametrize("level", ["bitwise", "seeded"])
def test_a_compiler_chooses_no_kernels_by_their_speed_where_bits_are_promised(
    level: str, make_run: Callable[..., Run]
) -> None:
    from torch._inductor import config

    params = make_run(train={"device": "cuda", "compile": True, "determinism": level}).params.train
    assert not config.deterministic
    with train_run.reproducible(params):
        assert config.deterministic == (level == "bitwise")
    assert not config.deterministic


@pytest.mark.parametrize("name", ["000000010.checkpoint", "history.jsonl", "weights.safetensors"])
def test_a_full_disk_is_said_with_the_file_that_does_not_fit(
    name: str, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    naming = files.naming

    @contextmanager
    def full(path: Path) -> Iterator[None]:
        with naming(path):
            yield
            if path.name == name:
                raise OSError(28, "No space left on device")  # as an open file says it

    run = make_run(train={"checkpoint_every": 10})
    with monkeypatch.context() as patched:
        patched.setattr(files, "naming", full)
        with pytest.raises(GaldError, match=rf"No space left on device: '.*{name}'; make room, then the same command"):
            train(run)
    assert not paths.run_json(run.name).exists()
    train(run)
    assert [line["iteration"] for line in history.read(paths.history(run.name))] == [7, 14, 21, 28, 30]
