"""The graph, the build lock, and dvc.yaml held to both; the Snakefile's plan without running a job."""

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gald import files, graph, locking, mutex, paths, preflight
from gald.errors import GaldError, ParamsError, RunBusy
from gald.params import load_suite, suite_names

ROOT = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    graph.suite.cache_clear()
    graph._runs.cache_clear()


@pytest.fixture
def plan_folder(tmp_path, monkeypatch):
    """A copy of what a plan needs, so that a plan reads no results and leaves none."""
    for name in ("params", "workflow", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snakemake(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([SNAKEMAKE, *arguments], capture_output=True, text=True, timeout=300)


def said(process: subprocess.CompletedProcess) -> str:
    return process.stdout + process.stderr  # a dry run talks on the former


def test_every_stage_of_smoke_asks_for_every_file_of_every_run(in_root):
    suite = graph.suite("smoke")
    assert graph.stage_files(suite, "download") == [
        "data/raw/mini/cityscapes/raw.json",
        "data/raw/mini/camvid/raw.json",
    ]
    assert graph.stage_files(suite, "prepare")[:3] == [
        "data/prepared/mini/cityscapes/manifest.json",
        "reports/datasets/mini/cityscapes.html",
        "reports/datasets/mini/cityscapes-objects.json",
    ]
    train = graph.stage_files(suite, "train")
    assert len(train) == 5 * len(suite.runs) == 20
    leaf = f"{suite.runs[0].row}-seed0"
    assert train[:5] == [
        f"runs/smoke/cityscapes/{leaf}/run.json",
        f"runs/smoke/cityscapes/{leaf}/weights.safetensors",
        f"runs/smoke/cityscapes/{leaf}/params.yaml",
        f"runs/smoke/cityscapes/{leaf}/history.jsonl",
        f"reports/smoke/history/cityscapes/{leaf}.csv",
    ]
    assert len(graph.stage_files(suite, "evaluate")) == 2 * len(suite.runs)
    assert set(graph.stage_files(suite, "tables")) == {
        *(f"reports/smoke/tables/benchmarks.{suffix}" for suffix in ("csv", "md", "tex", "html")),
        *("reports/smoke/index.html", "reports/smoke/figures", "reports/smoke/gallery", ".gald/tracking/smoke.json"),
    }
    everything = graph.files_up_to(suite)
    assert len(everything) == len(set(everything)) == 2 + 8 + 20 + 8 + 8
    assert graph.files_up_to(suite, "prepare") == everything[:10]


def test_the_plan_makes_exactly_the_files_asked_for(plan_folder):
    """A rule's declared outputs and the graph's list cannot drift apart."""
    planned = snakemake("-n", "smoke", "--quiet", "host", "reason", "--workflow-profile", "none", "--detailed-summary")
    assert planned.returncode == 0, planned.stderr
    rows = [line.split("\t") for line in planned.stdout.splitlines() if "\t" in line]
    made = {row[0] for row in rows[1:]}
    assert made == set(graph.files_up_to(load_suite("smoke")))


def test_download_params_name_generator_and_seed(in_root):
    from gald.datasets._synthetic import GENERATOR_VERSION

    drawn = f'{{"edition":"mini","generator":{GENERATOR_VERSION},"seed":0,"source":"segnet"}}'
    assert graph.download_params("mini", "camvid") == drawn
    assert graph.download_params("full", "ade20k") == '{"edition":"full","source":"challenge"}'


@pytest.mark.slow
def test_without_a_packed_store_nothing_is_packed(plan_folder):
    path = Path("params/base.yaml")
    path.write_text(path.read_text().replace("store: packed", "store: files"))
    graph.suite.cache_clear()
    assert not [name for name in graph.stage_files(graph.suite("smoke"), "prepare") if "packed" in name]
    planned = said(snakemake("-n", "smoke"))
    assert "audit mini/camvid" in planned
    assert "pack mini/camvid" not in planned


def test_a_published_number_is_part_of_its_table_only(in_root):
    suite = graph.suite("smoke")
    before = graph.table_params(suite, "benchmarks"), graph.report_params(suite)
    assert '"published"' in before[0]
    assert '"published"' not in before[1]


def test_gpus_follow_the_visible_devices(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for visible, count in (("0,1", 2), ("", 0), ("-1", 0), ("GPU-5a", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert graph.gpus() == count
    monkeypatch.setenv("PATH", "")  # a list of devices does not make them
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert graph.gpus() == 0


def test_a_broken_nvidia_smi_means_no_gpu(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert graph.gpus() == 0
    program.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    assert graph.gpus() == 2


def test_an_unknown_run_is_refused_with_the_nearest_name(in_root):
    name = graph.suite("smoke").runs[0].name
    with pytest.raises(ParamsError, match=f"did you mean '{name}'"):
        graph.run(name.replace("-seed0", "-seeed0"))


def test_leftover_locks_go_when_nobody_builds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leftover = Path(".snakemake/locks/0.output.lock")
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    assert mutex.clear_leftovers() is None
    assert not leftover.parent.exists()


def test_a_living_builds_lock_stays_and_the_answer_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import time; from gald import mutex; mutex.claim_build(); print('held', flush=True); time.sleep(60)"
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


def test_a_refused_suite_is_one_plain_message_and_refused_only_when_asked_for(plan_folder):
    path = paths.suite_params("smoke")
    path.write_text(path.read_text().replace("batch_size: 4", "batch_syze: 4"))
    refused = snakemake("-n", "smoke")
    assert refused.returncode == 1
    assert "batch_syze" in said(refused)
    assert "batch_size" in said(refused)  # the nearest valid name
    assert "Traceback" not in said(refused)
    assert "Exception" not in said(refused)
    assert snakemake("-n", "mini").returncode == 0


def test_a_file_of_an_unknown_run_is_refused_plainly(plan_folder):
    name = load_suite("smoke").runs[0].name
    refused = snakemake("-n", f"runs/{name.replace('-seed0', 'x-seed0')}/run.json")
    assert refused.returncode == 1
    assert f"did you mean '{name}'" in said(refused)
    assert "Traceback" not in said(refused)


def test_every_suite_and_stage_is_a_target(plan_folder):
    listed = set(snakemake("--list-rules").stdout.split())
    assert set(suite_names()) | {f"{stage}_all" for stage in graph.STAGES} | {"all"} <= listed


def test_planning_the_mini_suite_takes_little_more_than_to_start_snakemake(plan_folder):
    def processor_seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert snakemake(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert processor_seconds("-n", "mini") < 4 * processor_seconds("--version")  # some 1.7 times


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


def dvc_stages() -> tuple[dict, dict]:
    """dvc.yaml's variables and its stages, variables filled in."""
    text = (ROOT / "dvc.yaml").read_text()
    variables = yaml.safe_load(text)["vars"][0]
    filled = re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], text)
    return variables, yaml.safe_load(filled)


def outputs(stage: dict) -> list[str]:
    return [next(iter(out)) for out in [*stage.get("outs", []), *stage.get("metrics", [])]]


def test_dvc_has_the_stages_of_the_graph_in_its_order():
    variables, content = dvc_stages()
    assert tuple(content["stages"]) == graph.STAGES
    for name, stage in content["stages"].items():
        assert stage["cmd"] == f"snakemake {name}_all --config suite={variables['suite']}"


def test_dvc_variables_are_those_of_the_suite(in_root):
    variables, _ = dvc_stages()
    suite = load_suite(variables["suite"])
    assert variables == {"suite": suite.name, "scale": suite.scale, "edition": suite.edition}


def test_every_file_of_a_stage_lies_in_an_output_of_that_dvc_stage(in_root):
    variables, content = dvc_stages()
    suite = load_suite(variables["suite"])
    untracked = {str(paths.tracking_stamp(suite.name))}  # about the store of one machine, so no result to share
    untracked |= {str(paths.packed_json(suite.edition, dataset)) for dataset in suite.datasets}  # the same pixels again
    for name in graph.STAGES:
        folders = outputs(content["stages"][name])
        for file in set(graph.stage_files(suite, name)) - untracked:
            assert any(Path(file).is_relative_to(folder) for folder in folders), f"{file}: not in {name}'s outs"
        for folder in set(folders) - {".snakemake/metadata"}:
            asked = graph.stage_files(suite, name)
            assert any(Path(file).is_relative_to(folder) for file in asked), f"{folder}: nothing of {name} lies there"


def test_every_dvc_output_persists_and_git_keeps_the_reports(in_root):
    _, content = dvc_stages()
    for name, stage in content["stages"].items():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            ((path, options),) = out.items()
            assert options["persist"], f"{name}: {path} must persist, or one new row redoes every run"
            assert options.get("cache", True) == (not path.startswith("reports/")), path


def test_dvc_depends_on_the_stage_above_and_names_every_table(in_root):
    _, content = dvc_stages()
    stages = content["stages"]
    made: list[str] = []
    for name in graph.STAGES:
        for needed in stages[name].get("deps", []):
            assert needed in made, f"{name} depends on {needed}, which no stage above makes"
        made += outputs(stages[name])
    tables = {str(path.relative_to(ROOT)) for path in (ROOT / "params/tables").glob("*.yaml")}
    for name in ("train", "evaluate", "tables"):
        named = {next(iter(entry)) for entry in stages[name]["params"]}
        assert tables <= named, f"dvc.yaml: stage {name} needs a line for {sorted(tables - named)}"


def test_no_top_level_key_of_the_base_params_escapes_dvc(in_root):
    _, content = dvc_stages()
    keys = set()
    for stage in content["stages"].values():
        for entry in stage["params"]:
            keys |= set(entry.get("params/base.yaml") or [])
    assert set(yaml.safe_load((ROOT / "params/base.yaml").read_text())) <= keys
