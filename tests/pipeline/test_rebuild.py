"""What a finished build makes again after an edit: what depends on it, and nothing else."""

import json
import random
import shutil

import pytest
import yaml

from gald import files, paths
from gald.params import load_suite
from gald.workflow import graph

pytestmark = pytest.mark.pipeline

SHOWN = {"start page of smoke", "tell the tracking store of smoke", "suite smoke is complete"}


def work_of(names):
    return {f"{verb} {name}" for verb in ("train", "evaluate") for name in names}


def test_one_command_builds_the_suite_in_time_and_then_nothing_is_left_to_do(first_build, monkeypatch):
    repository, finished = first_build
    assert finished.status == 0, finished.said
    assert finished.seconds < 600  # some 40 s on two quiet cores
    monkeypatch.chdir(repository.folder)
    suite = load_suite("smoke")
    assert [path for path in graph.files_up_to(suite) if not (repository.folder / path).exists()] == []
    for run in suite.runs:
        metrics = json.loads(paths.metrics(run.name).read_text())
        assert metrics["run_sha256"] == files.sha256(paths.run_json(run.name))
        assert 0 <= metrics["scores"]["mean_iou"] <= 1
    assert "smoke: 4 of 4 runs trained, 4 scored" in finished.said
    again = repository("snakemake", "-n", "smoke")
    assert "Nothing to be done" in again.said
    assert again.jobs == []


def test_a_changed_row_reruns_its_runs_and_the_tables_that_show_them(built):
    row = built.runs[-1].row
    changed = {run.name for run in built.runs if run.row == row}
    assert changed < built.names
    before = built.contents("runs/**/run.json")
    built.edit(
        "params/tables/benchmarks.yaml",
        lambda table: table["rows"][row].setdefault("train", {}).update(learning_rate=0.013),
    )
    done = built("snakemake", "smoke")
    assert done.status == 0, done.said
    assert set(done.jobs) == work_of(changed) | SHOWN | {"table benchmarks of smoke"}
    for path, content in built.contents("runs/**/run.json").items():
        assert (content == before[path]) == (path.removeprefix("runs/").removesuffix("/run.json") not in changed), path
    assert "Nothing to be done" in built("snakemake", "-n", "smoke").said


def test_comments_key_order_spelling_and_touched_files_rerun_nothing(built):
    for path in [*built.folder.glob("params/*.yaml"), built.folder / "params/suites/smoke.yaml"]:
        content = yaml.safe_load(path.read_text())
        path.write_text("# another comment\n" + yaml.safe_dump(shuffled(content), sort_keys=False))
    assert "0.0005" in (built.folder / "params/base.yaml").read_text()
    built.replace("params/base.yaml", "0.0005", "0.00050")
    for path in (*built.folder.glob("runs/**/run.json"), *built.folder.glob("data/prepared/**/manifest.json")):
        path.write_bytes(path.read_bytes())
    assert "Nothing to be done" in built("snakemake", "-n", "smoke").said


def shuffled(value):
    if isinstance(value, dict):
        keys = list(value)
        random.Random(0).shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}
    return value


def test_a_changed_published_number_renders_only_its_table_again(built):
    rows = sorted({run.row for run in built.runs})
    content = yaml.safe_load((built.folder / "params/tables/benchmarks.yaml").read_text())
    content.update(title="The same runs again", main=None, published=[])
    (built.folder / "params/tables/again.yaml").write_text(yaml.safe_dump(content))
    use = {"datasets": ["camvid"], "seeds": [0], "rows": rows}
    built.edit("params/suites/smoke.yaml", lambda suite: suite["tables"].update(again=use))
    second = built("snakemake", "smoke")
    assert second.status == 0, second.said
    assert set(second.jobs) == {"table again of smoke"} | SHOWN  # equal params are one run, shown by both tables
    number = {"row": rows[0], "dataset": "camvid", "column": "mean_iou", "value": 0.7, "method": "GALD"}
    number |= {"protocol": "single scale", "source": "a paper"}
    built.edit("params/tables/again.yaml", lambda table: table.update(published=[number]))
    assert set(built("snakemake", "-n", "smoke").jobs) == {"table again of smoke"} | SHOWN


def test_a_changed_evaluate_section_trains_nothing(built):
    built.edit("params/suites/smoke.yaml", lambda suite: suite["overrides"]["evaluate"].update(protocol="sliding"))
    planned = built("snakemake", "-n", "smoke")
    assert planned.trained == set()
    assert {f"evaluate {name}" for name in built.names} < set(planned.jobs)


@pytest.mark.parametrize("lost", ["weights.safetensors", "history.jsonl", "run.json"])
def test_a_lost_file_of_a_run_is_made_again(built, lost):
    run = built.runs[0].name
    (built.folder / "runs" / run / lost).unlink()
    planned = built("snakemake", "-n", "smoke")
    assert planned.trained == {run}


def test_one_run_can_be_forced_and_ends_with_the_same_bits(built):
    run = built.runs[0].name
    before = built.contents("reports/smoke/metrics/**/*.json") | built.contents("reports/smoke/tables/*")
    done = built("snakemake", "smoke", "--forcerun", f"runs/{run}/run.json")
    assert done.status == 0, done.said
    assert done.trained == {run}
    assert built.contents("reports/smoke/metrics/**/*.json") | built.contents("reports/smoke/tables/*") == before
    assert "Nothing to be done" in built("snakemake", "-n", "smoke").said


def test_a_store_lost_or_no_longer_wanted_trains_nothing(built):
    before = built.contents("data/packed/**/store.json")
    shutil.rmtree(built.folder / "data/packed")
    again = built("snakemake", "smoke")
    assert again.status == 0, again.said
    assert set(again.jobs) == {"pack mini/camvid", "pack mini/cityscapes", "suite smoke is complete"}
    assert built.contents("data/packed/**/store.json") == before
    built.replace("params/base.yaml", "store: packed", "store: files")
    assert "Nothing to be done" in built("snakemake", "-n", "smoke").said


def test_another_source_makes_its_benchmark_again_and_no_other(built):
    built.replace("params/base.yaml", "camvid: segnet", "camvid: original")
    planned = built("snakemake", "-n", "smoke")
    assert planned.trained == {name for name in built.names if "/camvid/" in name}
    assert {f"{verb} mini/camvid" for verb in ("download", "prepare", "pack", "audit")} < set(planned.jobs)
    assert not [job for job in planned.jobs if "mini/cityscapes" in job]


def test_changed_ways_of_preparing_make_nothing_again(built):
    built.replace("params/base.yaml", "processes: null", "processes: 1")
    built.replace("params/base.yaml", "on_error: stop", "on_error: skip")
    assert "Nothing to be done" in built("snakemake", "-n", "smoke").said
