import os
import signal
import subprocess
import sys

from tests.processes import alive, wait_until

JOB = "from gald.process import watch; import time; watch.end_with_parent(); print('up', flush=True); time.sleep(600)"
PARENT = """
import os, subprocess, sys, time
environment = os.environ | {"GALD_PARENT": str(os.getpid())}
job = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=environment, stdout=subprocess.PIPE)
job.stdout.readline()
print(job.pid, flush=True)
time.sleep(600)
"""


def test_a_job_ends_soon_after_its_killed_workflow() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, JOB], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    job = int(parent.stdout.readline())
    assert alive(job)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not alive(job))


def test_without_a_workflow_nothing_is_watched() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GALD_PARENT"}
    code = "import threading; from gald.process import watch; watch.end_with_parent(); print(threading.active_count())"
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout == "1\n"
