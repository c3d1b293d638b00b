import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from gald.datasets._packed import pixels_sha256
from gald.datasets._reader import PreparedSplit
from gald.datasets._samples import Sample
from gald.errors import ParamsError
from gald.params import Run, TrainParams
from gald.train import loader
from gald.train.loader import Batch, CachedSamples, batches, make_batch, sample_indices
from tests.unit.train.given import Given, assert_equal, loader_threads, samples


def test_epochs_are_whole_and_shuffled() -> None:
    drawn = [index for iteration in range(35) for index in sample_indices(3, iteration, 4, 7)]
    epochs = [drawn[first : first + 7] for first in range(0, len(drawn), 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 15
    assert drawn != [index for iteration in range(35) for index in sample_indices(4, iteration, 4, 7)]


@pytest.mark.parametrize("workers", [1, 3, 7])
def test_workers_and_start_change_nothing(make_run: Callable[..., Run], prepared: Path, workers: int) -> None:
    plain = make_run(train={"max_iters": 8}).params.train
    threaded = make_run(train={"max_iters": 8, "workers": workers}).params.train
    split = PreparedSplit(prepared, ["train"])
    expected = list(batches(CachedSamples(split, 4, budget=0), plain, 0))
    assert_equal(list(batches(CachedSamples(split, 4), threaded, 3)), expected[3:])
    assert loader_threads() == []


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_shares_of_several_processes_make_the_one_batch(
    make_run: Callable[..., Run], world: int, workers: int
) -> None:
    params = make_run(train={"max_iters": 6, "workers": workers}).params.train
    expected = list(batches(CachedSamples(Given(samples()), 4), params, 2))
    shares = [
        list(batches(CachedSamples(Given(samples()), 4), params, 2, rank=rank, world=world)) for rank in range(world)
    ]
    joined = [
        (
            parts[0][0],
            Batch(
                torch.cat([batch.images for _, batch in parts]),
                torch.cat([batch.masks for _, batch in parts]),
                tuple(name for _, batch in parts for name in batch.ids),
            ),
        )
        for parts in zip(*shares, strict=True)
    ]
    assert_equal(joined, expected)


def test_a_share_reads_its_own_samples_alone(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"max_iters": 1, "warmup_iters": 0}).params.train
    split = Given(samples())
    (_, batch), *_ = batches(CachedSamples(split, 4), params, 0, rank=1, world=2)
    assert sum(split.count.values()) == 2
    assert batch.ids == tuple(split.ids[index] for index in sample_indices(params.seed, 0, 4, 10)[2:])


def test_a_batch_that_cannot_be_shared_evenly_is_refused(make_run: Callable[..., Run]) -> None:
    params = make_run().params.train
    with pytest.raises(ParamsError, match=r"train\.batch_size 4 .* 3 processes"):
        batches(CachedSamples(Given(samples()), 4), params, 0, world=3)  # at once, not at the first batch
    with pytest.raises(ValueError, match="rank 2"):
        batches(CachedSamples(Given(samples()), 4), params, 0, rank=2, world=2)


def test_a_packed_store_makes_the_same_batches(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"max_iters": 5}).params.train
    frozen = samples()
    for sample in frozen:
        sample.image.flags.writeable = sample.mask.flags.writeable = False
    expected = list(batches(CachedSamples(Given(samples()), 4), params, 0))
    assert_equal(list(batches(CachedSamples(Given(frozen, packed=True), 4), params, 0)), expected)


def test_decoded_samples_are_read_once_as_far_as_the_budget_goes() -> None:
    for packed, expected in ((False, {0: 1, 1: 1, 2: 1, 3: 2, 4: 2}), (True, dict.fromkeys(range(5), 2))):
        split = Given(samples(), packed)
        cached = CachedSamples(split, 4, budget=3 * 48 * 64 * 4)
        for _ in range(2):
            for index in range(5):
                cached[index]
        assert split.count == expected


def test_a_sample_read_twice_at_once_counts_once() -> None:
    barrier = threading.Barrier(2)

    class Slow(Given):
        def __getitem__(self, index: int) -> Sample:
            if index == 0:
                barrier.wait(10)  # both threads are reading it
            return super().__getitem__(index)

    split = Slow(samples())
    cached = CachedSamples(split, 4, budget=2 * 48 * 64 * 4)
    threads = [threading.Thread(target=cached.__getitem__, args=(0,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):
        cached[1]
    assert split.count == {0: 2, 1: 1}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_crops_of_files_that_are_not_kept_are_those_of_whole_images(
    make_run: Callable[..., Run], prepared: Path, suffix: str
) -> None:
    params = make_run(train={"crop_size": (24, 32), "scale_range": (1.0, 2.0)}).params.train
    split = PreparedSplit(prepared, ["train"], store="files")
    for row in split.rows:
        file = prepared / row["image"]
        with Image.open(file) as picture:
            picture.save(file.with_suffix(suffix), quality=95)
        row["image"] = str(Path(row["image"]).with_suffix(suffix))
        row["image_sha256"] = pixels_sha256(split.image(split.rows.index(row)))
    whole, cut = CachedSamples(split, 4), CachedSamples(split, 4, budget=0)
    for index in range(len(split)):  # from the second time on no more is decoded than is shown
        cut[index]
    for iteration in range(4):
        assert_equal([(0, make_batch(cut, params, iteration))], [(0, make_batch(whole, params, iteration))])


def test_no_thread_outlives_a_loader_that_is_left_early(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"workers": 3, "max_iters": 1000, "warmup_iters": 0}).params.train
    before = torch.get_num_threads()
    for _ in range(3):
        made = batches(CachedSamples(Given(samples()), 4), params, 0)
        next(made)
        assert 1 <= len(loader_threads()) <= 3
        made.close()  # type: ignore[attr-defined]
        assert loader_threads() == []
    assert torch.get_num_threads() == before  # one for each loader thread is theirs alone


def test_little_is_made_ahead(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"workers": 2, "max_iters": 1000, "warmup_iters": 0}).params.train
    split = Given(samples())
    made = batches(CachedSamples(split, 4, budget=0), params, 0)
    for _ in range(5):
        next(made)
    made.close()  # type: ignore[attr-defined]
    assert sum(split.count.values()) <= (5 + 2) * 4


def test_samples_of_one_batch_are_made_side_by_side(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(4)
    real = loader.augment

    def together(*args: object, **kwargs: object) -> object:
        barrier.wait(10)  # breaks unless four samples are under way at once
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loader, "augment", together)
    params: TrainParams = make_run(train={"workers": 4, "max_iters": 1, "warmup_iters": 0}).params.train
    assert len(list(batches(CachedSamples(Given(samples()), 4), params, 0))) == 1


@pytest.mark.parametrize(("device", "there"), [("cpu", True), ("cuda", False), ("cuda", True)])
def test_batches_are_pinned_for_a_gpu_and_for_nothing_else(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, device: str, there: bool
) -> None:
    def empty(size: Sequence[int], *, pin_memory: bool, **options: object) -> torch.Tensor:
        asked.append(pin_memory)
        return real(size, **options)  # type: ignore[call-overload, no-any-return]

    asked: list[bool] = []
    real = torch.empty
    params = make_run(train={"device": device, "max_iters": 4, "workers": 2}).params.train
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch, "empty", empty)
    made = list(batches(CachedSamples(Given(samples()), 4), params, 0))
    assert asked == [device == "cuda" and there] * 8  # images and masks of each iteration
    assert len(made) == 4
