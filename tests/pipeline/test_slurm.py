"""The Slurm profile: what it asks for, and what becomes of a training whose time is nearly up.

A stand-in takes the place of Slurm. It starts jobs as processes of this machine and treats them as Slurm does: a
warning goes to every process of a job's step and to none of its batch script, and what a step leaves behind is killed.
With GALD_SLURM=1 the tests run on the cluster of this machine too; it must see the folder for temporary files.
"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gald import paths
from gald.params import load_suite

pytestmark = pytest.mark.pipeline

PROFILE = ("--workflow-profile", "profiles/slurm")
WITH_PLUGIN = importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None
needs_plugin = pytest.mark.skipif(not WITH_PLUGIN, reason="needs the extra `slurm`")
QUICK = (
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
    *("--seconds-between-status-checks", "1", "--latency-wait", "5"),
)
SMALL = ("--set-resources", "train:mem_mb=2000", "train:runtime=30")  # nodes of a test are small

SBATCH = """
import os, pathlib, subprocess, sys
folder = pathlib.Path(os.environ["STAND_IN"])
job = str(len(list(folder.glob("*.request"))) + 1)
(folder / f"{job}.request").write_text("\\n".join(sys.argv[1:-1]))
if (folder / "refuses").exists():
    sys.exit("submission refused")
wrapped = sys.argv[-1].removeprefix("--wrap=")
ending = f'if ( {wrapped} ); then echo COMPLETED; else echo FAILED; fi > "$STAND_IN/{job}.state"'
with (folder / f"{job}.log").open("w") as log:
    subprocess.Popen(
        ["sh", "-c", ending], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        env=os.environ | {"SLURM_JOB_ID": job},
    )
print(job)
"""
SRUN = """
import itertools, os, pathlib, signal, subprocess, sys
task = list(itertools.dropwhile(lambda word: word.startswith("-"), sys.argv[1:]))
step = subprocess.Popen(task, start_new_session=True)
(pathlib.Path(os.environ["STAND_IN"]) / (os.environ["SLURM_JOB_ID"] + ".step")).write_text(str(step.pid))
status = step.wait()
try:
    os.killpg(step.pid, signal.SIGKILL)
except ProcessLookupError:
    pass
sys.exit(status != 0)
"""
SQUEUE = """
import os, pathlib
folder = pathlib.Path(os.environ["STAND_IN"])
for request in folder.glob("*.request"):
    state = request.with_suffix(".state")
    print(request.stem, state.read_text().strip() or "RUNNING" if state.exists() else "RUNNING", sep="|")
"""
COMMANDS = {
    "sbatch": SBATCH,
    "srun": SRUN,
    "squeue": SQUEUE,
    "sinfo": "print('PARTITION ci*')",
    "scontrol": "print('MinJobAge = 3600 sec')",
    "sacct": "raise SystemExit(1)",
}


class StandIn:
    """Slurm's commands, imitated in a folder that comes first on the path."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder = folder
        folder.mkdir()
        for name, code in COMMANDS.items():
            (folder / name).write_text(f"#!{sys.executable}\n{code}")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("STAND_IN", str(folder))

    def requests(self) -> list[list[str]]:
        found = sorted(self.folder.glob("*.request"), key=lambda path: int(path.stem))
        return [path.read_text().split("\n") for path in found]

    def refuse(self) -> None:
        """Note what is asked for, and start no job."""
        (self.folder / "refuses").touch()

    def warn(self, job: str) -> None:
        os.killpg(int((self.folder / f"{job}.step").read_text()), signal.SIGUSR1)


