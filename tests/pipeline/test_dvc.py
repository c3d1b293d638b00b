"""`dvc repro` on suite `smoke`: nothing twice, after an edit what depends on it, and the views that DVC gives."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.pipeline


@pytest.fixture
def versioned(built):
    """A built copy under git and DVC, whose dvc.yaml follows suite `smoke`."""
    built.replace("dvc.yaml", "suite: mini", "suite: smoke")
    built.replace("dvc.yaml", "scale: mini", "scale: smoke")
    # Git keeps the galleries of miniatures, as it would this one if anybody published suite `smoke`.
    built.replace(".gitignore", "!/reports/mini*/gallery/", "!/reports/smoke/gallery/")
    git(built, "init", "-q")
    done = built("dvc", "repro")
    assert done.status == 0, done.said
    assert done.trained == set()  # Snakemake knew that all of it was there
    git(built, "add", "--all")
    git(built, "commit", "-q", "-m", "built")
    return built


def git(repository, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=repository.folder, check=True, capture_output=True, text=True
    ).stdout


def test_repro_follows_edits_and_shows_params_metrics_and_plots(versioned):
    again = versioned("dvc", "repro")
    assert "Data and pipelines are up to date." in again.said
    assert again.jobs == []
    assert git(versioned, "status", "--porcelain") == ""

    row = versioned.runs[-1].row
    changed = {run.name for run in versioned.runs if run.row == row}
    versioned.edit(
        "params/tables/benchmarks.yaml",
        lambda table: table["rows"][row].setdefault("train", {}).update(learning_rate=0.013),
    )
    params = json.loads(versioned("dvc", "params", "diff", "--json").said)
    assert params["params/tables/benchmarks.yaml"][f"rows.{row}.train.learning_rate"]["new"] == 0.013

    done = versioned("dvc", "repro")
    assert done.status == 0, done.said
    assert done.trained == changed
    assert "Stage 'prepare' didn't change, skipping" in done.said
    assert "up to date" in versioned("dvc", "repro").said

    shown = json.loads(versioned("dvc", "metrics", "show", "--json").said)
    data = {path: entry["data"] for path, entry in shown[""]["data"].items()}
    assert {f"{values['run']}" for values in data.values()} == versioned.names
    assert all(0 <= values["scores"]["mean_iou"] <= 1 for values in data.values())
    diff = json.loads(versioned("dvc", "metrics", "diff", "--json").said)
    moved = {path for path, entries in diff.items() if "scores.mean_iou" in entries}
    assert moved <= {f"reports/smoke/metrics/{name.removeprefix('smoke/')}.json" for name in changed}
    assert moved

    plots = json.loads(versioned("dvc", "plots", "show", "--json").said)["data"]
    assert set(plots) == {f"reports/smoke/history/{name.removeprefix('smoke/')}.csv" for name in versioned.names}
    for (plot,) in plots.values():
        assert [point["iteration"] for point in plot["content"]["data"]["values"]] == ["10", "20", "30", "40"]
        assert plot["content"]["encoding"]["x"]["field"] == "iteration"


def test_a_comment_is_no_change_to_dvc(versioned):
    path = versioned.folder / "params/base.yaml"
    path.write_text("# another comment\n" + path.read_text())
    again = versioned("dvc", "repro")
    assert "up to date" in again.said
    assert again.jobs == []


def test_a_clone_that_pulls_has_nothing_to_train(versioned, tmp_path):
    versioned("dvc", "remote", "add", "--default", "shelf", str(tmp_path / "shelf"))
    pushed = versioned("dvc", "push")
    assert pushed.status == 0, pushed.said
    git(versioned, "commit", "--all", "-q", "-m", "a remote")
    subprocess.run(["git", "clone", "-q", versioned.folder, tmp_path / "clone"], check=True)
    clone = type(versioned)(tmp_path / "clone")
    pulled = clone("dvc", "pull")
    assert pulled.status == 0, pulled.said
    assert "up to date" in clone("dvc", "repro").said
    # The tracking store and the packed pixels belong to a machine, and are made from what came.
    assert set(clone("snakemake", "-n", "smoke").jobs) == {
        *("pack mini/camvid", "pack mini/cityscapes"),
        *("tell the tracking store of smoke", "suite smoke is complete"),
    }
    row = clone.runs[-1].row
    clone.edit(
        "params/tables/benchmarks.yaml",
        lambda table: table["rows"][row].setdefault("train", {}).update(learning_rate=0.013),
    )
    assert clone("snakemake", "-n", "smoke").trained == {run.name for run in clone.runs if run.row == row}
