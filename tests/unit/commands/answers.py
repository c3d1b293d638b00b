"""What a command has answered, read back, and pictures to ask it about."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from gald import files


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in folder.rglob("*") if path.is_file()}


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def png_of(kind: tuple[int, int], size: tuple[int, int], rows: bytes) -> bytes:
    """Grey of that many bits, and of that colour type, with a header that may promise what is not there."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", size[1], size[0], *kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")
