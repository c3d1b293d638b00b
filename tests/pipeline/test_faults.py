"""Kills, failures, crowds and unwritable folders: what is left behind, and what the same command makes of it."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

pytestmark = pytest.mark.pipeline

RESULTS = ("reports/smoke/metrics/**/*.json", "runs/**/run.json", "runs/**/weights.safetensors")


def results(repository) -> dict[str, bytes]:
    return {path: content for pattern in RESULTS for path, content in repository.contents(pattern).items()}


def checkpointed(repository) -> set[str]:
    """Names of the runs that have a state to go on from."""
    root = repository.folder / ".gald/checkpoints"
    states = root.glob("*/*/*/*.checkpoint")  # no parts of one
    return {str(path.parent.relative_to(root)) for path in states}


def killed_in_the_middle(repository) -> bool:
    """Kill a training that has a state to go on from and has not ended, held still while that is looked at."""
    for name in checkpointed(repository):
        for process in repository.processes("train", name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
                if name in checkpointed(repository) and not (repository.folder / "runs" / name / "run.json").exists():
                    os.kill(process, signal.SIGKILL)
                    return True
                os.kill(process, signal.SIGCONT)
    return False


def moment(repository, name: str) -> bool:
    """Whether a build has come to the moment of that name."""
    if name == "a training has begun":
        return bool(repository.processes("train"))
    if name == "a checkpoint is there":
        return bool(checkpointed(repository))
    return bool(repository.processes("evaluate"))


@pytest.mark.parametrize("when", ["a training has begun", "a checkpoint is there", "an evaluation has begun"])
def test_snakemake_killed_the_same_command_goes_on_to_the_same_bits(first_build, prepared, when):
    build = prepared.start("snakemake", "smoke")
    prepared.wait_until(lambda: moment(prepared, when) or build.poll() is not None)
    assert build.poll() is None, (prepared.folder / "started.txt").read_text()
    prepared.kill(build)
    orphans = prepared.processes("train")
    done = prepared("snakemake", "smoke")
    assert done.status == 0, done.said
    assert not set(orphans) & set(prepared.processes("train"))
    assert results(prepared) == results(first_build[0])
    if when == "a checkpoint is there":
        assert "going on from iteration" in done.said


@pytest.mark.parametrize("when", ["a training has begun", "a checkpoint is there"])
def test_orphans_of_a_killed_snakemake_stop_by_themselves(prepared, when):
    build = prepared.start("snakemake", "smoke")
    prepared.wait_until(lambda: moment(prepared, when))
    prepared.kill(build)
    prepared.wait_until(lambda: not prepared.processes("train"))
    assert list(prepared.folder.glob("runs/**/run.json")) == []  # they stopped; they did not go on to the end


def test_a_killed_training_is_taken_up_again_by_the_same_build(first_build, prepared):
    build = prepared.start("snakemake", "smoke")
    prepared.wait_until(lambda: killed_in_the_middle(prepared) or build.poll() is not None)
    assert build.wait(timeout=600) == 0, (prepared.folder / "started.txt").read_text()
    assert "going on from iteration" in (prepared.folder / "started.txt").read_text()
    assert results(prepared) == results(first_build[0])


def test_a_training_that_fails_for_good_leaves_no_table_of_its_old_numbers(built):
    row = built.runs[-1].row
    failing = {run.name for run in built.runs if run.row == row}

    def diverge(table):
        table["rows"][row].setdefault("train", {}).update(learning_rate=1e30)

    built.edit("params/tables/benchmarks.yaml", diverge)
    done = built("snakemake", "smoke")
    assert done.status != 0
    assert "learning rate" in done.said  # the message of the training itself
    assert list(built.folder.glob("reports/smoke/tables/*")) == []
    assert not (built.folder / "reports/smoke/index.html").exists()
    left = {
        path.relative_to(built.folder / "reports/smoke/metrics") for path in built.folder.glob("reports/*/metrics/*/*")
    }
    assert {f"smoke/{path.with_suffix('')}" for path in left} == built.names - failing
    again = built("snakemake", "smoke")
    assert again.status != 0
    assert "Nothing to be done" not in again.said


def test_the_second_of_two_invocations_says_so_and_harms_nothing(prepared):
    build = prepared.start("snakemake", "smoke")
    prepared.wait_until(lambda: moment(prepared, "a training has begun"))
    second = prepared("snakemake", "smoke")
    assert second.status != 0
    assert f"another Snakemake (process {build.pid} on " in second.said
    assert build.poll() is None  # it did not wait for the first one
    other = prepared("snakemake", "mini")  # other files, the same folder
    assert other.status != 0
    assert other.jobs == []
    assert f"process {build.pid} on " in other.said
    assert "Traceback" not in second.said + other.said
    looking = prepared("snakemake", "-n", "smoke")
    assert looking.status == 0, looking.said
    assert build.wait(timeout=600) == 0, (prepared.folder / "started.txt").read_text()


def test_a_reports_folder_that_cannot_be_made_is_one_clear_line_and_cured_by_the_same_command(built):
    # Permissions stop no superuser, so a file stands where the folder should be.
    shutil.rmtree(built.folder / "reports/smoke/tables")
    (built.folder / "reports/smoke/tables").write_text("in the way")
    done = built("snakemake", "smoke")
    assert done.status != 0
    assert done.jobs == []
    assert "reports/smoke/tables: results cannot be written here (Not a directory)" in done.said
    assert "Traceback" not in done.said
    (built.folder / "reports/smoke/tables").unlink()
    done = built("snakemake", "smoke")
    assert done.status == 0, done.said
    assert done.trained == set()


@pytest.fixture
def mounted():
    """Mount a file system of given options; needs to be superuser, and allowed to."""
    folders = []

    def mount(folder, options):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        folders.append(folder)

    yield mount
    for folder in folders:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_reports_folder_is_one_clear_line(built, mounted):
    (built.folder / "reports/smoke/tables/benchmarks.csv").unlink()
    mounted(built.folder / "reports/smoke/tables", "ro")
    done = built("snakemake", "smoke")
    assert done.status != 0
    assert done.jobs == []
    assert "reports/smoke/tables: results cannot be written here (Read-only file system)" in done.said
    assert "Traceback" not in done.said


def test_a_full_disk_is_one_clear_line_and_leaves_no_run(prepared, mounted):
    run = prepared.runs[0].name
    (prepared.folder / "runs").mkdir()
    mounted(prepared.folder / "runs", "size=100k")
    done = prepared("snakemake", f"runs/{run}/run.json", "--retries", "0")
    assert done.status != 0
    assert "No space left on device" in done.said
    assert "Traceback" not in done.said
    assert [path for path in (prepared.folder / "runs").rglob("*") if path.is_file()] == []  # no half of a file either


def test_a_dead_tracking_server_costs_a_warning_only(built):
    (built.folder / ".gald/tracking/smoke.json").unlink()
    done = built("snakemake", "smoke", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.status == 0, done.said
    assert done.seconds < 180  # an unbounded client would wait four minutes
    assert "Traceback" not in done.said
    assert "Nothing to be done" in built("snakemake", "-n", "smoke").said
