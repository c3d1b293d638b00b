# ruff: noqa: E501 - a case reads best on one line
import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gald import plugins
from gald.commands.params import describe
from gald.datasets import load_spec
from gald.errors import ParamsError
from gald.params import find_run, load_suite, suite_names, validate_suite

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    return tmp_path / "params"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} no longer holds {old!r}"
    path.write_text(text.replace(old, new, 1))


def refusal(root: Path, suite: str = "mini") -> str:
    with pytest.raises(ParamsError) as caught:
        load_suite(suite, root)
    return str(caught.value)


def test_every_suite_is_valid() -> None:
    names = suite_names(REPOSITORY / "params")
    assert {"mini", "mini_full", "smoke", "camvid_cpu", "camvid", "paper"} <= set(names)
    for name in names:
        assert validate_suite(name, REPOSITORY / "params").runs


def test_mini_holds_three_seeds_on_one_benchmark_and_all_five_benchmarks(root: Path) -> None:
    suite = load_suite("mini", root)
    runs = {run.name for run in suite.runs}
    assert {f"mini/cityscapes/psp-affinity-seed{seed}" for seed in range(3)} <= runs
    assert {run.dataset for run in suite.runs} == {
        "cityscapes", "ade20k", "pascal_context", "camvid", "coco_stuff10k"
    }  # fmt: skip
    assert len({run.digest() for run in suite.runs}) == len(suite.runs)


def test_layers_win_in_order_base_recipe_suite_row(root: Path) -> None:
    def learning_rate() -> float:
        return load_suite("smoke", root).run("smoke/camvid/psp-seed0").params.train.learning_rate

    edit(root / "recipes.yaml", "learning_rate: 0.05", "learning_rate: 0.04")
    assert learning_rate() == 0.04
    edit(root / "suites/smoke.yaml", "train: {max_iters: 40,", "train: {learning_rate: 0.03, max_iters: 40,")
    assert learning_rate() == 0.03
    edit(root / "tables/benchmarks.yaml", "  psp:\n    model:", "  psp:\n    train: {learning_rate: 0.02}\n    model:")
    assert learning_rate() == 0.02


def test_the_benchmarks_usual_protocol_is_resolved_and_written(root: Path) -> None:
    run = find_run("mini/camvid/psp-seed0", root)
    assert run.params.train.splits == ("train", "val")
    assert run.params.evaluate.split == "test"


def test_the_protocols_splits_are_those_of_the_benchmarks_own_file(root: Path) -> None:
    for run in load_suite("mini", root).runs:
        spec = load_spec(run.dataset)
        assert (run.params.train.splits, run.params.evaluate.split) == (spec.train_splits, spec.eval_split)


def test_another_aggregation_drops_the_options_of_the_one_below(root: Path) -> None:
    edit(
        root / "recipes.yaml",
        "    channels: 48\n",
        "    channels: 48\n    aggregation: {name: non_local, reduction: 4}\n",
    )
    suite = load_suite("mini", root)
    assert suite.run("mini/cityscapes/none-seed0").params.model.aggregation.options["reduction"] == 4
    assert "reduction" not in suite.run("mini/cityscapes/psp-seed0").params.model.aggregation.options


