"""What lies under an archive's name is told alike by `gald datasets`, at a glance, and by a download."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gald.datasets import load_spec
from gald.datasets._spec import Archive, DatasetSpec, Lookalike
from gald.download import glance
from gald.download.archives import verify
from gald.download.glance import mistaken
from gald.errors import ArchiveError
from tests.unit.download.conftest import make_tar, make_zip

SPEC: DatasetSpec = dataclasses.replace(
    load_spec("camvid"), lookalikes=(Lookalike("other", "no"), Lookalike("Annotations_Part/", "that of PASCAL-Part"))
)
ZIP = Archive("a.zip", strip="top/", members=r"a/[^/]+\.png")
KINDS = pytest.mark.parametrize(("name", "make"), [("a.zip", make_zip), ("a.tar", make_tar), ("a.tar.gz", make_tar)])


@KINDS
@pytest.mark.parametrize("known", [{"size": 5}, {"digests": {"md5": "00"}}])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_lookalike_is_named_before_its_size(
    name: str, make: Callable[..., Path], known: dict[str, Any], wanted: bool, tmp_path: Path
) -> None:
    archive = dataclasses.replace(ZIP, name=name, **known)
    path = make(tmp_path / name, {"Annotations_Part/x.mat": b""} | ({"top/a/x.png": b""} if wanted else {}))
    expected = f"{path} is that of PASCAL-Part"
    unsure = wanted and "digests" in known  # which a glance does not look at
    assert mistaken(path, archive, SPEC) == (None if unsure else expected)
    with pytest.raises(ArchiveError, match=rf"^{expected}; delete it$"):
        verify(path, archive, "delete it", SPEC.lookalikes)


@KINDS
def test_of_another_size(name: str, make: Callable[..., Path], tmp_path: Path) -> None:
    archive = dataclasses.replace(ZIP, name=name, size=5)
    path = make(tmp_path / name, {"top/a/x.png": b""})
    assert mistaken(path, archive, SPEC) == f"{path} has {path.stat().st_size} bytes instead of 5"
    assert mistaken(path, dataclasses.replace(archive, size=path.stat().st_size), SPEC) is None
    path.write_bytes(b"<html>")
    assert mistaken(path, archive, SPEC) == f"{path} has 6 bytes instead of 5"
    assert mistaken(path, dataclasses.replace(archive, size=None), SPEC) == f"{path} is no whole archive"


def test_what_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(path: Path, _: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = make_zip(tmp_path / "a.zip", {"top/a/x.png": b""})
    monkeypatch.setattr(glance, "opened", refusing)
    assert mistaken(path, ZIP, SPEC) == f"{path} cannot be read (Permission denied)"
