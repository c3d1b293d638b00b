import io
import json
import math
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gald.errors import StaleMetrics
from gald.metrics import CountTable, Layout, confusion_matrix, count_image
from tests.unit.metrics.scenes import drawn_pair

LAYOUT = Layout(5, (2, 5, 20))


@pytest.fixture
def images():
    return [count_image(*drawn_pair(seed, 5), LAYOUT) for seed in range(3)]


@pytest.fixture
def table(images):
    return CountTable.of(("a", "b/c", "ü"), LAYOUT, images)


@pytest.mark.parametrize("num_classes", [1, 19, 171, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (13, 17)])
def test_families_agree_about_an_image(num_classes: int, shape: tuple[int, int]) -> None:
    layout = Layout(num_classes, (2, 5, 20))
    truth, prediction = drawn_pair(num_classes, num_classes, shape)
    found = count_image(truth, prediction, layout)
    assert {name: counts.shape for name, counts in found.items()} == layout.shapes()
    assert all(counts.dtype == np.int64 for counts in found.values())
    confusion = confusion_matrix(truth, prediction, num_classes)
    np.testing.assert_array_equal(found["rings"].sum(axis=0), confusion)
    np.testing.assert_array_equal(found["border"].sum(axis=0), confusion)
    np.testing.assert_array_equal(found["objects"][..., 0].sum(axis=0), confusion.diagonal())
    np.testing.assert_array_equal(found["objects"][..., 1].sum(axis=0), confusion.sum(axis=1))


def test_an_image_that_is_all_ignored_counts_nothing() -> None:
    truth, prediction = np.full((4, 6), 255, np.uint8), np.zeros((4, 6), np.uint8)
    assert not any(counts.any() for counts in count_image(truth, prediction, LAYOUT).values())


def test_an_image_of_one_class_has_no_boundary() -> None:
    found = count_image(np.full((4, 6), 3, np.uint8), np.full((4, 6), 3, np.uint8), LAYOUT)
    assert found["rings"][-1, 3, 3] == 24
    assert not found["boundary_iou"].any()
    assert not found["boundary_f"].any()
    assert found["objects"][3, 3].tolist() == [24, 24, 1, 1]


def test_what_the_prediction_says_where_the_truth_is_ignored_counts_nowhere() -> None:
    truth, prediction = drawn_pair(7, 5)
    other = np.where(truth == 255, np.uint8(4), prediction)
    pairs = [count_image(truth, one, LAYOUT) for one in (prediction, other)]
    for name in LAYOUT.shapes():
        np.testing.assert_array_equal(pairs[0][name], pairs[1][name])


def test_memory_order_and_threads_change_nothing(images) -> None:
    truth, prediction = drawn_pair(0, 5)
    before = cv2.getNumThreads(), torch.get_num_threads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            torch.set_num_threads(threads)
            found = count_image(np.asfortranarray(truth), np.asfortranarray(prediction), LAYOUT)
            assert all((found[name] == images[0][name]).all() for name in found)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def test_ids_out_of_range_and_shapes_are_refused() -> None:
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="mask holds train id 5"):
        count_image(zeros + np.uint8(5), zeros, LAYOUT)
    with pytest.raises(ValueError, match="prediction holds class 9"):
        count_image(zeros, zeros + np.uint8(9), LAYOUT)
    with pytest.raises(ValueError, match=r"\(2, 2\), the prediction \(1, 2\)"):
        count_image(zeros, zeros[:1], LAYOUT)


@pytest.mark.parametrize(("classes", "edges"), [(0, (1, 2, 3)), (256, (1, 2, 3)), (4, (1, 2)), (4, (3, 2, 5))])
def test_layouts_that_cannot_be_are_refused(classes: int, edges: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"cannot be counted|three ascending"):
        Layout(classes, edges)