class Slurm:
    """The cluster of this machine."""

    def warn(self, job: str) -> None:
        subprocess.run(["scancel", "--signal=USR1", job], check=True, timeout=60)

    def requeue(self, job: str) -> None:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> StandIn:
    return StandIn(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def slurm() -> Slurm:
    if os.environ.get("GALD_SLURM") != "1":
        pytest.skip("GALD_SLURM=1 runs this on the cluster of this machine")
    return Slurm()


@pytest.fixture(params=["stand_in", "slurm"])
def cluster(request):
    return request.getfixturevalue(request.param)


def submitted(repository) -> list[str]:
    return re.findall(r"submitted with SLURM jobid (\d+)", (repository.folder / "started.txt").read_text())


def has_checkpoint(repository, name: str) -> bool:
    return any((repository.folder / ".gald/checkpoints" / name).glob("*.checkpoint"))


def start_training(repository, name: str) -> subprocess.Popen:
    """Submit one training, and return once it has written a checkpoint."""
    build = repository.start("snakemake", *PROFILE, *SMALL, *QUICK, f"runs/{name}/run.json")
    repository.wait_until(lambda: has_checkpoint(repository, name) or build.poll() is not None)
    assert build.poll() is None, (repository.folder / "started.txt").read_text()
    return build


def weights(repository, name: str) -> bytes:
    return (repository.folder / "runs" / name / "weights.safetensors").read_bytes()


def test_the_profile_is_understood_and_plans_the_suite(fresh):
    if not WITH_PLUGIN:
        own = ("executor", "slurm-")
        content = yaml.safe_load((fresh.folder / "profiles/slurm/config.yaml").read_text())
        kept = {key: value for key, value in content.items() if not key.startswith(own)}
        (fresh.folder / "profiles/slurm/config.yaml").write_text(yaml.safe_dump(kept))
    planned = fresh("snakemake", "-n", *PROFILE, "smoke")
    assert planned.status == 0, planned.said
    assert planned.trained == fresh.names


def test_the_profile_repeats_the_default_one_but_for_the_cores_of_this_machine(fresh):
    default, cluster = (
        yaml.safe_load((fresh.folder / f"profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")
    )
    assert default.pop("cores") == "all"
    assert "cores" not in cluster
    assert {key: cluster[key] for key in default} == default


def test_the_rules_that_the_profile_names_exist(fresh):
    listed = set(fresh("snakemake", "--list-rules").said.split())
    profile = yaml.safe_load((fresh.folder / "profiles/slurm/config.yaml").read_text())
    named = {*profile["set-resources"], *profile["set-threads"], *profile["preemptible-rules"]}
    assert "train" in named
    assert named <= listed


@needs_plugin
def test_a_training_on_a_gpu_is_asked_for_with_all_it_needs(fresh, stand_in):
    run = load_suite("camvid", fresh.folder / "params").runs[0]
    for path in (paths.raw_json("full", "camvid"), paths.manifest("full", "camvid")):  # as if it were prepared
        (fresh.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (fresh.folder / path).write_text("{}")
    target = str(paths.run_json(run.name))
    stand_in.refuse()
    done = fresh("snakemake", *PROFILE, *QUICK, "--preemptible-retries", "0", target, CUDA_VISIBLE_DEVICES="")
    assert done.status != 0
    assert len(stand_in.requests()) == 1, done.said
    asked = " ".join(stand_in.requests()[0])
    train = run.params.train
    assert train.workers > 0
    # From a machine without a GPU, as login nodes are.
    for words in ("--gpus=1", f"--cpus-per-task={train.threads + train.workers}", "--signal=USR1@120", "--requeue"):
        assert words in asked
    assert re.search(r"--mem \d+ ", asked)
    assert re.search(r"-t \d+ ", asked)


@needs_plugin
def test_downloads_stay_on_the_login_node(fresh, stand_in):
    done = fresh("snakemake", *PROFILE, *QUICK, str(paths.raw_json("mini", "camvid")))
    assert done.status == 0, done.said
    assert stand_in.requests() == []


@needs_plugin
def test_a_training_warned_ahead_of_its_limit_goes_on_in_another_job_to_the_same_bits(prepared, first_build, cluster):
    name = prepared.runs[0].name
    build = start_training(prepared, name)
    (first,) = submitted(prepared)
    cluster.warn(first)
    assert build.wait(timeout=600) == 0, (prepared.folder / "started.txt").read_text()
    said = (prepared.folder / "started.txt").read_text()
    assert len(submitted(prepared)) == 2, said
    (job,) = (
        (prepared.folder / ".snakemake/slurm_logs").rglob(f"{first}.log")
        if cluster.__class__ is Slurm
        else [cluster.folder / f"{first}.log"]
    )
    assert "because it was sent SIGUSR1" in job.read_text()
    assert job.read_text().count("batches of") == 1  # not tried again within a job whose time is up
    assert "going on from iteration" in (prepared.folder / f"logs/train/{name}.log").read_text()
    assert weights(prepared, name) == weights(first_build[0], name)


@needs_plugin
def test_a_requeued_training_goes_on_to_the_same_bits(prepared, first_build, slurm):
    name = prepared.runs[0].name
    build = start_training(prepared, name)
    (first,) = submitted(prepared)
    slurm.requeue(first)
    assert build.wait(timeout=500) == 0, (prepared.folder / "started.txt").read_text()
    assert submitted(prepared) == [first]
    assert "going on from iteration" in (prepared.folder / f"logs/train/{name}.log").read_text()
    assert weights(prepared, name) == weights(first_build[0], name)


@needs_plugin
def test_a_suite_built_by_a_cluster_has_the_same_bits(fresh, first_build, slurm):
    small = [f"{rule}:mem_mb=2000" for rule in ("train", "evaluate", "prepare")]
    done = fresh(
        *("snakemake", *PROFILE, *QUICK, "--set-threads", "prepare=1", "--set-resources", *small),
        *("--default-resources", "mem_mb=2000", "runtime=30", "--", "smoke"),
    )
    assert done.status == 0, done.said
    for name in fresh.names:
        assert weights(fresh, name) == weights(first_build[0], name)
    assert "Nothing to be done" in fresh("snakemake", "-n", "smoke").said


def test_a_whole_build_that_is_warned_goes_on_by_itself(prepared, first_build):
    build = prepared.start("snakemake", "smoke")
    prepared.wait_until(lambda: any(has_checkpoint(prepared, name) for name in prepared.names))
    os.killpg(build.pid, signal.SIGUSR1)
    assert build.wait(timeout=600) == 0, (prepared.folder / "started.txt").read_text()
    assert "going on from iteration" in (prepared.folder / "started.txt").read_text()
    for name in prepared.names:
        assert weights(prepared, name) == weights(first_build[0], name)