def test_options_not_given_are_written_out_with_their_defaults(root: Path) -> None:
    run = find_run("mini/cityscapes/psp-affinity-seed0", root)
    assert set(run.params.model.distribution.options) == set(plugins.signature("models/distribution", "affinity"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_iters: 500", "max_iter: 300", r"params/recipes\.yaml: mini: train\.max_iter: unknown key; did you mean 'max_iters'"),
        ("max_iters: 500", "max_iters: many", r"recipes\.yaml: mini: train\.max_iters: found 'many'; input should be a valid integer"),
        ("max_iters: 500", "max_iters: true", r"train\.max_iters: found True"),
        ("learning_rate: 0.05", "learning_rate: 5e-2", r"train\.learning_rate: found '5e-2'.*write 0\.01 or 1\.0e-2"),
        ("learning_rate: 0.05", "learning_rate: -1.0", r"train\.learning_rate: found -1\.0; input should be greater than 0"),
        ("{name: tiny}", "{name: tinny}", r"backbone\.name: no backbone is called 'tinny'; did you mean 'tiny'\?"),
        ("{name: tiny}", "{name: tiny, widht: 3}", r"backbone\.widht: 'tiny' has no option 'widht'; did you mean 'width'"),
        ("warmup_iters: 10", "warmup_iters: 500", r"warmup_iters 500 must stay below max_iters 500"),
        ("scale_range: [1.0, 1.0]", "scale_range: [2.0, 1.0]", r"lower bound 2\.0 exceeds 1\.0"),
        ("scale_range: [1.0, 1.0]", "scale_range: [1.0]", r"scale_range"),
        ("crop_size: [96, 192]", "crop_size: [8, 192]", r"too small a map for distribution 'mask'.*7 positions"),
        ("  train:\n    crop_size: [96", "  train:\n    splits: [val]\n    crop_size: [96", r"'val' is among train\.splits"),
        ("  train:\n    crop_size: [96", "  train:\n    splits: [trian]\n    crop_size: [96", r"train\.splits: cityscapes has no split 'trian'; did you mean 'train'"),
        ("    channels: 48", "    channels: 50", r"model\.channels 50: the 8 groups of 'cgnl' must divide it and its 25"),
        ("batch_size: 8", "batch_size: 1", r"batch_size 1 in micro_batches 1 gives a device one sample at once, .* the 1x1 bin of aggregation 'psp': make"),
        ("batch_size: 8", "batch_size: 8\n    micro_batches: 8", r"batch_size 8 in micro_batches 8 .* the 1x1 bin of .* 'frozen'"),
        ("mini:\n", "mini:\n  trian: {}\n", r"recipes\.yaml: mini: trian: unknown key; did you mean 'train'\?"),
        ("max_iters: 500", "max_iters: 500\n    max_iters: 200", r"recipes\.yaml: line \d+: key 'max_iters' stands twice"),
        ("max_iters: 500", "max_iters: [300", r"recipes\.yaml: not valid YAML"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_file_key_and_remedy(root: Path, old: str, new: str, expected: str) -> None:
    edit(root / "recipes.yaml", old, new)
    assert re.search(expected, refusal(root, "mini_full"))


def test_a_refused_value_is_told_once_and_without_a_hint_to_what_it_is_not(root: Path) -> None:
    edit(root / "suites/smoke.yaml", "seeds: [0]", "seeds: [zero]")
    (line,) = refusal(root, "smoke").splitlines()
    assert line.endswith("tables.benchmarks.seeds.0: found 'zero'; input should be a valid integer")


def test_all_problems_of_all_rows_come_at_once(root: Path) -> None:
    edit(root / "recipes.yaml", "max_iters: 500", "max_iter: 300")
    edit(root / "tables/components.yaml", "{name: mask}", "{name: mask, reduction: 2}")
    edit(root / "suites/mini.yaml", "[cityscapes, ade20k,", "[cityscapes, ade20,")
    message = refusal(root)
    assert "did you mean 'max_iters'" in message
    assert (
        "rows.psp-mask: model.distribution.reduction: 'mask' has no option 'reduction'; did you mean 'reductions'"
        in message
    )
    assert "no dataset is called 'ade20'; did you mean 'ade20k'?" in message


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("suites/mini.yaml", "recipe: mini", "recipe: minni", r"no recipe 'minni'; did you mean 'mini'"),
        ("suites/mini.yaml", "edition: mini", "edition: tiny", r"suites/mini\.yaml: edition: found 'tiny'"),
        ("suites/mini.yaml", "    seeds: [0]", "    seeds: []", r"seeds"),
        ("suites/mini.yaml", "seeds: [0, 1, 2]", "seeds: [0, 1, 1]", r"tables\.components\.seeds: 1 stands twice"),
        (
            "suites/mini.yaml",
            "  benchmarks:",
            "  benchmark:",
            r"benchmark\.yaml: no such file; did you mean 'benchmarks'\? known: .*components",
        ),
        ("suites/mini.yaml", "rows: &rows [none,", "rows: &rows [nune,", r"no row 'nune'; did you mean 'none'"),
        ("tables/components.yaml", "than: psp\n", "than: pspl\n", r"row 'pspl', which is not among rows"),
        ("tables/components.yaml", "[mean_iou,", "[miou,", r"columns\.0: no column is called 'miou'; did you mean 'mean_iou'"),
        ("tables/benchmarks.yaml", "  psp:\n    model:", "  PSP:\n    model:", r"rows\.PSP.*found 'PSP'; string should match"),
        ("tables/benchmarks.yaml", "dataset: cityscapes", "dataset: cityscape", r"published: no dataset is called 'cityscape'; did you mean"),
        ("base.yaml", "processes: null", "proceses: null", r"base\.yaml: prepare: proceses: unknown key; did you mean 'processes'"),
        ("base.yaml", "\n  camvid:", "\n  camvd:", r"base\.yaml: datasets: no dataset is called 'camvd'; did you mean 'camvid'"),
        ("base.yaml", "\n  camvid:", "\n  camvid: null\n  ade20k:", r"base\.yaml: datasets\.camvid: expected a mapping of keys, found None"),
        ("recipes.yaml", "mini:\n", "mini:\n  datasets: [camvid]\nother:\n", r"recipes\.yaml: mini: datasets: expected a mapping of keys, found \['camvid'\]"),
        ("recipes.yaml", "mini:\n", "mini: 3\nother:\n", r"recipes\.yaml: mini: expected a mapping of keys, found 3"),
    ],
)  # fmt: skip
def test_suites_and_tables_are_typed_too(root: Path, file: str, old: str, new: str, expected: str) -> None:
    edit(root / file, old, new)
    assert re.search(expected, refusal(root))


def test_one_name_for_two_sets_of_params_is_refused(root: Path) -> None:
    edit(root / "tables/benchmarks.yaml", "  psp:\n    model:", "  psp:\n    train: {power: 1.0}\n    model:")
    message = refusal(root)
    assert "tables components and benchmarks both name 'mini/cityscapes/psp-seed0' with different params" in message


def test_a_scale_can_adjust_a_row_and_says_so(root: Path) -> None:
    suite = load_suite("mini", root)
    assert suite.run("mini/cityscapes/psp-mask-seed0").params.model.distribution.options["reductions"] == 2
    assert any("24 -> 11 -> 5" in note for note in suite.table("components").notes)
    edit(root / "suites/mini.yaml", "psp-mask: {model", "psp-masc: {model")
    assert "adjust: no row 'psp-masc'; did you mean 'psp-mask'" in refusal(root)


def test_suites_that_share_a_scale_must_agree(root: Path) -> None:
    edit(root / "suites/mini_full.yaml", "recipe: mini\n", "recipe: mini\noverrides: {train: {power: 1.0}}\n")
    with pytest.raises(ParamsError, match="suites 'mini' and 'mini_full' share the run 'mini/cityscapes/"):
        validate_suite("mini", root)


def test_equal_params_are_one_run_shown_by_both_tables(root: Path) -> None:
    table = yaml.safe_load((root / "tables/benchmarks.yaml").read_text())
    table["rows"] = {"aggregated": table["rows"]["psp"]}
    table["labels"] = {}
    table |= {"published": [], "main": None}
    (root / "tables/benchmarks.yaml").write_text(yaml.safe_dump(table))
    suite = load_suite("mini", root)
    shown = [cell.run for cell in suite.cells["benchmarks"] if cell.dataset == "cityscapes"]
    assert shown == ["mini/cityscapes/psp-seed0"]
    assert suite.run(shown[0]).tables == ("components", "benchmarks", "fine_detail", "cost")


def test_comments_order_and_spelling_of_numbers_do_not_change_a_digest(root: Path) -> None:
    before = {run.name: run.digest() for run in load_suite("mini", root).runs}
    recipes = yaml.safe_load((root / "recipes.yaml").read_text())
    recipes["mini"]["train"] = dict(reversed(recipes["mini"]["train"].items()))
    (root / "recipes.yaml").write_text("# a comment\n" + yaml.safe_dump(recipes, sort_keys=False))
    edit(root / "recipes.yaml", "learning_rate: 0.05", "learning_rate: 0.050")
    assert {run.name: run.digest() for run in load_suite("mini", root).runs} == before


def test_the_evaluate_section_does_not_touch_the_training_digest(root: Path) -> None:
    before = find_run("mini/camvid/psp-seed0", root)
    edit(root / "base.yaml", "protocol: whole", "protocol: multi_scale")
    after = find_run("mini/camvid/psp-seed0", root)
    assert after.digest() == before.digest()
    assert after.evaluate_digest() != before.evaluate_digest()


def test_a_protocol_is_resolved_where_a_run_is_read(root: Path) -> None:
    edit(root / "base.yaml", "protocol: whole", "protocol: sliding")
    run = find_run("mini/camvid/psp-seed0", root)
    protocol = run.params.evaluate.protocol
    assert (protocol.name, protocol.window, protocol.average) == ("sliding", run.params.train.crop_size, "logits")
    before = run.evaluate_digest()
    edit(root / "protocols.yaml", "window: crop ", "window: [64, 64] ")
    assert find_run("mini/camvid/psp-seed0", root).params.evaluate.protocol.window == (64, 64)
    assert find_run("mini/camvid/psp-seed0", root).evaluate_digest() != before


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("base.yaml", "protocol: whole", "protocol: hole", r"no protocol 'hole' in .*protocols\.yaml; did you mean 'whole'"),
        ("protocols.yaml", "overlap: 0.0", "overlap: 0.5", r"protocols\.yaml: whole: .*window is null"),
        ("protocols.yaml", "scales: [1.0]", "scales: []", r"protocols\.yaml: whole: scales"),
        ("protocols.yaml", "average: logits", "average: votes", r"protocols\.yaml: whole: average: found 'votes'"),
    ],
)  # fmt: skip
def test_a_protocol_that_cannot_be_is_refused(root: Path, file: str, old: str, new: str, told: str) -> None:
    edit(root / file, old, new)
    assert re.search(told, refusal(root))


