"""Metrics files that are not what an evaluation writes: one clear line in every command that reads them."""

import json
import re
import shutil

import pytest

from gald import paths
from gald.commands._compare_counts import read
from gald.commands.power import power
from gald.errors import StaleMetrics
from gald.evaluate.record import TRAINED
from gald.files import sha256, write_json
from gald.params import SCORES
from gald.tables.report import build_report
from gald.tables.run import build_table

LEFT_OUT = object()


def compare_first_with_last(suite):
    read(suite.runs[-1], suite.runs[0])


@pytest.mark.parametrize(
    "ask",
    [lambda suite: build_table(suite, "components"), lambda suite: power(suite.name), compare_first_with_last],
    ids=["tables", "power", "compare"],
)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1], "holds no JSON object with names: delete it and"),
        ("half", "holds no JSON object with names: delete it and"),
        ({"edition": LEFT_OUT}, "edition: is missing; it is damaged, or an older version wrote it:"),
        ({"scores": {"mean_iou": 0.5}}, "scores: pixel_accuracy is missing; it is damaged"),
        ({"scores": dict.fromkeys(SCORES, "0.5")}, r"scores\.mean_iou: input should be a valid number"),
        ({"protocol": "whole image, single scale"}, "protocol: input should be"),  # as an older version spelt it
        ({"per_class": [{"name": "road"}]}, r"per_class\.0\.iou: is missing"),
        ({"gmacs_size": [96]}, "gmacs_size: list should have at least 2 items"),
        ({"gmacs": float("nan")}, "gmacs: input should be a finite number"),
    ],
)
def test_what_no_evaluation_wrote_is_refused_with_file_and_remedy(suite, ask, content, told):
    run = suite.runs[0].name
    path = paths.metrics(run)
    if isinstance(content, dict):
        content = json.loads(path.read_text()) | content
        content = {key: value for key, value in content.items() if value is not LEFT_OUT}
    path.write_text(json.dumps(content))
    with pytest.raises(StaleMetrics, match=rf"^{re.escape(str(path))}(:| ).*{told}.* run `gald evaluate {run}`$"):
        ask(suite)


def test_a_run_file_without_names_is_refused_too(suite):
    run = suite.runs[0].name
    paths.run_json(run).write_text("[1]")
    with pytest.raises(StaleMetrics, match="belongs to other weights"):
        build_table(suite, "components")
    metrics = json.loads(paths.metrics(run).read_text())
    write_json(paths.metrics(run), metrics | {"run_sha256": sha256(paths.run_json(run))})
    with pytest.raises(
        StaleMetrics, match=rf"run\.json holds no JSON object with names: delete it and run `gald train {run}`"
    ):
        build_table(suite, "components")


def test_an_absent_class_is_no_damage(suite):
    for run in suite.runs:
        metrics = json.loads(paths.metrics(run.name).read_text())
        write_json(paths.metrics(run.name), metrics | {"scores": metrics["scores"] | {"object_found_4": None}})
    build_table(suite, "components")


def test_published_scores_alone_make_the_same_table(suite):
    for run in suite.runs:
        record = json.loads(paths.run_json(run.name).read_text())
        metrics = json.loads(paths.metrics(run.name).read_text())
        write_json(paths.metrics(run.name), metrics | {"trained": {key: record[key] for key in TRAINED}})
    table = paths.table(suite.name, "components", "md")
    build_table(suite, "components")
    before = table.read_text()
    shutil.rmtree("runs")  # what a clone brings: scores without weights
    table.unlink()
    build_table(suite, "components")
    assert table.read_text() == before
    assert power(suite.name)
    build_report(suite)
    assert json.loads(paths.metrics(suite.runs[0].name).read_text())["params_sha256"][:10] in (
        paths.reports(suite.name) / "index.html"
    ).read_text(encoding="utf-8")
    run = suite.runs[0]
    state = [paths.run_dir(run.name), paths.checkpoint_dir(run.name)]
    for folder in state:  # one that is being trained, or has failed: its scores are of other weights
        folder.mkdir(parents=True)
        with pytest.raises(StaleMetrics, match=r"run\.json is missing: run `gald train"):
            build_table(suite, "components")
        folder.rmdir()
    changed = json.loads(paths.metrics(run.name).read_text()) | {"trained": {"code": {}}}
    write_json(paths.metrics(run.name), changed)
    with pytest.raises(StaleMetrics, match=r"trained\.weights: is missing; it is damaged"):
        build_table(suite, "components")


def test_code_outside_git_is_told_as_such(suite):
    for run in suite.runs:
        record = json.loads(paths.run_json(run.name).read_text())
        record["code"] |= {"commit": None, "dirty": None}
        write_json(paths.run_json(run.name), record)
        trained = {"run_sha256": sha256(paths.run_json(run.name)), "trained": {key: record[key] for key in TRAINED}}
        write_json(paths.metrics(run.name), json.loads(paths.metrics(run.name).read_text()) | trained)
    build_table(suite, "components")
    count = len(suite.runs)
    told = f"Code: commit unknown (not under git) ({count} of {count} runs)."
    assert told in paths.table(suite.name, "components", "md").read_text()
    build_report(suite)
    assert "Commit unknown (not under git)" in paths.index(suite.name).read_text()


def test_scores_of_another_run_are_refused(suite):
    metrics = json.loads(paths.metrics(suite.runs[-1].name).read_text())
    write_json(paths.metrics(suite.runs[0].name), metrics)
    with pytest.raises(StaleMetrics, match=rf"holds scores of {suite.runs[-1].name}: run `gald evaluate"):
        build_table(suite, "components")
