"""Options of plugins: what a value may be is read from the source and held against it, in params and in builds."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gald import plugins
from gald.errors import ModelError, ParamsError
from gald.models.block import GlobalThenLocal, build_plugin
from gald.params import load_suite

PARAMS = Path(__file__).parents[2] / "params"

AGGREGATIONS: list[tuple[dict[str, Any], str]] = [
    ({"name": "psp", "bins": []}, "bins: found .*at least 1"),
    ({"name": "psp", "bins": [1, 0]}, "bins: found .*greater than or equal to 1"),
    ({"name": "psp", "kernel_size": 2}, "kernel_size: found 2; input should be 1, 3, 5 or 7"),
    ({"name": "aspp", "rates": []}, "rates: found .*at least 1"),
    ({"name": "aspp", "rates": [12, 0]}, "rates: found .*greater than or equal to 1"),
    ({"name": "cgnl", "groups": 0}, "groups: found 0; input should be greater than or equal to 1"),
    ({"name": "cgnl", "groups": 7}, "7 groups.* must divide"),
    ({"name": "cgnl", "reduction": 0}, "reduction: found 0"),
    ({"name": "non_local", "reduction": -2}, "reduction: found -2"),
    ({"name": "non_local", "scaled": 1}, "scaled: found 1; input should be a valid boolean"),
    ({"name": "a2", "descriptors": -1}, "descriptors: found -1"),
    ({"name": "criss_cross", "recurrence": 0}, "recurrence: found 0"),
    ({"name": "ema", "bases": 0}, "bases: found 0"),
    ({"name": "ema", "momentum": 1.5}, "momentum: found 1.5; input should be less than or equal to 1"),
    ({"name": "ema", "gradient_steps": 4}, "gradient_steps"),
    ({"name": "dual_attention", "similarity": "alik"}, "similarity: found .*did you mean 'alike'"),
    ({"name": "dual_gcn", "reductions": 4}, "reductions: found 4; input should be 1, 2 or 3"),
    ({"name": "dual_gcn", "reduction": 99}, "leave no node"),
    ({"name": "global_context", "reduction": 0}, "reduction: found 0"),
]
DISTRIBUTIONS: list[tuple[dict[str, Any], str]] = [
    ({"name": "affinity", "window": 4}, "window: found 4; input should be 1, 3, 5 or 7"),
    ({"name": "affinity", "normalisation": "softmx"}, "normalisation: found 'softmx'; .*did you mean 'softmax'"),
    ({"name": "affinity", "weights": "unifrom"}, "weights: found 'unifrom'; .*did you mean 'uniform'"),
    ({"name": "affinity", "residual": "xx"}, "residual: found 'xx'; .*did you mean 'x'"),
    ({"name": "affinity", "value": "G"}, "value: found 'G'; .*known: difference, g, x"),
    ({"name": "affinity", "dilation": 0}, "dilation: found 0"),
    ({"name": "affinity", "heads": 0}, "heads: found 0"),
    ({"name": "affinity", "heads": 5}, "5 heads.* must divide"),
    ({"name": "affinity", "key_reduction": 0}, "key_reduction: found 0"),
    ({"name": "mask", "reductions": -1}, "reductions: found -1; input should be 1, 2 or 3"),
    ({"name": "depthwise", "hidden": 0}, "hidden: found 0"),
]
BACKBONES: list[tuple[dict[str, Any], str]] = [
    ({"name": "resnet", "multi_grid": []}, "multi_grid: found .*at least 1"),
    ({"name": "resnet", "depth": 51}, "depth: found 51; input should be 50 or 101"),
    ({"name": "timm", "model": "resnet18", "fuse_channels": 0}, "fuse_channels: found 0"),
    ({"name": "timm"}, "needs the option 'model'"),
    ({"name": "tiny", "width": 0}, "width: found 0"),
    ({"name": "tiny", "width": 28, "norm": "group"}, "multiples? of 8"),
]
CASES = [
    (kind, *case)
    for kind, cases in (("aggregation", AGGREGATIONS), ("distribution", DISTRIBUTIONS), ("backbone", BACKBONES))
    for case in cases
]


@pytest.mark.parametrize(("kind", "part", "message"), CASES)
def test_a_build_refuses_what_an_option_must_not_be(kind: str, part: dict[str, Any], message: str) -> None:
    options = {key: value for key, value in part.items() if key != "name"}
    channels = () if kind == "backbone" else (48,)
    with pytest.raises(ModelError, match=message) as caught:
        build_plugin(kind, part["name"], *channels, align_corners=True, options=options)
    assert part["name"] in str(caught.value)


@pytest.mark.parametrize(("kind", "part", "message"), CASES)
def test_params_refuse_it_before_anything_is_built(
    tmp_path: Path, kind: str, part: dict[str, Any], message: str
) -> None:
    root = tmp_path / "params"
    shutil.copytree(PARAMS, root)
    table = root / "tables/benchmarks.yaml"
    content = yaml.safe_load(table.read_text())
    content["rows"]["psp"] = {"model": {kind: part}}
    table.write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=message) as caught:
        load_suite("smoke", root)
    assert re.search(r"(rows|benchmarks\.adjust)\.psp", str(caught.value))


@pytest.mark.parametrize(("aggregation", "said"), [({"bins": [1]}, "key 'name'"), (3, "give a name"), ({}, "name")])
def test_a_part_without_a_name_is_refused(aggregation: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        GlobalThenLocal(8, aggregation=aggregation)


def test_a_block_without_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="channels is 0"):
        GlobalThenLocal(0, aggregation="none")


def test_lists_pass_for_tuples_and_defaults_are_filled_in() -> None:
    assert plugins.checked("models/aggregation", "psp", {"bins": [1, 2]}) == {"bins": (1, 2), "kernel_size": 3}
