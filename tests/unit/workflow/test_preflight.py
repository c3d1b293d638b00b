import shutil
from pathlib import Path

import pytest

from gald import files, paths
from gald.errors import GaldError
from gald.workflow import graph, preflight
from tests.unit.workflow.plans import ROOT, said, snakemake


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A folder in which two suites of one scale are built, as far as their files go."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "params", "params")
    graph.suite.cache_clear()
    for name in ("mini", "mini_full"):
        for stage in graph.STAGES:
            for path in graph.stage_files(graph.suite(name), stage):
                if Path(path).suffix:
                    files.write_text(Path(path), "{}")
    yield
    graph.suite.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    "planned",
    [
        ["reports/mini/metrics/cityscapes/psp-uniform-seed1.json"],
        [
            "runs/mini/cityscapes/psp-uniform-seed1/weights.safetensors",
            "runs/mini/cityscapes/psp-uniform-seed1/run.json",
        ],
    ],
    ids=["scored again", "trained again by a stage that scores nothing"],
)
def test_scores_to_be_made_again_leave_with_every_table_that_shows_them(built, planned):
    removed = preflight.withdraw_stale(planned)
    gone = {"reports/mini/metrics/cityscapes/psp-uniform-seed1.json"}
    for name in ("mini", "mini_full"):
        for table in ("components", "fine_detail"):
            gone |= {f"reports/{name}/tables/{table}.{suffix}" for suffix in graph.TABLE_SUFFIXES}
        gone |= {f"reports/{name}/index.html"}
    assert set(removed) == gone
    assert not any(Path(path).exists() for path in gone)
    assert Path("reports/mini/tables/benchmarks.csv").exists()  # shows another run
    assert Path("reports/mini/metrics/cityscapes/psp-seed1.json").exists()
    assert preflight.withdraw_stale(planned) == []


@pytest.mark.slow
def test_a_table_that_waits_for_a_new_row_stays(built):
    paths.metrics("mini/cityscapes/psp-uniform-seed1").unlink()
    assert preflight.withdraw_stale(["runs/mini/cityscapes/psp-uniform-seed1/run.json"]) == []
    assert Path("reports/mini/tables/components.csv").exists()


@pytest.mark.slow
def test_results_that_came_with_a_clone_stay_until_they_are_made_again(built):
    shutil.rmtree("runs")
    before = sorted(Path("reports").rglob("*"))
    planned = [path for stage in graph.STAGES for path in graph.stage_files(graph.suite("mini"), stage)]
    assert preflight.withdraw_stale(planned) == []
    assert sorted(Path("reports").rglob("*")) == before


def test_trainings_for_a_gpu_are_refused_without_one(in_root):
    planned = graph.stage_files(graph.suite("camvid"), "train")
    with pytest.raises(GaldError, match=r"^21 runs, camvid/camvid/none-seed0 for one, train on a GPU"):
        preflight.check_devices(planned, 0)
    preflight.check_devices(planned, 1)
    preflight.check_devices(graph.stage_files(graph.suite("mini"), "train"), 0)


def test_a_folder_that_takes_no_file_is_named_before_any_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = [str(paths.table("smoke", "one", "csv")), str(paths.metrics("smoke/camvid/one-seed0"))]
    preflight.check_writable(wanted)
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing
    files.write_text(Path("reports/smoke/tables"), "in the way")
    with pytest.raises(GaldError, match=r"reports/smoke/tables: .* \(Not a directory\)"):
        preflight.check_writable(wanted)


@pytest.fixture
def incomplete(tmp_path, monkeypatch):
    """Params of now, and miniature CamVid prepared with two samples left out; also what trains and scores a run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "params", "params")
    graph.suite.cache_clear()
    graph._runs.cache_clear()
    listed = {"train": [{"id": "a", "problem": "short"}], "val": [], "test": [{"id": "b", "problem": "short"}]}
    files.write_json(paths.manifest("mini", "camvid"), {"skipped": listed})
    name = next(run.name for run in graph.suite("smoke").runs if run.dataset == "camvid")
    return str(paths.run_json(name)), str(paths.metrics(name))


def test_data_that_lack_samples_are_refused_once_none_may_be_skipped(incomplete):
    said = (
        r"mini/camvid: 2 samples skipped .*camvid/manifest\.json.* prepare\.on_error: skip .* or mend the files and del"
    )
    for planned in incomplete:
        with pytest.raises(GaldError, match=said):
            preflight.check_complete([planned])
    preflight.check_complete([*incomplete, str(paths.manifest("mini", "camvid"))])  # it is made again first
    name = next(run.name for run in graph.suite("smoke").runs if run.dataset == "cityscapes")
    preflight.check_complete([str(paths.run_json(name)), str(paths.table("smoke", "benchmarks", "csv"))])
    path = Path("params/base.yaml")
    path.write_text(path.read_text().replace("on_error: stop", "on_error: skip"))
    preflight.check_complete(incomplete)


@pytest.mark.parametrize("content", ["{", "[]", '{"skipped": {"train": []}}'])
def test_whole_and_unreadable_manifests_pass_to_those_who_read_them(incomplete, content):
    paths.manifest("mini", "camvid").write_text(content)
    preflight.check_complete(incomplete)


@pytest.mark.slow
def test_a_build_on_data_that_lack_samples_starts_no_job(incomplete):
    for name in ("workflow", "profiles"):
        shutil.copytree(ROOT / name, name)
    shutil.copy(ROOT / "Snakefile", ".")
    files.write_json(paths.raw_json("mini", "camvid"), {})
    paths.manifest("mini", "camvid").touch()  # newer than what it is made from
    refused = snakemake("--cores", "1", "--workflow-profile", "none", incomplete[0])
    assert refused.returncode == 1
    assert "mini/camvid: 2 samples skipped when it was prepared" in said(refused)
    assert "Traceback" not in said(refused)
    assert not Path("logs").exists()
