"""Damage of MATLAB files that would end the process, were SciPy to read them."""

import io
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from gald.datasets._mat import check
from gald.errors import DatasetError

IDS = np.arange(12, dtype=np.uint16).reshape(3, 4)
BEFORE = {"names": np.array(["a", "bb"], dtype=object), "none": np.empty((0, 0), dtype=object), "about": {"a": 1.0}}
NUMBERS = (4).to_bytes(4, "little") + IDS.nbytes.to_bytes(4, "little")  # their tag: type uint16, and bytes


def written(*, compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, {**BEFORE, "S": IDS, "after": "text"}, do_compression=compressed)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_whole_files_are_read(compressed: bool) -> None:
    content = written(compressed=compressed)
    check(content, "S")
    assert np.array_equal(loadmat(io.BytesIO(content), variable_names=["S"])["S"], IDS)
    check(content, "no such field")


@pytest.mark.parametrize("wrong", [0, 8, 20, 77, 255])
def test_numbers_of_no_type_are_refused(wrong: int) -> None:
    content = written()
    assert content.count(NUMBERS) == 1
    with pytest.raises(ValueError, match=f"numbers of type {wrong}, which"):
        check(content.replace(NUMBERS, bytes([wrong]) + NUMBERS[1:]), "S")


def test_complex_numbers_are_refused() -> None:
    start = written().index(NUMBERS)  # before it lie the flags, 16 bytes with their tag, the dimensions and the name
    content = bytearray(written())
    assert content[start - 32] == 11  # the class, of uint16
    content[start - 31] |= 8
    with pytest.raises(DatasetError, match="complex"):
        check(bytes(content), "S")


def test_a_variable_without_flags_is_refused() -> None:
    content = bytearray(written())
    content[128 + 8] ^= 1
    with pytest.raises(ValueError, match="without flags"):
        check(bytes(content), "S")


@pytest.mark.parametrize("seed", range(20))
def test_damage_of_what_is_compressed_is_found(seed: int) -> None:
    buffer = io.BytesIO()
    savemat(buffer, {"S": np.random.default_rng(seed).integers(0, 183, (60, 80), dtype=np.uint8)}, do_compression=True)
    content = bytearray(buffer.getvalue())
    content[np.random.default_rng(seed).integers(200, len(content))] ^= 1 << seed % 8
    with pytest.raises((ValueError, zlib.error)):
        check(bytes(content), "S")
    with pytest.raises((ValueError, zlib.error)):
        check(buffer.getvalue()[:-30], "S")


def test_other_versions_are_left_to_scipy() -> None:
    buffer = io.BytesIO()
    savemat(buffer, {"S": IDS.astype(float)}, format="4")
    check(buffer.getvalue(), "S")
    check(b"", "S")
