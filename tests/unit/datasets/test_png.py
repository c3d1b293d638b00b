import io
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from gald.datasets import _png

needs_wuffs = pytest.mark.skipif(not _png._CONFIGS, reason="pywuffs is not installed")


def spelled(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def pixels(height: int, width: int, mode: str, seed: int = 0) -> np.ndarray:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@needs_wuffs
@pytest.mark.parametrize("mode", ["RGB", "L"])
@settings(deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 9), st.booleans())
def test_pixels_are_pillows(mode: str, height: int, width: int, level: int, smooth: bool) -> None:
    content = pixels(height, width, mode) // (64 if smooth else 1)
    found = _png.decode(spelled(Image.fromarray(content), compress_level=level), mode)
    assert found is not None
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, content)


@needs_wuffs
def test_a_note_about_brightness_is_not_obeyed() -> None:
    note = PngImagePlugin.PngInfo()
    note.add(b"gAMA", (100_000).to_bytes(4, "big"))
    content = pixels(8, 9, "RGB")
    np.testing.assert_array_equal(_png.decode(spelled(Image.fromarray(content), pnginfo=note), "RGB"), content)


def others() -> Iterator[tuple[str, bytes, str]]:
    colour, grey = Image.fromarray(pixels(8, 9, "RGB")), Image.fromarray(pixels(8, 9, "L"))
    for mode, image in (("RGB", grey), ("L", colour)):
        yield f"not {mode}", spelled(image), mode
    for mode in ("RGB", "L"):
        yield f"palette for {mode}", spelled(colour.quantize(4)), mode
        yield f"one bit for {mode}", spelled(grey.convert("1")), mode
        yield f"16 bits for {mode}", spelled(grey.convert("I;16")), mode
        yield f"alpha for {mode}", spelled(colour.convert("RGBA")), mode
    yield "a transparent colour", spelled(colour, transparency=(1, 2, 3)), "RGB"
    whole = spelled(colour)
    yield "cut off", whole[:100], "RGB"
    yield "cut in the header", whole[:20], "RGB"
    yield "another format", b"\xff\xd8\xff" + whole, "RGB"
    yield "nothing", b"", "L"


@pytest.mark.parametrize(("content", "mode"), [case[1:] for case in others()], ids=[case[0] for case in others()])
def test_what_is_not_plain_is_left_to_pillow(content: bytes, mode: str) -> None:
    assert _png.decode(content, mode) is None


@needs_wuffs
def test_a_damaged_picture_is_left_to_pillow() -> None:
    whole = bytearray(spelled(Image.fromarray(pixels(60, 70, "RGB"))))
    start = whole.find(b"IDAT") + 4
    for place in range(start, start + 400, 40):
        damaged = bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        found = _png.decode(damaged, "RGB")
        assert found is None or found.shape == (60, 70, 3)
    assert _png.decode(bytes(whole[: len(whole) // 2]), "RGB") is None


def test_without_wuffs_everything_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywuffs", None)
    assert _png._module("pywuffs") is None
    monkeypatch.setattr(_png, "_wuffs", None)
    monkeypatch.setattr(_png, "_CONFIGS", _png._configs())
    assert _png.decode(spelled(Image.fromarray(pixels(8, 9, "RGB"))), "RGB") is None
