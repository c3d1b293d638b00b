"""Files that are whole or absent: atomic writes, digests, and the one spelling of JSON that is hashed.

A reader never meets a half-written file, because content goes to a temporary sibling first, is flushed to disk, and
then takes the final name in one step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LISTING = "files.sha256"
"""Name of the list beside a tree of files whose own sha256 is the tree's digest."""
_CHUNK = 1 << 20


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an `OSError` of the block name the file, as one of an open file that a full disk refuses to grow does not.

    Examples
    --------
    >>> with naming(Path("weights")):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'weights'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that `path` is either the old file or the whole new one.

    Parameters
    ----------
    path : Path
        Destination; missing parent folders are made.
    content : bytes
        What the file will hold.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written; the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes private files; results are for everybody
        os.replace(name, path)  # noqa: PTH105 - Path.replace is the same call, this one reads as the pair of mkstemp
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically: keys in the order given, two spaces, a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def canonical_json(value: Any) -> str:
    """Spell a value in the one way that is hashed and compared.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [0.010, True]})
    '{"a":[0.01,true],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Sha256 of a value's canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Sha256 of a file's bytes, as 64 hex digits."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            running.update(chunk)
    return running.hexdigest()


def tree_digest(folder: Path, pattern: str = "**/*") -> str:
    """Digest of a folder's files: sha256 of their `tree_listing`, as 64 hex digits; parameters as there."""
    return listing_digest(tree_listing(folder, pattern))


def tree_listing(folder: Path, pattern: str = "**/*") -> str:
    """List a folder's files: the sorted lines ``<sha256>  <relative path>``, as ``sha256sum`` prints them.

    Parameters
    ----------
    folder : Path
        Root of the tree; its own name does not count.
    pattern : str
        Glob below `folder`; folders themselves are passed over.
    """
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return "".join(sorted(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files))


def listing_digest(listing: str) -> str:
    """Digest of the tree that a `tree_listing` describes, as 64 hex digits."""
    return hashlib.sha256(listing.encode()).hexdigest()


def parse_listing(listing: str) -> dict[str, str]:
    r"""Read a `tree_listing`: the sha256 of each file by its relative path.

    Examples
    --------
    >>> parse_listing("ab  a/x y.png\ncd  b\n")
    {'a/x y.png': 'ab', 'b': 'cd'}
    """
    pairs = (line.partition("  ") for line in listing.split("\n") if line)
    return {name: digest for digest, _, name in pairs}


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Build a folder beside its final place; it takes the name `path` only when the block ends well.

    A rest of an earlier, killed attempt is removed first. On failure the half-built folder is removed and an older
    `path` stays as it was. The older one steps aside whole, since a kill in the middle of its removal would leave half
    of it under the final name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.part"
    for rest in (partial, former_name(path)):
        shutil.rmtree(rest, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    take_place(partial, path)


def take_place(partial: Path, path: Path) -> None:
    """Give a whole folder its final name `path`; an older one steps aside whole before it is removed."""
    former = former_name(path)
    shutil.rmtree(former, ignore_errors=True)
    if path.exists():
        path.rename(former)
    partial.rename(path)
    shutil.rmtree(former, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, which loses its name first: a kill in the middle leaves no half of it that could be believed.

    Nothing happens where there is none, but that the rest of an earlier, killed removal goes.
    """
    former = former_name(path)
    shutil.rmtree(former, ignore_errors=True)
    if path.is_dir():
        path.rename(former)
        shutil.rmtree(former, ignore_errors=True)


def former_name(path: Path) -> Path:
    """Name under which a folder is removed."""
    return path.with_name(f".{path.name}.old")
