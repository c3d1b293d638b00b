"""Where archives may lie: mirrors in order, what is told of them, and whether the network may be asked."""

import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gald.commands.datasets import datasets
from gald.datasets import load_spec
from gald.datasets._spec import Archive
from gald.download.fetch import fetch
from gald.download.places import mirrors, offline, shown
from gald.download.run import download
from gald.errors import ArchiveError
from tests.unit.download.conftest import CONTENT, DIGESTS, archive, get, refused


def test_mirrors_in_order(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("second/a.zip")
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/first {site.url}/second/ {site.url}/third")
    found = get(Archive("a.zip", ("http://127.0.0.1:9/never",)), folder)
    assert (found.path, found.source) == (folder / "a.zip", "mirror")
    assert site.paths() == ["/first/a.zip", "/second/a.zip"]


def test_mirrors_that_are_folders(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = tmp_path / "with blanks"
    spaced.mkdir()
    (spaced / "a.zip").write_bytes(CONTENT)
    for value in (str(spaced), f"{spaced.as_uri()}", f"{folder} {spaced.as_uri()}"):
        monkeypatch.setenv("GALD_MIRROR", value)
        found = fetch(Archive("a.zip", digests=DIGESTS), folder, None, threading.Event())
        assert found is not None
        assert (found.path, found.source) == (spaced / "a.zip", "mirror")
    monkeypatch.setenv("GALD_MIRROR", f"{folder} {tmp_path}/nowhere")
    with pytest.raises(ArchiveError, match=r"GALD_MIRROR names .*nowhere, which is no folder; create it, or unset"):
        mirrors()
    monkeypatch.setenv("GALD_MIRROR", "")
    assert mirrors() == ()


@pytest.mark.parametrize("entry", ["htps://me:s3cr3t@host/x", "sftp://me:s3cr3t@host", "://me:s3cr3t@host"])
def test_a_mirror_of_unknown_kind_is_not_told(entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GALD_MIRROR", f"http://127.0.0.1:9 {entry}")
    section = SimpleNamespace(seed=0, source=lambda name: load_spec(name).source)
    for ask in (mirrors, lambda: datasets(section, SimpleNamespace(store="packed"))):
        with pytest.raises(ArchiveError, match=r"GALD_MIRROR holds a URL that is none of http") as caught:
            ask()
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_secrets_of_a_mirror_are_not_told(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host = site.url.removeprefix("http://")
    monkeypatch.setenv("GALD_MIRROR", f"http://me:s3cr3t@{host}/absent ftp://me:s3cr3t@127.0.0.1:9 http://me:s3cr3t@[/")
    with pytest.raises(ArchiveError, match="GALD_MIRROR holds what is neither a folder nor a URL") as caught:
        fetch(Archive("a.zip"), folder, None, threading.Event())
    assert "s3cr3t" not in str(caught.value)
    monkeypatch.setenv("GALD_MIRROR", f"http://me:s3cr3t@{host}/absent ftp://me:s3cr3t@127.0.0.1:9")
    with pytest.raises(ArchiveError, match="HTTP status 404") as caught:
        fetch(Archive("a.zip"), folder, None, threading.Event())
    assert "s3cr3t" not in caplog.text + str(caught.value)
    site.add("a.zip", faults=["cut 1000"])
    monkeypatch.setenv("GALD_MIRROR", f"http://me:s3cr3t@{host}")
    get(Archive("a.zip"), folder)
    assert "s3cr3t" not in caplog.text
    assert not any("s3cr3t" in path.read_text() for path in folder.glob(".*"))


def test_offline(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("a.zip")
    monkeypatch.setenv("GALD_OFFLINE", "1")
    refused(archive(site), folder, r"a\.zip: not asked, since GALD_OFFLINE is set")
    assert not site.asked
    monkeypatch.setenv("GALD_OFFLINE", "0")
    get(archive(site), folder)


def test_nowhere_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    assert fetch(Archive("a.zip"), folder, None, threading.Event()) is None


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("ftp://a:b@h/x#z") == "ftp://h/x"
    assert shown("http://h/x?a=1&secret&b=2=3;c=4") == "http://h/x?a=...&...&b=..."


SECRET = "sv=1&sig=TOPSECRET"


def test_a_token_stands_behind_the_file_s_name_and_is_told_nowhere(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/c/?{SECRET}")
    page = site.add(f"c/a.zip?{SECRET}", faults=[f"cut {len(CONTENT) // 2}", "404"])
    with pytest.raises(ArchiveError, match=r"/c/a\.zip\?sv=\.\.\.&sig=\.\.\.: HTTP status 404") as caught:
        fetch(Archive("a.zip", digests=DIGESTS), folder, None, threading.Event())
    left = [path.read_bytes() for path in folder.glob(".*.json")]
    assert left
    assert not any(b"TOPSECRET" in content for content in left)
    site.pages = {"/c/a.zip?sv=1&sig=RENEWED": page}  # tokens are renewed, and the file is the same
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/c?sv=1&sig=RENEWED")
    assert get(Archive("a.zip", digests=DIGESTS), folder).source == "mirror"
    assert site.ranges()[-1] is not None
    told = caplog.text + str(caught.value) + "".join(path.read_text() for path in folder.glob(".*"))
    assert not any(word in told for word in ("TOPSECRET", "RENEWED"))


def test_a_token_longer_than_a_file_name(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked whether it is a folder, the system answers with an error that repeats it."""
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/c?sig={'x' * 300}")
    site.add(f"c/a.zip?sig={'x' * 300}")
    assert get(Archive("a.zip"), folder).source == "mirror"


@pytest.mark.parametrize(
    "entry", ["me:s3cr3t@host/x", "host/x?sig=s3cr3t", "s3cr3t@host", "http://me:s3cr3t/@host/x", "token=s3cr3t"]
)
def test_an_entry_that_may_hold_a_secret_is_not_told(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALD_MIRROR", f"http://127.0.0.1:9 {entry}")
    with pytest.raises(ArchiveError, match=r"entry 2 of GALD_MIRROR|GALD_MIRROR holds what is neither") as caught:
        mirrors()
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "archives").mkdir()
    (tmp_path / "with blanks").mkdir()
    for value, folders in (
        ("~/archives", ["archives"]),
        ("~/archives ~/archives", ["archives", "archives"]),
        ("~/with blanks", ["with blanks"]),
    ):
        monkeypatch.setenv("GALD_MIRROR", value)
        assert mirrors() == tuple(tmp_path / name for name in folders)
    monkeypatch.setenv("GALD_MIRROR", "~nobody-of-this-name/archives")
    with pytest.raises(ArchiveError, match="GALD_MIRROR names ~nobody-of-this-name/archives, which is no folder"):
        mirrors()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", False), *((word, False) for word in ("0", "false", "No", "OFF", " 0 "))]
    + [(word, True) for word in ("1", "TRUE", "yes", "On ")],
)
def test_words_for_yes_and_no(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALD_OFFLINE", value)
    assert offline() == expected


def test_any_other_word_is_refused_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALD_MIRROR", raising=False)
    monkeypatch.setenv("GALD_OFFLINE", "offf")
    section = SimpleNamespace(seed=0, source=lambda name: load_spec(name).source)
    for ask in (
        lambda: download("full", "cityscapes", section),
        lambda: datasets(section, SimpleNamespace(store="packed")),
    ):
        with pytest.raises(ArchiveError, match=r"^GALD_OFFLINE is 'offf'; set it to 1 .true, yes, on. or 0"):
            ask()
