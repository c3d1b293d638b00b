"""A copy of the repository in which suites are built, and one finished build of suite `smoke` to copy from."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from gald.params import Run, load_suite
from tests.processes import wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COPIED = ("Snakefile", "workflow", "profiles", "params", "dvc.yaml", ".dvc", ".dvcignore", ".gitignore")
_DVC_STATE = shutil.ignore_patterns("cache", "tmp", "config.local")


@dataclass
class Finished:
    """How a command ended, and all it said."""

    status: int
    said: str
    seconds: float

    @property
    def jobs(self) -> list[str]:
        """Messages of the jobs that ran, or would run, in their order."""
        return re.findall(r"^Job \d+: (.*?)(?:: open .*)?$", self.said, re.MULTILINE)

    @property
    def trained(self) -> set[str]:
        return {job.removeprefix("train ") for job in self.jobs if job.startswith("train ")}


@dataclass
class Repository:
    """A working copy: its folder, and commands run in it."""

    folder: Path

    def __call__(self, *command: str, **environment: str) -> Finished:
        begin = time.monotonic()
        process = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=self.folder,
            env=self.environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )
        return Finished(process.returncode, process.stdout, time.monotonic() - begin)

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command in a session of its own, its words in ``started.txt``."""
        with (self.folder / "started.txt").open("w") as words:
            return subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=self.folder,
                env=self.environment({}),
                stdout=words,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @staticmethod
    def environment(changes: dict[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "SNAKEMAKE_"))}
        # The repository's own PATH is left alone: `gald` must be found beside Snakemake.
        return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", **changes}

    @property
    def runs(self) -> tuple[Run, ...]:
        return load_suite("smoke", self.folder / "params").runs

    @property
    def names(self) -> set[str]:
        return {run.name for run in self.runs}

    def edit(self, path: str, change: Callable[[dict], None]) -> None:
        """Change a params file by its content."""
        content = yaml.safe_load((self.folder / path).read_text())
        change(content)
        (self.folder / path).write_text(yaml.safe_dump(content, sort_keys=False))

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        assert old in text
        (self.folder / path).write_text(text.replace(old, new))

    def contents(self, pattern: str) -> dict[str, bytes]:
        """Files matching a pattern, by path."""
        files = sorted(path for path in self.folder.glob(pattern) if path.is_file())
        assert files, f"nothing matches {pattern}"
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def processes(self, *words: str) -> list[int]:
        """Ids of the processes of `gald` in this copy whose command line has these words."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                here = (entry / "cwd").resolve() == self.folder.resolve()
            except OSError:
                continue
            if (
                here
                and {word.encode() for word in words} <= set(command)
                and any(part.endswith(b"/gald") for part in command)
            ):
                found.append(int(entry.name))
        return found

    @staticmethod
    def wait_until(condition: Callable[[], object], seconds: float = 300.0) -> None:
        wait_until(condition, seconds)

    @staticmethod
    def kill(process: int | subprocess.Popen) -> None:
        """Kill without any chance to clean up."""
        if isinstance(process, int):
            os.kill(process, signal.SIGKILL)
        else:
            process.kill()
            process.wait()


def copy_repository(folder: Path) -> Repository:
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=_DVC_STATE)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return Repository(folder)


@pytest.fixture(scope="session")
def first_build(tmp_path_factory) -> tuple[Repository, Finished]:
    """Suite `smoke`, built once for the session by the user's own command; never change it."""
    repository = copy_repository(tmp_path_factory.mktemp("built") / "repository")
    return repository, repository("snakemake", "--cores", "all", "smoke")


@pytest.fixture
def fresh(tmp_path) -> Repository:
    """A copy of the repository in which nothing was ever built."""
    return copy_repository(tmp_path / "repository")


@pytest.fixture
def built(first_build, tmp_path) -> Repository:
    """A copy of the repository in which suite `smoke` is built."""
    repository, finished = first_build
    assert finished.status == 0, finished.said
    shutil.copytree(repository.folder, tmp_path / "repository", symlinks=True)  # keeps the times, to the nanosecond
    return Repository(tmp_path / "repository")


@pytest.fixture
def prepared(built) -> Repository:
    """A copy in which the data of suite `smoke` is prepared, and nothing is trained."""
    for name in ("runs", "predictions", "reports/smoke"):
        shutil.rmtree(built.folder / name)
    (built.folder / ".gald/tracking/smoke.json").unlink()
    return built
