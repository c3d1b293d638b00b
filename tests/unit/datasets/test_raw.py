"""Label maps in MATLAB files and in colours: what is read exactly, and what is refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald.datasets._native import mat
from gald.datasets._raw import read_colour_ids, read_mat_ids, read_png_ids
from gald.datasets._spec import RawSample
from gald.errors import DatasetError

COLOURS = ((128, 128, 128), (0, 0, 0), (255, 255, 255), (0, 0, 192), (192, 0, 0))


def sample(path: Path) -> RawSample:
    return RawSample("a", path.with_suffix(".jpg"), path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_read(dtype: type, tmp_path: Path) -> None:
    ids = np.array([[0, 1, 182], [92, 13, 255]])
    path = tmp_path / "m.mat"
    path.write_bytes(mat(S=ids.astype(dtype), names=np.array([["a"], ["b"]], dtype=object)))
    found = read_mat_ids(sample(path), "S")
    assert found.dtype == (dtype if np.issubdtype(dtype, np.integer) else np.int64)
    np.testing.assert_array_equal(found, ids)


def test_ids_beyond_8_bits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.mat"
    path.write_bytes(mat(LabelMap=np.array([[459, 256], [0, 65535]], dtype=np.uint16)))
    assert read_mat_ids(sample(path), "LabelMap").tolist() == [[459, 256], [0, 65535]]


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        (np.zeros((2, 2, 3), dtype=np.uint8), r"a map of numbers, found uint8 of shape \(2, 2, 3\)"),
        (np.zeros((0, 0)), r"found float64 of shape \(0, 0\)"),
        (np.array([[1 + 1j]]), "found complex"),
        (np.array([["a"]], dtype=object), "found object"),
        (np.array(["text"]), "a map of numbers, found <U4"),
        (np.array([[0.0, np.nan]]), "must be whole numbers"),
        (np.array([[0.0, -np.inf]]), "must be whole numbers"),
        (np.array([[0.5, 1.0]]), "must be whole numbers"),
        (np.array([[1e300, 1.0]]), "must be whole numbers"),
    ],
)
def test_what_is_no_label_map_is_refused(field: np.ndarray, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "m.mat"
    path.write_bytes(mat(S=field))
    with pytest.raises(DatasetError, match=f"field S.*{problem}"):
        read_mat_ids(sample(path), "S")


def test_another_field_is_no_substitute(tmp_path: Path) -> None:
    path = tmp_path / "m.mat"
    path.write_bytes(mat(LabelMap=np.zeros((2, 2), dtype=np.uint8)))
    with pytest.raises(DatasetError, match=r"has no field S$"):
        read_mat_ids(sample(path), "S")


def test_colours_are_told_exactly(tmp_path: Path) -> None:
    path = tmp_path / "a_L.png"
    expected = np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    Image.fromarray(np.array(COLOURS, dtype=np.uint8)[expected]).save(path)
    found = read_colour_ids(sample(path), COLOURS)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stranger", [(128, 128, 129), (0, 0, 1), (255, 255, 254), (192, 1, 0), (0, 192, 0)])
def test_a_colour_of_no_class_is_named(stranger: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "a_L.png"
    pixels = np.zeros((4, 5, 3), dtype=np.uint8)
    pixels[1, 2] = pixels[3, 0] = stranger
    Image.fromarray(pixels).save(path)
    with pytest.raises(DatasetError, match=rf"of no class: \({', '.join(map(str, stranger))}\) in 2 pixels$"):
        read_colour_ids(sample(path), COLOURS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_a_mask_of_colours_is_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a_L.png"
    Image.new(mode, (4, 3)).save(path)
    with pytest.raises(DatasetError, match=f"a_L.png: a mask of colours has mode RGB, found {mode}"):
        read_colour_ids(sample(path), COLOURS)


def png(depth: int, colour: int) -> bytes:
    """One row of the values 0, 1, 1, 0, of so many bits each, as gray (0) or places in a palette (3)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    bits = "".join(f"{value:0{depth}b}" for value in (0, 1, 1, 0)).ljust(8, "0")
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    palette = chunk(b"PLTE", bytes([200, 0, 0, 0, 200, 0])) if colour == 3 else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("depth", "colour"), [(8, 0), (1, 3), (2, 3), (4, 3), (8, 3)])
def test_ids_of_a_png_are_read_as_they_are(depth: int, colour: int, tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(png(depth, colour))
    assert read_png_ids(sample(tmp_path / "m.png")).tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("depth", [1, 2, 4, 16])
def test_gray_values_that_are_no_ids_are_refused(depth: int, tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(png(depth, 0))
    with pytest.raises(DatasetError, match=rf"m\.png: a mask of raw ids has mode L of 8 bits .* of {depth}$"):
        read_png_ids(sample(tmp_path / "m.png"))


def test_a_mask_of_another_format_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "m.png", "JPEG")
    with pytest.raises(DatasetError, match=r"m\.png: a mask of raw ids is a PNG, found JPEG"):
        read_png_ids(sample(tmp_path / "m.png"))
