import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gald import files, paths
from gald.commands.audit import audit
from gald.datasets._files import FileSamples
from gald.datasets._reader import PreparedSplit
from gald.errors import DatasetError
from gald.prepare.convert import Record
from gald.prepare.journal import keep
from tests.unit.commands.audited import Made, Page, made, write


@pytest.fixture
def write_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """Write a prepared folder, audit it, and read the page."""
    monkeypatch.chdir(tmp_path)

    def make(edition: str, *args: Any, **changes: Any) -> Page:
        write(edition, *args, **changes)
        return Page(audit(edition, "camvid"))

    return make


def two_splits() -> dict[str, list[Made]]:
    return {
        "train": [made("a", 1), made("b", 2, (0, 0, 0, 1)), made("c", 3, (255, 255), width=10)],
        "val": [made("d", 4, (2, 1, 1, 1))],
    }


def test_counts_and_shares_are_those_counted_by_hand(write_page: Callable[..., Page]) -> None:
    page = write_page("full", two_splits(), {"train": 5, "val": 1})
    # train: 24 + 24 + 20 pixels, of them 6 + 20 ignored; labelled 42: sky 30, road 12. val: 24: car 6, road 18.
    assert page.tables["splits"][1:] == [
        ["train", "3", "5", "−2", "0", "published", "68", "38.2"],  # noqa: RUF001 - a minus sign
        ["val", "1", "1", "0", "0", "published", "24", "0"],
    ]
    assert page.tables["classes"][1:] == [
        ["1", "road", "28.6", "75.0"],
        ["0", "sky", "71.4", "absent"],
        ["2", "car", "absent", "25.0"],
    ]
    assert page.tables["ignored"][1:] == [["Void", "38.2", "0"]]
    assert "Nothing but ignored pixels in train: c ." in page.words["ignored"]
    assert page.tables["sizes"][2:4] == [
        ["train", "2", "6", "6", "10", "2", "4", "4"],
        ["val", "1", "6", "6", "6", "4", "4", "4"],
    ]
    assert page.tables["sizes"][5:] == [["6 × 4", "3 (75.0 %)"], ["10 × 2", "1 (25.0 %)"]]  # noqa: RUF001
    assert page.verdict == (
        "Not complete. train holds 3 samples, 2 fewer than the 5 published. 1 sample with nothing but ignored pixels. "
        "1 class never occurs in train. 1 class never occurs in val. "
        "As it should be: no duplicates across splits, nothing skipped."
    )


def test_class_that_no_split_holds_is_named_once(write_page: Callable[..., Page]) -> None:
    page = write_page("mini", {"train": [made("a", 1)], "val": [made("b", 2)]})
    assert [row[1] for row in page.tables["classes"][1:]] == ["sky", "road"]
    assert "1 class never in train and val: car" in page.words["classes"]


def test_whole_benchmark_is_complete(write_page: Callable[..., Page]) -> None:
    samples = {"train": [made("a", 1, (0, 1, 2))], "val": [made("b", 2, (0, 1, 2))]}
    page = write_page("full", samples, {"train": 1, "val": 1})
    assert page.verdict == "Complete: counts as published, no duplicates across splits, nothing skipped."
    assert "the real one" in page.words["facts"]
    assert "miniature" not in page.words[""]


def test_miniature_has_no_published_counts(write_page: Callable[..., Page]) -> None:
    page = write_page("mini", {"train": [made("a", 1, (0, 1, 2))], "val": [made("b", 2, (0, 1, 2))]})
    assert page.tables["splits"][1][2:4] == ["not applicable", "not applicable"]
    assert page.verdict == (
        "Complete: no duplicates across splits, nothing skipped; a miniature has no published counts."
    )
    assert "CamVid, miniature" in page.words[""]
    assert "drawn here, free of rights" in page.words["facts"]


def test_provenance_is_told(write_page: Callable[..., Page]) -> None:
    words = write_page("full", two_splits()).words["facts"]
    assert "segnet: masks of a tutorial" in words
    assert "Converter version 2" in words
    assert "abababababababab" in words
    assert "camvid.zip 12,345 bytes, sha256 cdcdcdcdcdcdcdcd" in words
    assert "CC BY-NC 4.0" in words


