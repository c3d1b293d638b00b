import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from gald.params import Run
from tests.unit.train.jobs import Job


@pytest.fixture
def start() -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def started(*wanted: Run, **options: Any) -> Job:
        jobs.append(Job(*wanted, **options))
        return jobs[-1]

    yield started
    for job in jobs:
        if job.agent.poll() is None:
            for pid in [*job.workers().values(), job.agent.pid]:  # workers lead sessions of their own
                os.kill(pid, signal.SIGKILL)
            job.agent.wait()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute as trainings do: threads cost small networks more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
