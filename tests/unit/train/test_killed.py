"""A training killed at random, in writes and between them, ends as if nothing had happened."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gald
from gald import files, paths
from gald.params import Run
from tests.processes import wait_until
from tests.unit.train.stopped import outcome

NURSERY = '''
"""Import once; train in a forked process for every line that is read, and tell its id and how it ended."""
import json, os, random, signal, sys
from pathlib import Path
from gald import files
from gald.params import Run, RunParams
from gald.train import history, run
from gald.train.run import train

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_in_a_write(how, count, seed):
    """Be killed in the count-th write: with a part of the file there, before or after the renaming, or in a line."""
    rng, seen, fsync, replace, append = random.Random(seed), [], os.fsync, os.replace, history.append
    def due(name):
        seen.append(name)
        return len(seen) >= count

    def killed_fsync(handle):
        if how == "part" and due(handle):
            os.ftruncate(handle, int(rng.random() * os.fstat(handle).st_size))
            die()
        fsync(handle)

    def killed_replace(old, new):
        if how == "before" and due(new):
            die()
        replace(old, new)
        if how == "after" and due(new):
            die()

    def killed_append(path, line):
        if how == "line" and due(path):
            text = json.dumps(line)
            with path.open("a") as file:
                file.write(text[:rng.randrange(len(text))])
            die()
        append(path, line)

    os.fsync, os.replace, history.append = killed_fsync, killed_replace, killed_append

def die_while_publishing(count):
    """Be killed at the count-th step that changes a file, from the first one of publishing on."""
    published, seen = run.publish, []

    def step(real):
        def counted(*given, **options):
            seen.append(real)
            if len(seen) == count:
                die()
            return real(*given, **options)
        return counted

    def publish(*given):
        os.fsync, os.replace, os.unlink, os.rmdir = map(step, (os.fsync, os.replace, os.unlink, os.rmdir))
        Path.unlink = step(Path.unlink)
        published(*given)

    run.publish = publish

for request in sys.stdin:
    name, content, kill = json.loads(request)
    child = os.fork()
    if child == 0:
        if kill and kill[0] == "publish":
            die_while_publishing(kill[1])
        elif kill:
            die_in_a_write(*kill)
        params = RunParams.model_validate(content)
        train(Run(name, *name.split("/")[:2], "none", params.train.seed, params))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
'''

WRITES = ("part", "before", "after", "line")
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw, averaged, validated": {
        "optimiser": "adamw",
        "learning_rate": 0.005,
        "average_decay": 0.9,
        "micro_batches": 2,
        "validation": {"every": 5, "split": "test", "samples": 2, "patience": None},
    },
}
SHORT = {"max_iters": 240, "checkpoint_every": 2, "log_every": 3}  # far more than 20 kills take


class Nursery:
    """Process that has everything imported and trains in children of its own: a start takes no second."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(gald.__file__).parents[1]), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, run: Run, kill: tuple[str, int, int] | None = None) -> int:
        """Train in a child; return its id."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps([run.name, run.params.model_dump(mode="json"), kill]) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        """Wait for the child; return the signal that killed it, or 0."""
        status = int(self._line())
        assert os.WIFSIGNALED(status) or status == 0, self._errors()
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self._errors()
        return line

    def _errors(self) -> str:
        self.process.kill()
        return self.process.communicate()[1]


@pytest.fixture
def nursery(prepared: Path) -> Iterator[Nursery]:
    """Nursery in the repository of the prepared benchmark."""
    found = Nursery()
    yield found
    found.process.kill()
    found.process.communicate()


def kill_between(nursery: Nursery, run: Run, rng: random.Random) -> int:
    """Kill from outside, a random moment after the next checkpoint; return the signal that ended the child."""
    folder = paths.checkpoint_dir(run.name)
    before = set(folder.glob("*.checkpoint"))
    child = nursery.start(run)
    wait_until(lambda: paths.run_json(run.name).exists() or set(folder.glob("*.checkpoint")) - before)
    time.sleep(rng.uniform(0, 0.04))
    with contextlib.suppress(ProcessLookupError):  # it ended by itself, which the caller sees
        os.kill(child, signal.SIGKILL)
    return nursery.ended()


def killed_and_unbroken(
    nursery: Nursery, make_run: Callable[..., Run], recipe: str, kills: list[str], seed: int
) -> list[str]:
    """Train unbroken, and killed as told; hold one against the other; return where kills struck."""
    params = SHORT | RECIPES[recipe]
    unbroken, broken = (make_run(f"mini/camvid/none-seed{number}", train=params) for number in (0, 1))
    nursery.start(unbroken)
    assert nursery.ended() == 0
    rng, struck = random.Random(seed), []
    for kill in kills:
        if kill == "between":
            ended = kill_between(nursery, broken, rng)
        else:
            nursery.start(broken, (kill, rng.randint(1, 4), rng.randrange(1000)))
            ended = nursery.ended()
        struck += [kill] if ended == signal.SIGKILL else []
    assert not paths.run_json(broken.name).exists(), "it ended before all kills; make it longer"
    nursery.start(broken)
    assert nursery.ended() == 0
    assert outcome(broken)[0] == outcome(unbroken)[0]
    assert outcome(broken)[2:] == outcome(unbroken)[2:]
    if paths.best_weights(unbroken.name).exists():
        assert files.sha256(paths.best_weights(broken.name)) == files.sha256(paths.best_weights(unbroken.name))
        first, second = (json.loads(paths.run_json(run.name).read_text())["best"] for run in (unbroken, broken))
        assert first == second
    assert not paths.checkpoint_dir(broken.name).exists()
    return struck


@pytest.mark.slow
def test_kill_9_at_any_moment_changes_no_bit(nursery: Nursery, make_run: Callable[..., Run]) -> None:
    kills = ["between", "part", "between", "line"]
    assert killed_and_unbroken(nursery, make_run, "sgd", kills, 0) == kills


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_twenty_random_kills_change_no_bit(nursery: Nursery, make_run: Callable[..., Run], recipe: str) -> None:
    """Half of them in writes of checkpoints, history and best weights, half at moments that nobody chose."""
    kills = random.Random(recipe).choices(WRITES, k=10) + ["between"] * 10
    random.Random(recipe).shuffle(kills)
    assert killed_and_unbroken(nursery, make_run, recipe, kills, 1) == kills


def left_by(run: Run) -> dict[str, Any]:
    """All files of a finished run, but for times and its name."""
    found: dict[str, Any] = {}
    for path in paths.run_dir(run.name).iterdir():
        found[path.name] = (
            path.read_text().replace(run.name, "RUN") if path.suffix != ".safetensors" else path.read_bytes()
        )
    found["history.jsonl"] = outcome(run)[2]
    return found


@pytest.mark.slow
def test_a_kill_at_any_step_of_publishing_costs_nothing(nursery: Nursery, make_run: Callable[..., Run]) -> None:
    """Killed at the first step, the second, and so on, each time from the same state before it."""
    validated = {"validation": {"every": 2, "split": "test", "samples": 1, "patience": None}}
    params = {"max_iters": 8, "checkpoint_every": 3, "log_every": 2} | validated
    unbroken, broken = (make_run(f"mini/camvid/none-seed{number}", train=params) for number in (0, 1))
    nursery.start(unbroken)
    assert nursery.ended() == 0
    expected, steps = left_by(unbroken), 0
    assert set(expected) >= {"run.json", "weights.safetensors", "best.safetensors", "history.jsonl", "params.yaml"}
    nursery.start(broken, ("publish", 1, 0))
    assert nursery.ended() == signal.SIGKILL
    before, folder, results = Path("before"), paths.checkpoint_dir(broken.name), paths.run_dir(broken.name)
    shutil.copytree(folder, before)
    while True:
        steps += 1
        for place in (folder, results):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(before, folder)
        nursery.start(broken, ("publish", steps, 0))
        if nursery.ended() == 0:
            break
        assert not paths.run_json(broken.name).exists() or left_by(broken) == expected
        nursery.start(broken)
        assert nursery.ended() == 0
        assert left_by(broken) == expected, f"killed at step {steps}"
        assert not folder.exists()
    assert steps > 20
