"""README, CONTRIBUTING and the guides held to the code: commands, snippets, paths and results."""

import argparse
import csv
import fnmatch
import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from gald import cli, plugins
from gald._torchvision import import_with_torchvision
from gald.cli.data import edition_and_dataset
from gald.models.block import GlobalThenLocal
from gald.params import load_suite, suite_names
from gald.workflow import graph

ROOT = Path(__file__).parents[2]
GUIDES = ("docs/training.md", "docs/evaluation.md", "docs/data.md")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *GUIDES)
STAND_INS = {"RUN": "mini/cityscapes/psp-affinity-seed0", "SUITE": "mini"}  # and the same in small letters and brackets
GENERATED = "reports/datasets/full"  # but for a file or two, no clone has it


class Code(NamedTuple):
    """A piece of code: its language, none for a word or a line within text, and whether a sentence is around it."""

    language: str
    text: str
    prose: bool


@cache
def codes(document: str) -> tuple[Code, ...]:
    text = (ROOT / document).read_text()
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [Code(language, block, False) for language, block in fence.findall(text)]
    for line in fence.sub("", text).splitlines():
        found += [Code("", span, not line.startswith("|")) for span in re.findall(r"`([^`]+)`", line)]
    return tuple(found)


def commands(document: str, program: str) -> Iterator[tuple[list[str], bool]]:
    """List the arguments that a program is called with; also whether that stands in a sentence."""
    for code in codes(document):
        text = code.text
        for name, value in STAND_INS.items():
            text = re.sub(rf"\b{name}\b|<{name.lower()}>", value, text)
        for line in re.split(r"\n|&&", text) if code.language in ("", "sh") else ():
            words = shlex.split(line.replace("-m gald.cli", "; gald").partition(";")[2] or line)
            if words[:1] == [program]:
                yield words[1:], code.prose


@cache
def runs() -> frozenset[str]:
    return frozenset(run.name for name in suite_names() for run in load_suite(name).runs)


