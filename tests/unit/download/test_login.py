"""Accounts: where the words come from, that they log in, and that no message, file or exception ever holds them."""

import json
import logging
import stat
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from gald.datasets._spec import Archive
from gald.download.fetch import fetch
from gald.download.login import Account, LoginError, credentials, credentials_file
from gald.errors import ArchiveError

CONTENT = bytes(range(256)) * 8000
USER, PASSWORD = "someone@example.org", "hunter2-never-shown"
WRONG = "hunter3-never-shown"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    (tmp_path / "archives").mkdir()
    return tmp_path / "archives"


def store(site: Any, content: Any) -> Path:
    """Write what the official client writes."""
    path = credentials_file(site.login)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(stat.S_IREAD | stat.S_IWRITE)
    return path


def logged_in(site: Any, monkeypatch: pytest.MonkeyPatch, password: str = PASSWORD) -> Account:
    monkeypatch.setenv("SITE_USERNAME", USER)
    monkeypatch.setenv("SITE_PASSWORD", password)
    return Account(site.login)


def archive(site: Any, name: str = "a.zip") -> Archive:
    return Archive(name, (f"{site.url}/{name}",), login=site.login)


def everything_of(error: BaseException) -> str:
    """All that a message, a chain of causes, attributes and the frames' own variables of an error hold."""
    seen: list[str] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        seen += [str(one), repr(one), repr(vars(one)), "".join(traceback.format_exception(one))]
        shown = traceback.TracebackException.from_exception(one, capture_locals=True)
        seen += [repr(frame.locals) for frame in shown.stack if frame.filename.find("/gald/") >= 0]
        waiting += [one.__cause__, one.__context__]
    return "\n".join(seen)


def test_where_the_words_come_from(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = site.login
    assert credentials(login) is None
    assert credentials_file(login) == folder.parent / "home" / "siteclient" / "credentials.json"
    for useless in (
        "{",
        "[]",
        '"x"',
        {"username": USER},
        {"username": USER, "password": ""},
        {"username": 1, "password": 2},
    ):
        store(site, useless)
        assert credentials(login) is None
    path = store(site, {"username": "stored", "password": "by the client"})
    assert credentials(login) == ("stored", "by the client")
    monkeypatch.setenv("SITE_USERNAME", USER)
    assert credentials(login) == ("stored", "by the client")  # half a pair is none
    monkeypatch.setenv("SITE_PASSWORD", PASSWORD)
    assert credentials(login) == (USER, PASSWORD)
    assert path.exists()


def test_the_official_client_s_file_logs_in(site: Any, folder: Path) -> None:
    store(site, {"username": USER, "password": PASSWORD})
    site.add("a.zip", protected=True)
    found = fetch(archive(site), folder, Account(site.login), threading.Event())
    assert found is not None
    assert found.path.read_bytes() == CONTENT
    assert site.paths() == ["/login", "/login", "/a.zip"]


def test_one_login_for_all_archives_also_side_by_side(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = logged_in(site, monkeypatch)
    found: list[Any] = []
    for name in "abcd":
        site.add(f"{name}.zip", protected=True)

    def one(name: str) -> None:
        found.append(fetch(archive(site, f"{name}.zip"), folder, account, threading.Event()))

    threads = [threading.Thread(target=one, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [copy.path.read_bytes() == CONTENT for copy in found] == [True] * 4
    assert site.logins == 1


def test_without_words_a_person_must_get_it(site: Any, folder: Path) -> None:
    site.add("a.zip", protected=True)
    assert fetch(archive(site), folder, None, threading.Event()) is None
    assert not site.asked


def test_wrong_words_are_tried_once_and_told_nowhere(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("a.zip", "b.zip"):
        site.add(name, protected=True)
    account = logged_in(site, monkeypatch, WRONG)
    for name in ("a.zip", "b.zip"):
        with pytest.raises(ArchiveError, match="The Site does not accept the user name and password in SITE_USER") as e:
            fetch(archive(site, name), folder, account, threading.Event())
        monkeypatch.delenv("SITE_PASSWORD", raising=False)  # so that only what the error holds is looked at
        assert WRONG not in everything_of(e.value) + caplog.text + repr(account) + repr(vars(account))
        assert USER not in everything_of(e.value) + caplog.text + repr(vars(account))
        assert not any(WRONG in path.read_text() for path in folder.rglob("*") if path.is_file())
    assert account.refused
    assert site.logins == 1  # an account may be locked after a few wrong ones


def test_a_wrong_file_of_the_client_is_named_and_kept(site: Any, folder: Path) -> None:
    path = store(site, {"username": USER, "password": WRONG})
    with pytest.raises(LoginError, match=str(path)) as caught:
        Account(site.login).cookies()
    assert WRONG not in everything_of(caught.value)
    assert path.exists()


@pytest.mark.parametrize("ill", ["silent", "503"])
def test_a_host_that_does_not_answer(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, ill: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    login = site.login
    if ill == "silent":
        monkeypatch.setattr("requests.sessions.Session.post", refusing)
    else:
        monkeypatch.setattr("requests.sessions.Session.post", lambda *_, **__: type("Answer", (), {"status_code": 503}))
    account = logged_in(site, monkeypatch)
    with pytest.raises(LoginError, match=rf"The Site: {login.url} .*") as caught:
        account.cookies()
    assert caught.value.again
    assert not account.refused
    assert PASSWORD not in everything_of(caught.value) + caplog.text


def refusing(_session: Any, url: str, **kwargs: Any) -> None:
    """Fail as requests does, whose error holds the request with all that was posted."""
    import requests

    raise requests.ConnectionError(
        f"{url} {kwargs['data']}", request=requests.Request("POST", url, **{"data": kwargs["data"]})
    )


def test_a_session_that_ends_is_begun_again(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = logged_in(site, monkeypatch)
    site.add("a.zip", protected=True, faults=["cut 1000000"])
    account.cookies()
    site.tokens.clear()
    site.tokens.add("of somebody else")
    found = fetch(archive(site), folder, account, threading.Event())
    assert found is not None
    assert found.path.read_bytes() == CONTENT
    assert site.logins == 2


def test_an_account_without_the_rights(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are right, and the archive is not handed out all the same."""
    account = logged_in(site, monkeypatch)
    site.add("a.zip", faults=["html"] * 9)
    with pytest.raises(ArchiveError, match="answers with a web page, not with the archive"):
        fetch(archive(site), folder, account, threading.Event())
    assert not (folder / "a.zip").exists()


def test_cookies_stay_with_their_host(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = logged_in(site, monkeypatch)
    host = site.url.replace("127.0.0.1", "localhost")
    site.add("a.zip", redirect=f"{host}/b.zip")
    site.add("b.zip")
    found = fetch(archive(site), folder, account, threading.Event())
    assert found is not None
    sent = {path: headers.get("Cookie") for path, headers in site.asked if path.endswith("zip")}
    assert sent == {"/a.zip": "session=token1", "/b.zip": None}


def test_a_mirror_needs_no_login(site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = logged_in(site, monkeypatch, WRONG)
    site.add("mirror/a.zip")
    monkeypatch.setenv("GALD_MIRROR", f"{site.url}/mirror")
    found = fetch(archive(site), folder, account, threading.Event())
    assert found is not None
    assert found.source == "mirror"
    assert site.logins == 0
