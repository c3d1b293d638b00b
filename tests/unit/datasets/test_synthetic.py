import numpy as np
import pytest

from gald.datasets._synthetic import (
    COLOUR_JITTER,
    GROUND_MARGIN,
    HEIGHT,
    LAMP_COLOURS,
    LAMP_SIZE,
    NOISE,
    VOID,
    WIDTH,
    Part,
    draw,
    scene,
)

SEEDS = range(200, 212)
GROUNDS = (Part.GROUND_A, Part.GROUND_B)


def test_a_scene_is_a_function_of_its_name() -> None:
    first, again = draw(7, "camvid", "train", 3), draw(7, "camvid", "train", 3)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    for other in (
        (8, "camvid", "train", 3),
        (7, "ade20k", "train", 3),
        (7, "camvid", "val", 3),
        (7, "camvid", "train", 4),
    ):
        assert (draw(*other).image != first.image).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lamp_alone_tells_the_grounds_apart(seed: int) -> None:
    a, b = (scene(np.random.default_rng(seed), kind=kind) for kind in (0, 1))
    rows, columns = np.nonzero((a.image != b.image).any(axis=2))
    assert rows.max() - rows.min() == columns.max() - columns.min() == LAMP_SIZE - 1
    ground = np.isin(a.labels, GROUNDS)
    np.testing.assert_array_equal(ground, a.labels == Part.GROUND_A)
    np.testing.assert_array_equal(ground, b.labels == Part.GROUND_B)
    np.testing.assert_array_equal(a.labels[~ground], b.labels[~ground])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [0, 1])
def test_the_lamp_is_plain_and_far(seed: int, kind: int) -> None:
    image, labels = scene(np.random.default_rng(seed), kind=kind)
    distance = np.abs(image.astype(float) - LAMP_COLOURS[kind]).max(axis=2)
    rows, columns = np.nonzero(distance < 5 * NOISE)
    assert LAMP_SIZE**2 * 0.95 <= len(rows) <= LAMP_SIZE**2  # and nothing else of that colour
    assert (labels[rows, columns] == Part.SKY).all()
    ground = np.nonzero(np.isin(labels, GROUNDS).any(axis=0))[0]
    nearest = min(abs(int(column) - int(lamp)) for column in (ground.min(), ground.max()) for lamp in columns)
    assert nearest >= GROUND_MARGIN - 10 - LAMP_SIZE


def test_sizes_types_and_shares() -> None:
    counts = np.zeros(256, dtype=np.int64)
    for index in range(40):
        image, labels = draw(100, "cityscapes", "train", index)
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert image.dtype == labels.dtype == np.uint8
        counts += np.bincount(labels.ravel(), minlength=256)
    shares = counts / counts.sum()
    assert counts[list(Part)].sum() + counts[VOID] == counts.sum()
    for part in (Part.POLE, Part.DISC, Part.BOX):  # fine, but enough of it to be scored
        assert 0.01 < shares[part] < 0.05
    assert shares[VOID] < 0.05
    assert 0.7 < counts[Part.GROUND_A] / counts[Part.GROUND_B] < 1.4


def test_poles_are_thin_and_the_grounds_alternate() -> None:
    for index in range(6):
        labels = draw(100, "camvid", "train", index).labels
        assert ((labels == GROUNDS[index % 2]).any(), (labels == GROUNDS[1 - index % 2]).any()) == (True, False)
        poles = labels == Part.POLE
        runs = np.diff(np.pad(poles.astype(int), ((0, 0), (1, 1))), axis=1)
        widths = np.nonzero(runs == -1)[1] - np.nonzero(runs == 1)[1]
        assert np.median(widths) <= 3
        assert widths.min() == 1 or np.median(widths) >= 1


def test_jitter_keeps_colours_apart() -> None:
    assert COLOUR_JITTER < 20  # wall and ground are some 40 levels apart in red
