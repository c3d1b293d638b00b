"""Accounts of hosts that ask for a login: the words come from the environment or the official client, and go nowhere.

User name and password are read when they are posted, and held by nothing afterwards: no attribute, message, file or
exception has them.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from gald.datasets._spec import Login, Terms
from gald.download.part import SourceError

if TYPE_CHECKING:
    from requests.cookies import RequestsCookieJar

_TIMEOUT = 30.0
_ENTERED = 302  # the host redirects whom it has let in, and shows the form again to anybody else


class LoginError(SourceError):
    """A host does not let us in."""


def credentials_file(login: Login) -> Path:
    """Where the host's official client keeps user name and password, if it was told to."""
    import platformdirs

    return platformdirs.user_data_path(login.client, login.author) / "credentials.json"


def credentials(login: Login) -> tuple[str, str] | None:
    """Return user name and password: from the environment, or else as the official client has stored them.

    Parameters
    ----------
    login : Login
        Names the variables and the client.

    Returns
    -------
    (str, str) or None
        None if neither place has both.
    """
    user, password = (os.environ.get(name, "") for name in login.variables)
    if user and password:
        return user, password
    try:
        stored = json.loads(credentials_file(login).read_text(encoding="utf-8"))
        words = stored["username"], stored["password"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return words if all(isinstance(word, str) and word for word in words) else None


def half_told(login: Login) -> str | None:
    """Say which variable is missing where one of the two is set and nothing else logs in.

    Parameters
    ----------
    login : Login
        Names the variables.
    """
    if credentials(login) is not None:
        return None
    told = [name for name in login.variables if os.environ.get(name)]
    missing = [name for name in login.variables if name not in told]
    return f"{told[0]} is set, but {missing[0]} is not" if len(told) == 1 else None


def advice(login: Login, terms: Terms, folder: Path) -> str:
    """Say how an archive behind a login can be had, as lines to be read one after the other.

    Parameters
    ----------
    login : Login
        The host's account.
    terms : Terms
        What the benchmark asks of a person.
    folder : Path
        Where archives may be laid by hand.
    """
    user, password = login.variables
    return (
        f"  1. Register at {login.register}. What you accept or do: {terms}.\n"
        f"  2. Either let this command log in: set {user} and {password} in the environment, or let the official "
        f"client store them in {credentials_file(login)} (`pip install {login.client}`, then `csDownload -l`, and "
        "answer y).\n"
        f"  3. Or download the archives yourself, and put them into {folder} under the names above."
    )


class Account:
    """A login that is used when the first archive asks for it, once for all of them.

    Parameters
    ----------
    login : Login
        The host's account.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        self._lock = threading.Lock()
        self._cookies: RequestsCookieJar | None = None
        self._refusal = ""

    @property
    def refused(self) -> bool:
        """Whether the host did not accept user name and password."""
        return bool(self._refusal)

    def cookies(self) -> RequestsCookieJar:
        """Return the cookies of a session, logging in if there is none.

        Raises
        ------
        LoginError
            The words are wrong, which is asked once only lest the account be locked, or the host does not answer.
        """
        with self._lock:
            if self._refusal:
                raise LoginError(self._refusal, again=False)
            if self._cookies is None:
                self._cookies, problem, self._refusal = _enter(self.login)
                if self._refusal:
                    raise LoginError(self._refusal, again=False)
                if problem:
                    raise LoginError(problem)
            assert self._cookies is not None  # or there was a problem
            return self._cookies

    def leave(self) -> None:
        """Forget the session, so that the next archive begins another."""
        with self._lock:
            self._cookies = None


def _enter(login: Login) -> tuple[RequestsCookieJar | None, str, str]:
    """Log in; return the cookies, a passing problem, and a refusal, of which one is there.

    Nothing is raised from here, because a traceback's frames would hold the password.
    """
    import requests

    words = credentials(login)
    if words is None:
        return None, "", f"{login.title}: there is no user name or no password any more"
    fields = {"username": words[0], "password": words[1], "submit": "Login"}
    with requests.Session() as session:
        try:
            session.get(login.url, timeout=_TIMEOUT, allow_redirects=False).raise_for_status()
            answer = session.post(login.url, data=fields, timeout=_TIMEOUT, allow_redirects=False)
        except (requests.RequestException, ValueError) as error:
            return None, f"{login.title}: {login.url} does not answer ({type(error).__name__})", ""
        if answer.status_code >= 500:
            return None, f"{login.title}: {login.url} answers with HTTP status {answer.status_code}", ""
        if answer.status_code != _ENTERED:
            return None, "", f"{login.title} does not accept the user name and password in {_origin(login)}"
        return session.cookies, "", ""


def _origin(login: Login) -> str:
    if all(os.environ.get(name) for name in login.variables):
        return " and ".join(login.variables)
    return str(credentials_file(login))
