"""`gald status` and the progress line, on hand-made boundary files."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gald import cli, files, paths, progress, provenance
from gald.commands.status import state, status
from gald.params import Run, Suite, load_suite
from gald.process import locking
from gald.progress import is_trained

PARAMS = Path(__file__).parents[3] / "params"


@pytest.fixture
def suite(tmp_path, monkeypatch) -> Suite:
    monkeypatch.chdir(tmp_path)
    Path("params").symlink_to(PARAMS)
    return load_suite("smoke")


def write_history(path: Path, start: float, iterations: int, seconds_each: float, every: int = 10) -> None:
    lines = [{"iteration": i, "timestamp": start + i * seconds_each} for i in range(every, iterations + 1, every)]
    files.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def finish_training(run: Run, **changes) -> None:
    record = {"params_sha256": run.digest(), "code": {"digest": provenance.code_digest()}, **changes}
    files.write_json(paths.run_json(run.name), record)


def finish_evaluation(run: Run, **changes) -> None:
    metrics = {
        "scores": {"mean_iou": 0.5},
        "run_sha256": files.sha256(paths.run_json(run.name)),
        "evaluate_sha256": run.evaluate_digest(),
    }
    files.write_json(paths.metrics(run.name), {**metrics, **changes})


def test_states_follow_the_boundary_files(suite):
    run = suite.runs[0]
    assert state(run) == "missing"
    write_history(paths.checkpoint_dir(run.name) / "history.jsonl", 0.0, 20, 1.0)
    assert state(run) == "stopped at 20 of 40"
    with locking.held(run.name, wait_s=0):
        assert state(run) == "busy at 20 of 40"
    finish_training(run)
    assert state(run) == "trained"
    finish_evaluation(run)
    assert state(run) == "evaluated"


def test_a_history_of_an_earlier_training_is_not_taken_for_the_one_under_way(suite):
    run = suite.runs[0]
    write_history(paths.history(run.name), 0.0, 40, 1.0)
    assert state(run) == "missing"
    write_history(paths.growing_history(run.name), 0.0, 20, 1.0)
    assert state(run) == "stopped at 20 of 40"
    finish_training(run)
    assert progress.trace(run).iterations == 40


def test_a_training_typed_twice_leaves_the_first_alone_unless_it_is_not_what_was_asked_for(suite, caplog, monkeypatch):
    run = suite.runs[0]
    files.write_text(paths.weights(run.name), "weights")
    finish_training(run, weights={"sha256": files.sha256(paths.weights(run.name))})
    assert not is_trained(run), "half of it is there"
    write_history(paths.history(run.name), 0.0, 40, 1.0)
    before = paths.run_json(run.name).read_bytes()
    assert is_trained(run)
    assert cli.main(["train", run.name]) == 0
    assert "trained already" in caplog.text
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "1")
        assert cli.main(["train", run.name]) == 0
    assert not caplog.messages, "of several processes one says so"
    assert paths.run_json(run.name).read_bytes() == before
    files.write_text(paths.weights(run.name), "damaged")
    assert not is_trained(run)
    paths.weights(run.name).unlink()
    assert not is_trained(run)
    files.write_text(paths.weights(run.name), "weights")
    whole = {"sha256": files.sha256(paths.weights(run.name))}
    for other in ({"params_sha256": "0" * 64}, {"code": {"digest": "0" * 64}}, {"weights": {"sha256": "0" * 64}}):
        finish_training(run, **{"weights": whole, **other})
        assert not is_trained(run)


def test_what_is_stale_is_named(suite):
    run = suite.runs[0]
    finish_training(run, params_sha256="0" * 64)
    finish_evaluation(run)
    assert state(run) == "evaluated, stale params"
    finish_training(run, code={"digest": "0" * 64})
    assert state(run) == "trained, stale metrics, code changed since"  # the metrics are of the run before
    finish_evaluation(run, evaluate_sha256="0" * 64)
    assert state(run) == "evaluated, stale evaluate params, code changed since"
    files.write_json(paths.manifest(run.params.edition, run.dataset), {})
    assert "stale data" in state(run)


def test_status_lists_every_run_with_its_score_and_the_remedy(suite):
    finish_training(suite.runs[0], code={"digest": "0" * 64})
    finish_evaluation(suite.runs[0])
    text = status("smoke")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(suite.runs)]] == [run.name for run in suite.runs]
    assert "50.0" in lines[1]
    assert "--forcerun" in text
    assert lines[-1] == "smoke: 1 of 4 runs trained, 1 scored"


def test_a_damaged_run_json_is_a_missing_run(suite):
    run = suite.runs[0]
    files.write_text(paths.run_json(run.name), "{")
    assert state(run) == "missing"


def test_progress_before_anything_is_done(suite):
    assert progress.suite_line("smoke") == "smoke: 0 of 4 runs trained, 0 scored"
    assert progress.seconds_left(suite) is None


def test_two_runs_side_by_side_halve_the_time_left(suite):
    first, second = suite.runs[:2]
    for run in (first, second):
        write_history(paths.history(run.name), 1000.0, 40, 1.0)
        finish_training(run)
    # 30 s of wall-clock time for 2 x 30 timed iterations; 80 iterations left at 0.5 s each
    assert progress.seconds_left(suite) == pytest.approx(40.0)
    assert progress.suite_line("smoke") == "smoke: 2 of 4 runs trained, 0 scored; about 40 s left"


def test_a_pause_of_an_interrupted_run_is_no_work_and_its_iterations_count(suite):
    run = suite.runs[0]
    write_history(paths.checkpoint_dir(run.name) / "history.jsonl", 0.0, 20, 1.0, every=5)
    late = [{"iteration": 25, "timestamp": 90000.0}, {"iteration": 30, "timestamp": 90005.0}]
    path = paths.checkpoint_dir(run.name) / "history.jsonl"
    files.write_text(path, path.read_text() + "".join(json.dumps(line) + "\n" for line in late) + '{"iterat')
    found = progress.trace(run)
    assert (found.iterations, found.timed) == (30, 20)
    assert progress.seconds_left(suite) == pytest.approx(10 + 3 * 40)


def test_what_a_crash_has_left_in_a_history_fails_no_other_training_that_reports(suite):
    path = paths.growing_history(suite.runs[0].name)
    write_history(path, 0.0, 20, 1.0)
    path.write_bytes(path.read_bytes() + b"\xff\x00\xfe\n")
    assert progress.trace(suite.runs[0]).iterations == 20
    assert progress.suite_line("smoke").startswith("smoke: 0 of 4 runs trained")


def test_of_suites_that_share_a_scale_the_one_with_work_left_is_meant(suite, monkeypatch):
    done = dataclasses.replace(suite, name="done", runs=suite.runs[:1])
    finish_training(suite.runs[0])
    finish_evaluation(suite.runs[0])
    monkeypatch.setattr(progress, "suites_of_scale", lambda scale: iter(["done", "more"]))
    monkeypatch.setattr(progress, "load_suite", {"done": done, "more": suite}.__getitem__)
    assert progress.suite_line("smoke").startswith("smoke: 1 of 4")


def test_a_refused_suite_does_not_fail_the_training_that_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_text(paths.suite_params("odd"), "title: 3\n")
    assert "gald params odd" in progress.suite_line("odd")
    assert progress.suite_line("other") == "other: no suite has this scale"


def test_neither_imports_torch(suite):
    code = "import sys; from gald.commands.status import status; status('smoke'); "
    code += "print({'torch', 'pandas', 'mlflow', 'timm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