def test_a_table_holds_each_image_and_their_sum(table, images) -> None:
    for name, shape in LAYOUT.shapes().items():
        dense = table.family(name).toarray()
        assert dense.dtype == np.int64
        np.testing.assert_array_equal(dense, [image[name].ravel() for image in images])
        np.testing.assert_array_equal(table.total(name), sum(image[name] for image in images))
        assert table.total(name).shape == shape
    matrices = [image["rings"].sum(axis=0) for image in images]
    np.testing.assert_array_equal(table.confusions().toarray(), [matrix.ravel() for matrix in matrices])
    expected = [np.stack([m.diagonal(), m.sum(axis=1), m.sum(axis=0)], axis=-1) for m in matrices]
    np.testing.assert_array_equal(table.per_class(), expected)


def test_a_table_needs_an_id_for_each_image(images) -> None:
    with pytest.raises(ValueError, match="2 ids, but the counts of 3"):
        CountTable.of(("a", "b"), LAYOUT, images)


def test_a_table_is_spelled_and_read_again(table, tmp_path: Path) -> None:
    content = table.packed()
    path = tmp_path / "counts.npz"
    path.write_bytes(content)
    for source in (content, path):
        found = CountTable.read(source)
        assert (found.ids, found.layout) == (table.ids, LAYOUT)
        for name in LAYOUT.shapes():
            np.testing.assert_array_equal(found.family(name).toarray(), table.family(name).toarray())
            assert found.family(name).dtype == np.int64
        assert found.packed() == content


def test_large_counts_survive(tmp_path: Path) -> None:
    image = {name: np.zeros(shape, np.int64) for name, shape in LAYOUT.shapes().items()}
    image["rings"][5, 4, 4] = 2**40 + 1
    found = CountTable.read(CountTable.of(("a",), LAYOUT, [image]).packed())
    assert found.total("rings")[5, 4, 4] == 2**40 + 1


def test_no_image_is_a_table_too() -> None:
    found = CountTable.read(CountTable.of((), LAYOUT, ()).packed())
    assert found.ids == ()
    assert not found.total("rings").any()


def rewritten(content: bytes, name: str, array: np.ndarray) -> bytes:
    with np.load(io.BytesIO(content)) as arrays:
        kept = {key: arrays[key] for key in arrays.files} | {name: array}
    buffer = io.BytesIO()
    np.savez(buffer, **kept)
    return buffer.getvalue()


def head_of(content: bytes, **changed: object) -> np.ndarray:
    with np.load(io.BytesIO(content)) as arrays:
        head = json.loads(arrays["head"].tobytes())
    return np.frombuffer(json.dumps(head | changed).encode(), np.uint8)


def test_a_damaged_table_is_named(table, tmp_path: Path) -> None:
    content = table.packed()
    path = tmp_path / "counts.npz"
    with pytest.raises(StaleMetrics, match=r"counts\.npz cannot be read"):
        CountTable.read(path)
    half, flipped = content[: len(content) // 2], bytearray(content)
    flipped[content.index(b"rings.data.npy") + 40] ^= 0xFF
    beyond = np.full(table.family("rings").indices.shape, math.prod(LAYOUT.shapes()["rings"]))
    damaged = [b"", b"text", half, bytes(flipped)]
    damaged += [rewritten(content, "rings.indices", beyond), rewritten(content, "head", head_of(content, ids=["a"]))]
    for bad in damaged:
        path.write_bytes(bad)
        with pytest.raises(StaleMetrics, match=r"counts\.npz cannot be read .*evaluate the run again"):
            CountTable.read(path)


@pytest.mark.parametrize("changed", [{"widths": [1, 2]}, {"border": [0.5]}, {"format": 99}])
def test_a_table_of_other_statistics_is_refused(table, changed: dict[str, object]) -> None:
    content = table.packed()
    with pytest.raises(StaleMetrics, match=f"{next(iter(changed))} is .*, this version counts with"):
        CountTable.read(rewritten(content, "head", head_of(content, **changed)))


def test_the_clock_does_not_enter_the_bytes(table) -> None:
    with zipfile.ZipFile(io.BytesIO(table.packed())) as archive:
        assert len(archive.namelist()) == 1 + 3 * len(LAYOUT.shapes())
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
