"""What made a result: a digest of the package's source, the commit where git knows one, and the processor."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path

from gald.files import tree_digest

_PACKAGE = Path(__file__).parent


@cache
def code_digest() -> str:
    """Digest of the package's Python files, as 64 hex digits; see `gald.files.tree_digest`."""
    return tree_digest(_PACKAGE, "**/*.py")


@cache
def commit() -> str | None:
    """Commit of the repository that holds the package; None where there is none, or no git."""
    return _git("rev-parse", "HEAD")


@cache
def is_dirty() -> bool | None:
    """Whether the package differs from its commit; None where there is no commit."""
    status = _git("status", "--porcelain", "--", str(_PACKAGE))
    return None if status is None else bool(status)


def cpu_name() -> str:
    """Name of the processor, as its maker has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=_PACKAGE, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
