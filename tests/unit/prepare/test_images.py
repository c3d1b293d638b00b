"""Every odd kind of image file, with the pixels that must come out of it."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from gald.prepare.images import Picture, decode, read

RGB = np.array([[[10, 20, 30], [200, 100, 50]], [[0, 255, 7], [90, 91, 92]]], dtype=np.uint8)
GRAY = RGB[..., 0]


def read_image(path: Path) -> Picture:
    return decode(read(path))


def stored(path: Path) -> list[list[list[int]]]:
    return np.asarray(read_image(path).image).tolist()


def deep_png(samples: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits a sample, which Pillow cannot write for colours."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("suffix", "lossless"), [(".png", True), (".jpg", False)])
def test_plain_files_are_used_as_they_are(suffix: str, lossless: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path)
    picture = read_image(path)
    assert (picture.kinds, picture.suffix, picture.orientation) == ((), suffix, 1)
    assert picture.content == path.read_bytes()
    if lossless:
        assert np.asarray(picture.image).tolist() == RGB.tolist()


@pytest.mark.parametrize(
    ("mode", "suffix", "kinds", "expected"),
    [
        ("L", ".png", ("grayscale",), np.repeat(GRAY[..., None], 3, axis=2)),
        ("L", ".tif", ("grayscale",), np.repeat(GRAY[..., None], 3, axis=2)),
        ("1", ".png", ("grayscale",), np.array([[[0] * 3, [255] * 3], [[0] * 3, [0] * 3]])),
        ("LA", ".png", ("grayscale", "alpha"), np.repeat(GRAY[..., None], 3, axis=2)),
        ("P", ".png", ("palette",), RGB),
        ("P", ".gif", ("palette",), RGB),
        ("RGBA", ".png", ("alpha",), RGB),
        ("RGB", ".bmp", ("other",), RGB),
        ("RGB", ".tif", ("other",), RGB),
    ],
)
def test_odd_modes(mode: str, suffix: str, kinds: tuple[str, ...], expected: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    if mode in ("L", "1", "LA"):
        image = Image.fromarray(GRAY)
        image = image.convert(mode, dither=Image.Dither.NONE) if mode == "1" else image.convert(mode)
    else:
        image = Image.fromarray(RGB).convert(mode, palette=Image.Palette.ADAPTIVE)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(np.array([[0, 255], [3, 128]], dtype=np.uint8)))
    image.save(path)
    picture = read_image(path)
    assert (picture.kinds, picture.suffix) == (kinds, ".png")
    assert np.asarray(picture.image).tolist() == expected.tolist()  # colours beneath transparency are kept


def test_transparency_without_an_alpha_channel(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "bytes.png", transparency=b"\x00\x80\xff\x10")
    palette.save(tmp_path / "index.png", transparency=2)
    Image.fromarray(RGB).save(tmp_path / "colour.png", transparency=(10, 20, 30))
    Image.fromarray(GRAY).save(tmp_path / "gray.png", transparency=10)
    for name, kinds in (("bytes", ("palette", "alpha")), ("index", ("palette", "alpha")), ("colour", ("alpha",))):
        assert read_image(tmp_path / f"{name}.png").kinds == kinds
        assert stored(tmp_path / f"{name}.png") == RGB.tolist()
    assert read_image(tmp_path / "gray.png").kinds == ("grayscale", "alpha")
    assert stored(tmp_path / "gray.png") == np.repeat(GRAY[..., None], 3, axis=2).tolist()


def test_cmyk(tmp_path: Path) -> None:
    inks = np.empty((16, 16, 4), dtype=np.uint8)
    inks[:] = 255, 0, 51, 102  # cyan, magenta, yellow, black
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    picture = read_image(tmp_path / "a.jpg")
    assert (picture.kinds, picture.suffix) == (("cmyk",), ".png")
    expected = [(255 - ink) * (255 - 102) / 255 for ink in (255, 0, 51)]
    np.testing.assert_allclose(np.asarray(picture.image).reshape(-1, 3), [expected] * 256, atol=3)


def test_sixteen_bits(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65406, 65407, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "gray.png")
    picture = read_image(tmp_path / "gray.png")
    assert (picture.kinds, picture.suffix) == (("grayscale", "16-bit"), ".png")
    assert np.asarray(picture.image)[..., 1].tolist() == [[0, 0, 1, 1], [128, 254, 255, 255]]  # scaled, not clipped
    Image.fromarray(values).save(tmp_path / "gray.tif")
    assert read_image(tmp_path / "gray.tif").kinds == ("grayscale", "16-bit")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "wide.tif")
    assert np.asarray(read_image(tmp_path / "wide.tif").image)[1, :, 0].tolist() == [128, 254, 255, 255]
    Image.fromarray(values.astype(np.int32) - 1).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match="gray values from -1 to 65534 are not 16-bit"):
        read_image(tmp_path / "wide.tif")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(ValueError, match="mode F is not a photograph's"):
        read_image(tmp_path / "real.tif")


@pytest.mark.parametrize(("colour_type", "channels", "kinds"), [(2, 3, ("16-bit",)), (6, 4, ("alpha", "16-bit"))])
def test_sixteen_bit_colours_are_told(colour_type: int, channels: int, kinds: tuple[str, ...], tmp_path: Path) -> None:
    samples = np.arange(2 * 3 * channels).reshape(2, 3, channels) * 2700
    (tmp_path / "a.png").write_bytes(deep_png(samples, colour_type))
    assert read_image(tmp_path / "a.png").kinds == kinds
    assert stored(tmp_path / "a.png") == (samples[..., :3] // 256).tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene = np.random.default_rng(0).integers(0, 255, (16, 8, 3), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(scene).save(path, exif=exif)
    picture = read_image(path)
    assert picture.kinds == (() if orientation == 1 else ("exif-rotated",))
    plain = picture.image
    for size in ((8, 16), None):
        assert picture.fitted(size) is plain  # labels drawn on the stored pixels, or none
    turned = picture.fitted((16, 8))
    if orientation >= 5:
        with Image.open(path) as image:
            expected = ImageOps.exif_transpose(image)
        assert turned is not None
        np.testing.assert_array_equal(np.asarray(turned), np.asarray(expected))
    else:
        assert turned is None
    assert picture.fitted((8, 15)) is None


def test_a_damaged_note_harms_no_pixel(tmp_path: Path) -> None:
    for number, content in enumerate((b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"", b"\xff" * 40)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(RGB).save(path, exif=content)
        assert read_image(path).kinds == ()
        assert stored(path) == RGB.tolist()


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for most, error in ((3, Image.DecompressionBombWarning), (1, Image.DecompressionBombError)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(error):
            read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert stored(tmp_path / "a.png") == RGB.tolist()
    monkeypatch.setattr("gald.prepare.images._MOST_BYTES", 50)
    with pytest.raises(ValueError, match="more than 50 bytes"):
        read_image(tmp_path / "a.png")
