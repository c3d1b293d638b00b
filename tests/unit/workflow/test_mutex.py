import subprocess
import sys
from pathlib import Path

import pytest

from gald.errors import RunBusy
from gald.process import locking
from gald.workflow import mutex


def test_leftover_locks_go_when_nobody_builds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leftover = Path(".snakemake/locks/0.output.lock")
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    assert mutex.clear_leftovers() is None
    assert not leftover.parent.exists()


def test_a_living_builds_lock_stays_and_the_answer_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (
        "import time; from gald.workflow import mutex; mutex.claim_build(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as builder:
        try:
            assert builder.stdout.readline() == "held\n"
            leftover = Path(".snakemake/locks/0.output.lock")
            leftover.parent.mkdir(parents=True)
            leftover.touch()
            answer = mutex.clear_leftovers()
            assert f"process {builder.pid} " in answer
            assert "snakemake -n" in answer
            assert leftover.exists()
            monkeypatch.setattr(mutex, "_LOOK_S", 0.0)
            with pytest.raises(RunBusy, match=f"process {builder.pid} "):
                mutex.claim_build()
        finally:
            builder.kill()
    assert mutex.clear_leftovers() is None  # the kernel dropped the lock with its holder
    assert not leftover.exists()
    with locking.held("snakemake", wait_s=0):
        pass
