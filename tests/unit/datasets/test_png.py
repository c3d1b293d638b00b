import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, PngImagePlugin

from gald.datasets._png import decode


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
