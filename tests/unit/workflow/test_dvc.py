"""dvc.yaml held to the graph and to the params."""

import re
from pathlib import Path

import yaml

from gald import paths
from gald.params import load_suite
from gald.workflow import graph
from tests.unit.workflow.plans import ROOT


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
