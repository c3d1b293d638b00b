import numpy as np
import pytest

from gald.datasets import load_spec, names
from gald.datasets._spec import DatasetSpec
from gald.errors import DatasetError
from gald.prepare.masks import Lookup

SPECS = [spec for name in names() for spec in load_spec(name).sources.values()]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.source}")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_every_defined_id_is_mapped_and_counted(spec: DatasetSpec, dtype: type) -> None:
    known = {raw: train_id for raw, train_id in spec.train_ids().items() if raw < 256 or dtype is not np.uint8}
    raw = np.array([list(known), list(known)], dtype=dtype)
    mask, counts = Lookup(spec)(raw)
    assert mask.dtype == np.uint8
    assert mask.tolist() == [list(known.values())] * 2
    assert {int(found): int(counts[found]) for found in np.flatnonzero(counts)} == dict.fromkeys(known, 2)


@pytest.mark.parametrize(
    ("name", "raw"),
    [("camvid", 12), ("camvid", 255), ("cityscapes", 34), ("cityscapes", 255), ("ade20k", 151), ("pascal_context", 1)]
    + [("coco_stuff10k", hole) for hole in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91, 183, 255)],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_an_undefined_id_is_an_error(name: str, raw: int, dtype: type) -> None:
    with pytest.raises(DatasetError, match=f"raw id {raw} is not defined by"):
        Lookup(load_spec(name))(np.array([[0, raw]], dtype=dtype))


def test_ids_that_are_no_ids() -> None:
    lookup = Lookup(load_spec("coco_stuff10k"))
    for value in (1.5, np.nan, np.inf, 1e30):
        with pytest.raises(DatasetError, match="whole numbers"):
            lookup(np.array([[value]]))
    for value in (-1, 2**40):
        with pytest.raises(DatasetError, match=f"raw id {value} is not"):
            lookup(np.array([[0, value]]))
    with pytest.raises(DatasetError, match=r"raw id 183, 184, 185, 186, 187, 188, 189, 190, 191, 192 and 63 more is"):
        lookup(np.arange(183, 256, dtype=np.uint8)[None])
    for shape in ((2, 2, 3), (0, 4)):
        with pytest.raises(DatasetError, match="two dimensions and pixels"):
            lookup(np.zeros(shape))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_any_memory_layout(dtype: type) -> None:
    raw = np.arange(12, dtype=dtype).reshape(3, 4)
    lookup = Lookup(load_spec("camvid"))
    expected = lookup(raw)[0].T
    np.testing.assert_array_equal(lookup(raw.T)[0], expected)
    np.testing.assert_array_equal(lookup(np.asfortranarray(raw)[:, ::2])[0], expected.T[:, ::2])
    assert lookup(raw.T)[0].flags.c_contiguous  # as encoders want it