def test_what_changes_no_bit_trains_nothing_again(root: Path) -> None:
    before = find_run("mini/camvid/psp-seed0", root)
    edit(root / "base.yaml", "workers: 0", "workers: 4")
    edit(root / "base.yaml", "log_every: 10", "log_every: 20")
    edit(root / "recipes.yaml", "checkpoint_every: 50", "checkpoint_every: 25")
    after = find_run("mini/camvid/psp-seed0", root)
    assert after.digest() == before.digest()
    assert after.params.train.workers == 4


def test_an_unknown_run_names_its_nearest(root: Path) -> None:
    with pytest.raises(ParamsError, match="did you mean 'mini/camvid/psp-seed0'"):
        find_run("mini/camvid/psp-sed0", root)


def test_outside_the_repository_the_message_says_so(tmp_path: Path) -> None:
    for look in (load_suite, find_run):
        with pytest.raises(ParamsError, match="run this in the repository's root"):
            look("mini/camvid/psp-seed0" if look is find_run else "mini", tmp_path / "params")


def test_validation_imports_no_torch() -> None:
    code = "import sys; from gald.params import load_suite; load_suite('mini'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smoke", "'smoke' is a suite: `snakemake smoke` makes its runs, `gald params smoke` lists them"),
        ("mni", "no suite and no run is called 'mni'; did you mean 'mini'"),
        ("mini_full/cityscapes/psp-seed0", "none begins with 'mini_full/'; did you mean 'mini'"),
        ("mini/cityscapes/psp-sed0", r"did you mean 'mini/cityscapes/psp-seed0'\?$"),
    ],
)
def test_a_misspelt_run_is_answered_with_what_would_be_right(name: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        find_run(name)


def test_a_suite_is_described_by_its_runs_and_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert describe("smoke").startswith("smoke: 4 runs, 1 table; all params are valid\n")
    assert describe("mini").startswith("mini: 23 runs, 4 tables; all params are valid\n")


def test_a_benchmark_of_more_classes_than_a_mask_tells_apart_is_refused(root: Path, monkeypatch) -> None:
    spec = load_spec("camvid")
    many = dataclasses.replace(spec, classes=(spec.classes * 30)[:256])
    monkeypatch.setattr("gald.params._run_params.load_spec", lambda *_: many)
    assert "camvid has 256 classes; masks have 8 bits" in refusal(root, "smoke")
