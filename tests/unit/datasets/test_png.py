import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, PngImagePlugin

from gald.datasets._png import decode, encode_mask


def encoded(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(np.uint8, size)),
        st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(np.uint8, (*size, 3))),
    ),
    level=st.integers(0, 9),
)
def test_pixels_are_those_that_were_written(pixels: np.ndarray, level: int) -> None:
    found = decode(encoded(pixels, compress_level=level), "L" if pixels.ndim == 2 else "RGB")
    assert found is not None
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", "RGB"), ("RGB", "L"), ("RGBA", "RGB"), ("P", "L"), ("I;16", "L"), ("1", "L"), ("LA", "L")],
)
def test_other_kinds_are_left_to_pillow(mode: str, expected: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4)).save(buffer, "PNG")
    assert decode(buffer.getvalue(), expected) is None


def test_a_transparent_colour_is_left_to_pillow() -> None:
    assert decode(encoded(np.zeros((4, 5, 3), np.uint8), transparency=(0, 0, 0)), "RGB") is None


@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize(("shape", "colour"), [((4, 5), 0), ((4, 5, 3), (0, 0, 0))])
def test_names_of_chunks_in_a_text_are_none(shape: tuple[int, ...], colour: object, rows: int | None) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("IDAT", "tRNS IDAT")
    pixels, mode = np.zeros(shape, np.uint8), "L" if len(shape) == 2 else "RGB"
    assert decode(encoded(pixels, transparency=colour, pnginfo=info), mode, rows) is None
    assert np.array_equal(decode(encoded(pixels, pnginfo=info), mode, rows), pixels[:rows])


def test_gamma_changes_no_pixel() -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    assert np.array_equal(decode(encoded(pixels, pnginfo=info), "RGB"), pixels)


@pytest.mark.parametrize("where", [40, 60, -30])
def test_damage_is_left_to_pillow(where: int) -> None:
    content = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)))
    content[where] ^= 0xFF
    assert decode(bytes(content), "RGB") is None
    assert decode(bytes(content[: len(content) // 2]), "RGB") is None
    assert decode(b"no picture", "RGB") is None


@settings(max_examples=60, deadline=None)
@given(data=st.data(), level=st.integers(0, 9))
def test_the_first_rows_alone_are_those_of_the_whole_image(data: st.DataObject, level: int) -> None:
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    pixels = data.draw(arrays(np.uint8, st.sampled_from([(height, width), (height, width, 3)])))
    rows = data.draw(st.integers(1, height + 1))
    found = decode(encoded(pixels, compress_level=level), "L" if pixels.ndim == 2 else "RGB", rows)
    assert found is not None
    assert np.array_equal(found[:rows], pixels[:rows])
    assert found.shape[0] == min(rows, height)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(np.uint8, size)))
def test_masks_without_filters_are_read_by_everybody(mask: np.ndarray) -> None:
    content = encode_mask(mask)
    assert encode_mask(np.asfortranarray(mask)) == content
    found = decode(content, "L")
    assert found is not None
    assert found.flags.writeable
    assert np.array_equal(found, mask)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), mask)


def test_filters_further_down_than_the_first_rows_are_noticed() -> None:
    mask = np.repeat(np.arange(60, dtype=np.uint8)[:, None], 50, axis=1)
    lines = np.zeros((60, 51), np.uint8)
    lines[:, 1:] = mask
    lines[40:, 0] = 2  # each of these rows is told as the difference to the one above
    lines[40:, 1:] = np.diff(mask, axis=0)[39:]
    plain = encode_mask(mask)
    start, end = plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4
    data = zlib.compress(lines.tobytes())
    chunks = b"".join(chunk(b"IDAT", data[first : first + 20]) for first in range(0, len(data), 20))
    assert np.array_equal(decode(plain[:start] + chunks + plain[end:], "L"), mask)


def test_interlaced_rows_are_not_cut() -> None:
    mask = np.array([[1, 2], [3, 4]], np.uint8)
    passes = b"".join(bytes([0, *rows]) for rows in ((1,), (2,), (3, 4)))  # passes 1, 6 and 7 of Adam7
    header = chunk(b"IHDR", (2).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x01")
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(passes)) + chunk(b"IEND", b"")
    assert np.array_equal(decode(content, "L"), mask)
    assert np.array_equal(decode(content, "L", rows=1), mask)


@pytest.mark.parametrize("where", [20, 40, 50, -20])
def test_damaged_masks_are_left_to_pillow(where: int) -> None:
    content = bytearray(encode_mask(np.random.default_rng(0).integers(0, 19, (30, 30), np.uint8)))
    content[where] ^= 0xFF
    assert decode(bytes(content), "L") is None
    assert decode(bytes(content[: len(content) // 2]), "L") is None


@pytest.mark.parametrize("rows", [None, 100_000])
@pytest.mark.parametrize("pixels", [np.zeros((3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)])
@pytest.mark.parametrize("side", [900_000, 2**31 - 1])
def test_a_size_that_the_data_cannot_have_takes_no_memory(pixels: np.ndarray, side: int, rows: int | None) -> None:
    plain = encoded(pixels)
    header = chunk(b"IHDR", side.to_bytes(4, "big") * 2 + plain[24:29])
    assert decode(plain[:8] + header + plain[33:], "L" if pixels.ndim == 2 else "RGB", rows) is None


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
