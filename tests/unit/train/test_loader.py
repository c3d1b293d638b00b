import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gald.datasets._packed import pixels_sha256
from gald.datasets._reader import PreparedSplit
from gald.datasets._samples import Sample, WindowedSample
from gald.errors import DatasetError, ParamsError
from gald.params import Run, TrainParams
from gald.train import loader
from gald.train.loader import Batch, CachedSamples, batches, make_batch, sample_indices


class Given:
    """A split of given samples that counts what is read."""

    def __init__(self, samples: Sequence[Sample], packed: bool = False) -> None:
        self.samples = samples
        self.packed = packed
        self.count: Counter[int] = Counter()

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.count[index] += 1
        return self.samples[index]

    def verified(self, index: int) -> Sample:
        return self[index]

    def windowed(self, index: int) -> WindowedSample:
        return WindowedSample(*self[index])


def samples(count: int = 10, size: tuple[int, int] = (48, 64)) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            f"town/{index:02d}",
            rng.integers(0, 256, (*size, 3)).astype(np.uint8),
            rng.integers(0, 4, size).astype(np.uint8),
        )
        for index in range(count)
    ]


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def assert_equal(found: Sequence[tuple[int, Batch]], expected: Sequence[tuple[int, Batch]]) -> None:
    assert [iteration for iteration, _ in found] == [iteration for iteration, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks, other.masks)


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


def test_a_file_is_held_against_its_digest_when_it_is_first_decoded(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    real = PreparedSplit.verified
    monkeypatch.setattr(PreparedSplit, "verified", lambda split, index: hashed.append(index) or real(split, index))
    cached = CachedSamples(PreparedSplit(prepared, ["train"], store="files"), 4, budget=0)
    for index in (0, 1, 0, 1):
        cached[index]
    assert hashed == [0, 1]  # which is dear enough to be done once
    Image.fromarray(np.ones((48, 64), np.uint8)).save(prepared / "masks/train/scene02.png")
    for _ in range(2):  # what failed once is not trusted the next time
        with pytest.raises(
            DatasetError, match=r"sample train/scene02: .*scene02\.png does not hold .*gald prepare mini/camvid"
        ):
            cached[2]


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


def test_a_file_that_changes_after_it_was_verified_is_named(make_run: Callable[..., Run], prepared: Path) -> None:
    params = make_run().params.train
    split = PreparedSplit(prepared, ["train"], store="files")
    cached = CachedSamples(split, 4, budget=0)
    for index in range(len(split)):
        cached[index]
    for path in (prepared / "images/train").iterdir():
        Image.new("RGB", (63, 48)).save(path)
    with pytest.raises(
        DatasetError, match=r"scene\d\d\.png changed its size meanwhile; run `gald prepare mini/camvid`"
    ):
        make_batch(cached, params, 0)
    for path in (prepared / "images/train").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"scene\d\d\.png cannot be read"):
        make_batch(cached, params, 0)


def test_a_damaged_file_and_its_sample_are_named(make_run: Callable[..., Run], prepared: Path) -> None:
    for path in (prepared / "images/train").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    split = PreparedSplit(prepared, ["train"], store="files")
    message = r"sample train/scene(\d\d): .*images/train/scene\1\.png cannot be read"
    for workers in (0, 2):
        with pytest.raises(DatasetError, match=message):
            list(batches(CachedSamples(split, 4), make_run(train={"workers": workers}).params.train, 0))
        assert loader_threads() == []


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (
            Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 9, np.uint8)),
            "sample a/7: train id 9 .* 4 classes",
        ),
        (Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 254, np.uint8)), "a/7: train id 254"),
        (Sample("a/7", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)), r"sample a/7: .*\(4, 5\)"),
    ],
)
def test_a_sample_that_does_not_fit_is_named(make_run: Callable[..., Run], sample: Sample, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make_batch(CachedSamples(Given([sample]), 4), make_run().params.train, 0)


def test_the_last_class_and_ignored_pixels_fit(make_run: Callable[..., Run]) -> None:
    mask = np.array([[3, 255], [0, 255]], np.uint8).repeat(30, 0).repeat(30, 1)
    sample = Sample("a/7", np.zeros((60, 60, 3), np.uint8), mask)
    found = make_batch(CachedSamples(Given([sample]), 4), make_run().params.train, 0).masks
    assert set(found.unique().tolist()) <= {0, 3, 255}


class Broken(Given):
    """A split of which one sample fails, with an error of choice."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        super().__init__(samples())
        self.error = error
        self.after = after

    def __getitem__(self, index: int) -> Sample:
        if sum(self.count.values()) >= self.after:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_names_the_sample_and_ends_the_threads(make_run: Callable[..., Run], workers: int) -> None:
    params = make_run(train={"workers": workers}).params.train
    with pytest.raises(DatasetError, match=r"sample town/\d\d: no such colour; run `gald prepare`"):
        list(batches(CachedSamples(Broken(ValueError("no such colour")), 4), params, 0))
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        list(batches(CachedSamples(Broken(RuntimeError("out of luck"), after=6), 4, budget=0), params, 0))
    assert "while making sample town/" in caught.value.__notes__[0]
    assert loader_threads() == []


def test_what_was_made_before_an_error_still_comes(make_run: Callable[..., Run]) -> None:
    params = make_run(train={"workers": 1}).params.train
    made: Iterator[tuple[int, Batch]] = batches(CachedSamples(Broken(OSError("gone"), after=8), 4, budget=0), params, 0)
    assert [iteration for iteration, _ in islice(made, 2)] == [0, 1]
    with pytest.raises(DatasetError, match="gone"):
        next(made)


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
