"""The Snakefile's plan, without running a job."""

import resource
from pathlib import Path

import pytest

from gald import paths
from gald.params import load_suite, suite_names
from gald.workflow import graph
from tests.unit.workflow.plans import said, snakemake


def test_the_plan_makes_exactly_the_files_asked_for(plan_folder):
    """A rule's declared outputs and the graph's list cannot drift apart."""
    planned = snakemake("-n", "smoke", "--quiet", "host", "reason", "--workflow-profile", "none", "--detailed-summary")
    assert planned.returncode == 0, planned.stderr
    rows = [line.split("\t") for line in planned.stdout.splitlines() if "\t" in line]
    made = {row[0] for row in rows[1:]}
    assert made == set(graph.files_up_to(load_suite("smoke")))


@pytest.mark.slow
def test_without_a_packed_store_nothing_is_packed(plan_folder):
    path = Path("params/base.yaml")
    path.write_text(path.read_text().replace("store: packed", "store: files"))
    graph.suite.cache_clear()
    assert not [name for name in graph.stage_files(graph.suite("smoke"), "prepare") if "packed" in name]
    planned = said(snakemake("-n", "smoke"))
    assert "audit mini/camvid" in planned
    assert "pack mini/camvid" not in planned


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
