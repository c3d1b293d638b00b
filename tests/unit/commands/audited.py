"""Prepared data written by hand, and an audit's page read back."""

import hashlib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gald import files, paths
from gald.prepare.index import render

CLASSES, PALETTE = ["sky", "road", "car"], [[70, 130, 180], [128, 64, 128], [0, 0, 142]]


class Made(NamedTuple):
    """One sample to be written."""

    id: str
    image: np.ndarray
    mask: np.ndarray | None
    dhash: str


def made(name: str, seed: int, rows: Sequence[int] | None = (0, 0, 1, 255), width: int = 6, dhash: str = "") -> Made:
    """One sample whose mask has one value for each row."""
    rng = np.random.default_rng(seed)
    height = 4 if rows is None else len(rows)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = None if rows is None else np.repeat(np.array(rows, np.uint8)[:, None], width, axis=1)
    return Made(name, image, mask, dhash or rng.bytes(8).hex())


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def write(
    edition: str, samples: dict[str, list[Made]], published: dict[str, int] | None = None, **changes: Any
) -> Path:
    """Write a prepared CamVid of three classes, with the keys that the prepare stage writes."""
    folder = paths.prepared(edition, "camvid")
    splits, counts, ignored, by_name, empty = {}, {}, {}, {}, {}
    for split, some in samples.items():
        rows, total = [], np.zeros(256, np.int64)
        empty[split] = [sample.id for sample in some if sample.mask is not None and (sample.mask == 255).all()]
        for number, sample in enumerate(some):
            row: dict[str, Any] = {"id": sample.id, "dhash": sample.dhash, "mask": "", "mask_sha256": ""}
            row |= {"height": sample.image.shape[0], "width": sample.image.shape[1]}
            for kind, pixels in (("image", sample.image), ("mask", sample.mask)):
                if pixels is not None:
                    row |= {kind: f"{kind}s/{split}/{number}.png", f"{kind}_sha256": digest(pixels)}
                    (folder / row[kind]).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(folder / row[kind])
            if sample.mask is not None:
                total += np.bincount(sample.mask.ravel(), minlength=256)
            rows.append(row)
        files.write_text(folder / f"{split}.csv", render(rows))
        splits[split] = {
            "count": len(rows),
            "published": (published or {}).get(split),
            "labelled": all(sample.mask is not None for sample in some),
            "index": f"{split}.csv",
            "sha256": files.sha256(folder / f"{split}.csv"),
        }
        counts[split], ignored[split] = total[:3].tolist(), int(total[255])
        by_name[split] = {"Void": int(total[255])} if total[255] else {}
    manifest: dict[str, Any] = {
        "edition": edition,
        "dataset": "camvid",
        "source": "segnet",
        "about_source": "masks of a tutorial",
        "converter": 2,
        "raw_sha256": "ab" * 32,
        "archives": [{"name": "camvid.zip", "sha256": "cd" * 32, "bytes": 12345}],
        "classes": CLASSES,
        "palette": PALETTE,
        "ignore_index": 255,
        "splits": splits,
        "pixel_counts": counts,
        "ignored_pixels": ignored,
        "ignored_by_name": by_name,
        "all_ignored": empty,
        "converted": {},
        "on_error": "stop",
        "skipped": {split: [] for split in samples},
    }
    files.write_json(folder / "manifest.json", manifest | changes)
    return folder


class Page(HTMLParser):
    """Words of a page, and the rows of its tables, by section."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text()
        self.tables: dict[str, list[list[str]]] = {}
        self.words: dict[str, str] = {}
        self.tags: set[str] = set()
        self._section, self._hidden, self._cell = "", False, False
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._hidden = tag == "style"
        if tag == "section":
            self._section = dict(attrs).get("id") or "facts"
        elif tag == "tr":
            self.tables.setdefault(self._section, []).append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        self.words[self._section] = " ".join((self.words.get(self._section, "") + " " + data).split())
        if self._cell:
            row = self.tables[self._section][-1]
            row[-1] = (row[-1] + data).strip()

    @property
    def verdict(self) -> str:
        return self.words[""].partition("Converted and skipped ")[2]
