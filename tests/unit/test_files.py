import errno
import hashlib
import os
from pathlib import Path

import pytest

from gald import files


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    files.write_json(path, {"a": 1})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"a": 2})
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["run.json"]


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_tree_digest_is_that_of_the_sorted_listing(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_bytes(b"1")
    (tmp_path / "a.txt").write_bytes(b"2")
    lines = sorted(
        [
            f"{hashlib.sha256(b'1').hexdigest()}  b/x.txt\n",
            f"{hashlib.sha256(b'2').hexdigest()}  a.txt\n",
        ]
    )
    assert files.tree_digest(tmp_path) == hashlib.sha256("".join(lines).encode()).hexdigest()
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert files.tree_digest(tmp_path) != hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "masks"
    with files.replaced_folder(target) as partial:
        (partial / "1.png").write_bytes(b"old")

    def fail() -> None:
        with files.replaced_folder(target) as partial:
            (partial / "1.png").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (target / "1.png").read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["masks"]


def test_a_rest_of_a_killed_attempt_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".masks.part").mkdir()
    (tmp_path / ".masks.part" / "rest.png").write_bytes(b"")
    with files.replaced_folder(tmp_path / "masks") as partial:
        (partial / "1.png").write_bytes(b"new")
    assert [child.name for child in (tmp_path / "masks").iterdir()] == ["1.png"]


def test_no_half_removed_folder_bears_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "masks"
    target.mkdir()
    (target / "1.png").write_bytes(b"old")

    def killed(path: Path, ignore_errors: bool = False) -> None:
        assert path != target, "what bears the final name must never be taken apart"
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gald.files.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt), files.replaced_folder(target) as partial:
            (partial / "1.png").write_bytes(b"new")  # then killed while the old one is being removed
    assert (target / "1.png").read_bytes() == b"new"
    with files.replaced_folder(target) as partial:
        (partial / "1.png").write_bytes(b"newer")
    assert [child.name for child in tmp_path.iterdir()] == ["masks"]


def test_a_folder_that_is_removed_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "masks"
    files.write_text(target / "1.png", "old")

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gald.files.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            files.remove_folder(target)
    assert list(tmp_path.iterdir()) == [files.former_name(target)]
    files.remove_folder(target)
    assert list(tmp_path.iterdir()) == []


def test_files_are_readable_by_others(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x", "y")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