def test_skipped_and_converted_are_named(write_page: Callable[..., Page]) -> None:
    names = [f"train/x{number}" for number in range(30)]
    page = write_page(
        "full",
        two_splits(),
        {"train": 4, "val": 1},
        converted={"grayscale": {"count": 1200, "samples": names}, "cmyk": {"count": 1, "samples": ["val/y"]}},
        skipped={"train": [{"id": "broken", "problem": "unreadable mask (truncated)"}], "val": []},
    )
    shown = ", ".join(names[:20]) + " and 1,180 more"
    assert page.tables["oddities"] == [
        ["Kind", "Images", "Samples"],
        ["grayscale", "1,200", shown],
        ["cmyk", "1", "val/y"],
        ["Split", "Sample", "Problem"],
        ["train", "broken", "unreadable mask (truncated)"],
    ]
    assert page.tables["splits"][1][4] == "1"
    assert "1 sample skipped as unreadable or not as promised (train 1)." in page.verdict


def test_repeated_images_are_found(write_page: Callable[..., Page]) -> None:
    again = made("again", 1, (0, 0, 1, 1))
    samples = {
        "train": [made("a", 1), made("b", 2), made("b2", 2)],
        "val": [again._replace(dhash=made("a", 1).dhash), made("c", 5)],
    }
    page = write_page("mini", samples)
    assert page.tables["duplicates"][1:3] == [
        ["across splits", "train: a, val: again", "differ"],
        ["within a split", "train: b, train: b2", "the same"],
    ]
    assert page.tables["duplicates"][4] == ["train and val", "0"]  # the same pixels are told once, not as near too
    assert page.verdict.startswith(
        "Complete, with something to look at. 1 image occurs in more than one split. "
        "1 image occurs more than once within a split. 1 repeated image with masks that differ."
    )


def test_near_pairs_are_found_across_splits_alone(write_page: Callable[..., Page]) -> None:
    samples = {
        "train": [made("a", 1, dhash="00000000000000ff"), made("a2", 2, dhash="00000000000000fe")],
        "val": [made("b", 3, dhash="0000000000000f0f"), made("c", 4, dhash="00000000000000f0")],
        "test": [made("d", 5, dhash="0" * 16), made("e", 6, dhash="f" * 16)],
    }
    page = write_page("mini", samples)
    # f0 differs from ff in 4 bits and from fe in 3; 0f0f from ff in 8; flat hashes count nowhere
    assert page.tables["duplicates"] == [
        ["Splits", "Near pairs"],
        ["train and val", "2"],
        ["train and test", "0"],
        ["val and test", "0"],
        ["Bits", "First", "Second"],
        ["3", "train: a2", "val: c"],
        ["4", "train: a", "val: c"],
    ]
    assert "test: 2 left out of this search" in page.words["duplicates"]
    assert "a hint, not a proof" in page.words["duplicates"]
    assert "2 near pairs across splits: 2 of train and val." in page.verdict
    assert page.verdict.startswith("Complete: no duplicates across splits")


def test_split_without_labels_is_shown_without_masks(write_page: Callable[..., Page]) -> None:
    samples = {"train": [made("a", 1, (0, 1, 2))], "test": [made("u", 7, None)]}
    page = write_page("mini", samples)
    assert page.tables["splits"][2][5:] == ["not published", "24", "–"]  # noqa: RUF001 - the dash of an empty cell
    assert page.tables["classes"][0] == ["Id", "Class", "train (% of labelled pixels)"]
    assert "test u 6 × 4, no labels published" in page.words["pictures"]  # noqa: RUF001
    assert "mask of a" in page.source
    assert "mask of u" not in page.source
    assert page.verdict.startswith("Complete")


def test_counts_that_do_not_add_up_are_told(write_page: Callable[..., Page]) -> None:
    page = write_page("mini", two_splits(), pixel_counts={"train": [30, 12, 1], "val": [0, 18, 6]})
    assert page.verdict.startswith("Not complete. train: the manifest counts 69 pixels in its masks, the index 68;")


