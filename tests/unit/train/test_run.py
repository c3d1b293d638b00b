import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
from gald.params import Run
from gald.prepare.pack import pack
from gald.process import locking
from gald.train import history, loop
from gald.train import run as train_run
from gald.train.run import train
from tests.processes import wait_until
from tests.unit.conftest import write_prepared
from tests.unit.train.stopped import outcome, stop_at


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
        train(make_run("mini/camvid/none-seed1"))
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