def git(*arguments: str) -> str:
    """Ask git, since a build may have changed what lies in the folder; without a repository there is nothing to ask."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        pytest.skip(f"no repository here: {done.stderr.strip()}")
    return done.stdout


@cache
def tracked() -> frozenset[str]:
    """Files and folders that the repository has."""
    files = [Path(name) for name in git("ls-files").splitlines()]
    return frozenset(str(path) for file in files for path in (file, *file.parents))


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def check_names(args: argparse.Namespace) -> None:
    """Suites, benchmarks and their editions must be there; of runs all mentions are looked up elsewhere."""
    given = [getattr(args, name, None) or () for name in ("suite", "suites", "what")] if args.verb != "bench" else ()
    for name in itertools.chain.from_iterable([one] if isinstance(one, str) else one for one in given):
        assert name in suite_names() or name in runs(), name
    data = getattr(args, "data", None) or (args.run if getattr(args, "predictions", None) else None)
    if data:
        edition_and_dataset(data)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_ours_is_one(document):
    verbs = cli._parser_and_verbs()[1]
    told = list(commands(document, "gald"))
    for words, prose in told:
        if prose and len(words) == 1:  # the verb itself is spoken of
            assert words[0] in (*verbs, "--help")
        else:
            check_names(cli.parser().parse_args(words))
    assert len(told) > 2


def test_the_command_for_several_processes_is_among_them():
    trained = [words[1] for words, _ in commands("docs/training.md", "gald") if words[0] == "train"]
    assert "paper/cityscapes/psp-affinity-seed0" in trained


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_snakemake_builds_what_there_is(document):
    from snakemake.cli import get_argument_parser

    told = list(commands(document, "snakemake"))
    for words, _ in told:
        args = get_argument_parser().parse_args(words)
        assert set(args.targets) <= {*suite_names(), *(f"{stage}_all" for stage in graph.STAGES)}
        assert args.workflow_profile is None or Path(args.workflow_profile, "config.yaml").exists()
    assert len(told) > 2 or document in GUIDES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_run_that_is_named_is_one(document):
    named = re.findall(r"\b\w+/\w+/[\w-]+-seed\d+\b", (ROOT / document).read_text())
    assert {name for name in named if not name.startswith("gallery/")} <= runs()


def words_like_paths(document: str) -> Iterator[str]:
    for word in (word.rstrip(",.;:") for code in codes(document) for word in code.text.split()):
        if re.fullmatch(r"[\w.-]+\.(yaml|toml|md|cff|txt)", word):
            yield word
        elif "/" in word and word.partition("/")[0] in tracked() and re.fullmatch(r"[\w./<>-]+", word):
            yield word


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_link_leads_somewhere(document):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text())
    named = [path for path in (*links, *words_like_paths(document)) if not path.startswith(GENERATED)]
    patterns = {path: re.sub("<[^>]+>", "*", path).rstrip("/") for path in named}
    assert not [path for path, pattern in patterns.items() if not fnmatch.filter(tracked(), pattern)]
    assert named


def test_versions_are_those_that_are_pinned():
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    told = [word for code in codes("README.md") for word in code.text.split() if "==" in word]
    assert told
    assert set(told) <= set(pinned)


# What the README shows of the block in networks of other libraries.


def snippet(part: str) -> str:
    shown = [code.text for code in codes("README.md") if code.language == "python"]
    assert len(shown) == 2, "run the new ones too"
    (found,) = (text for text in shown if part in text)
    return found


def names(**more: object) -> dict:
    torch.manual_seed(0)
    return {"nn": nn, "GlobalThenLocal": GlobalThenLocal, "images": torch.rand(2, 3, 64, 96), **more}


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_the_block_before_the_classifier_of_torchvision(name):
    build = getattr(import_with_torchvision("torchvision.models.segmentation"), name)
    found = names(fcn_resnet50=build)
    exec(snippet(name), found)
    assert found["logits"].shape == (2, 5, 64, 96)
    found["logits"].square().mean().backward()
    assert all(part.grad.isfinite().all() for part in found["block"].parameters())
    assert found["model"].backbone.conv1.weight.grad.abs().max() > 0


def test_the_block_on_features_of_timm():
    found = names(timm=import_with_torchvision("timm"))
    exec(snippet("timm"), found)
    assert found["logits"].shape == (2, 5, 8, 12)
    found["logits"].square().mean().backward()
    assert all(part.grad.isfinite().all() for part in found["block"].parameters())
    assert found["backbone"].conv1[0].weight.grad.abs().max() > 0


def test_there_are_as_many_modules_as_it_says():
    text = " ".join((ROOT / "README.md").read_text().split())
    (told,) = re.findall(r"any of (\d+) aggregations, then any of (\d+) distributions, or `none`", text)
    modules = ("models/aggregation", "models/distribution")
    assert [int(count) for count in told] == [len(plugins.available(kind)) - 1 for kind in modules]


# Its results are those of the committed tables.


def results() -> str:
    return (ROOT / "README.md").read_text().partition("## What came out")[2].partition("\n## ")[0]


def lines_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(git("show", f":{Path(table).with_suffix('.csv')}").splitlines()))


def rounded(value: str, shown: str, *, scale: float = 1.0) -> str:
    """Spell a number with as many decimals as another."""
    return f"{scale * float(value):.{len(shown.partition('.')[2])}f}"


@pytest.mark.parametrize("table", ["reports/mini/tables/components.md", "reports/camvid_cpu/tables/components.md"])
def test_every_cell_of_a_result_table_is_that_of_the_committed_one(table):
    section = results().partition(f"({table})")[2].partition("\n\n|")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in section.splitlines()[2:]]
    lines = {line["label"].partition(": ")[0].removesuffix(")"): line for line in lines_of(table)}
    assert len(rows) > 3
    for label, parameters, gmacs, *scores in rows:
        line = lines[label.removesuffix(")")]
        assert parameters == rounded(line["parameters"], parameters, scale=1e-6)
        assert gmacs == rounded(line["gmacs"], gmacs)
        for name, shown in zip(("mean_iou", "trimap_mean_iou_3"), scores, strict=True):
            mean, deviation = shown.split(" ± ")
            assert mean == rounded(line[name], mean, scale=100)
            assert deviation == rounded(line[f"{name}_deviation"], deviation, scale=100)


def test_every_mean_in_the_text_is_that_of_a_row_in_the_tables_it_names():
    known = set()
    for table in set(re.findall(r"\((reports/\w+/tables/\w+\.md)\)", results())):
        for line in lines_of(table):
            known |= {
                (rounded(line[name], "0.0", scale=100), rounded(line[f"{name}_deviation"], "0.0", scale=100))
                for name in line
                if line.get(f"{name}_deviation")
            }
    told = re.findall(r"(\d+\.\d) ± (\d+\.\d)", " ".join(results().split()))
    assert len(told) > 20
    assert set(told) <= known