def test_worst_cases_are_pictured(write_page: Callable[..., Page]) -> None:
    train = [made(f"s{number:02d}", number, (0, 0, 1, 1)) for number in range(40)]
    train[3] = made("s03", 3, (255, 255, 1, 1))
    train[5], train[8] = made("s05", 5, (1,)), made("s08", 8, (1,) * 9)
    words = write_page("mini", {"train": train, "val": [made("v", 99)]}).words["pictures"]
    for name, size, ignored, reason in (
        ("s03", "6 × 4", "50.0", "largest ignored share of train"),  # noqa: RUF001
        ("s05", "6 × 1", "0", "smallest size"),  # noqa: RUF001
        ("s08", "6 × 9", "0", "largest size"),  # noqa: RUF001
        ("v", "6 × 4", "25.0", "largest ignored share of val"),  # noqa: RUF001
    ):
        assert f"{name} {size}, {ignored} % ignored {reason}" in words
    assert re.findall(r"train (s\d\d)", words)[:6] == ["s00", "s08", "s16", "s23", "s31", "s39"]


@pytest.mark.parametrize("recorded", [True, False])
def test_the_worst_of_all_masks_is_found(recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mask's pixels were counted when it was prepared, so that none is read for it; else all are."""
    monkeypatch.chdir(tmp_path)
    train = [made(f"s{number:03d}", number, (255, 0, 1)) for number in range(120)]
    train[61] = made("s061", 61, (255, 255, 1))  # between those that an even choice of 100 would show
    folder = write("mini", {"train": train})
    rows = PreparedSplit(folder, ["train"], store="files").rows
    if recorded:
        counted = [np.bincount(sample.mask.ravel(), minlength=256) for sample in train if sample.mask is not None]
        records = [
            Record("train", row, found[:3].tolist(), {"Void": int(found[255])}, [], [], [])
            for row, found in zip(rows, counted, strict=True)
        ]
        keep(folder, {}, records)
    read: list[int] = []
    mask_of = FileSamples.mask
    monkeypatch.setattr(FileSamples, "mask", lambda self, i: (read.append(i), mask_of(self, i))[1])
    words = Page(audit("mini", "camvid")).words["pictures"]
    assert "s061 6 × 3, 66.7 % ignored largest ignored share of train" in words  # noqa: RUF001
    assert len(read) == (13 if recorded else 120 + 13)  # those that are shown


def test_same_data_same_bytes(write_page: Callable[..., Page], tmp_path: Path) -> None:
    before = write_page("mini", two_splits()).source
    paths.audit("mini", "camvid").unlink()
    assert audit("mini", "camvid") == paths.audit("mini", "camvid")
    assert paths.audit("mini", "camvid").read_text() == before
    assert str(tmp_path) not in before


def test_page_stands_alone_and_escapes_names(write_page: Callable[..., Page]) -> None:
    odd = "<script>alert(1)</script>\"'"
    samples = {"train": [made(odd, 1)], "val": [made("b", 1)]}
    page = write_page(
        "full",
        samples,
        about_source="<b>&",
        converted={"alpha": {"count": 1, "samples": [odd]}},
        skipped={"train": [{"id": odd, "problem": odd}], "val": []},
    )
    assert "<script" not in page.source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.source
    assert odd in page.words["pictures"]
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "source", "video"}
    assert set(re.findall(r"""(?:src|href|srcset|data)=["']?([a-z]*[:#/])""", page.source)) == {"data:", "#"}
    assert not re.search(r"url\(|@import|@font-face", page.source)


def test_what_was_not_prepared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="run `gald prepare mini/camvid` first"):
        audit("mini", "camvid")
    with pytest.raises(DatasetError, match="no dataset is called 'camvit'"):
        audit("mini", "camvit")


def test_damaged_and_older_folders_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write("mini", two_splits())
    with (folder / "val.csv").open("a") as file:
        file.write("x\n")
    with pytest.raises(
        DatasetError, match=r"val\.csv is not what the manifest beside it promises.*prepare mini/camvid"
    ):
        audit("mini", "camvid")
    folder = write("mini", two_splits())
    manifest = (folder / "manifest.json").read_text()
    for key, told in (("about_source", "about_source"), ("labelled", "labelled of train, labelled of val")):
        files.write_text(folder / "manifest.json", manifest.replace(f'"{key}"', '"former"'))
        with pytest.raises(DatasetError, match=rf"older version: {told} missing; run `gald prepare mini/camvid` again"):
            audit("mini", "camvid")
    (write("mini", two_splits()) / "images" / "train" / "0.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"0\.png"):
        audit("mini", "camvid")
    assert not paths.audit("mini", "camvid").exists()


def test_audit_is_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("mini", two_splits())
    code = (
        "import sys; from gald.commands.audit import audit; audit('mini', 'camvid'); "
        "sys.exit(bool({'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
