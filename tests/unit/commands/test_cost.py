"""`gald cost` on the smoke suite and on small modules."""

import csv
import re
from pathlib import Path

import pytest
import torch

from gald import plugins
from gald.commands import cost as module
from gald.commands._cost_rows import modules
from gald.commands.cost import FIELDS, cost
from gald.errors import GaldError, ModelError, ParamsError
from gald.evaluate.cost import Pass, parameters
from gald.evaluate.cost import cost as price
from gald.models import weights
from gald.models.released import NETS
from gald.models.segmentor import build_segmentor
from gald.params import load_suite

PARAMS = Path(__file__).parents[3] / "params"


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params").symlink_to(PARAMS)


def squeezed(text: str) -> str:
    return " ".join(text.split())


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_aggregations_alone_and_with_affinity_and_all_distributions() -> None:
    before = torch.get_num_threads()
    report = cost(size=(6, 10), channels=16, runs=1, csv=Path("out/cost.csv"))
    assert torch.get_num_threads() == before
    found = rows("out/cost.csv")
    names = plugins.available("models/aggregation")
    alone = [name for name in plugins.available("models/distribution") if name != "none"]
    assert [row["row"] for row in found] == [*(name for one in names for name in (one, f"{one}-affinity")), *alone]
    assert set(found[0]) == set(FIELDS)
    by_name = {row["row"]: row for row in found}
    assert int(by_name["none-affinity"]["macs"]) == int(by_name["none"]["macs"]) + int(by_name["affinity"]["macs"])
    mask = by_name.pop("mask")
    assert mask["parameters"] == ""
    assert "need 15x15 or more" in mask["refused"]
    assert "| mask | - | - | - | - | refused |" in squeezed(report)
    found.remove(mask)
    assert by_name["none"]["macs"] == str(60 * 9 * 16 * 16)
    assert by_name["none"]["parameters"] == str(9 * 16 * 16 + 2 * 16)
    assert all(float(row["latency_ms"]) > 0 and int(row["peak_bytes"]) >= 4 * 16 * 60 for row in found)
    assert {(row["input"], row["dtype"], row["threads"], row["runs"]) for row in found} == {
        ("16x6x10", "float32", "1", "1")
    }
    head, table, reason = (part.splitlines() for part in report.split("\n\n"))
    assert " ".join(reason).startswith("mask: distribution mask: a feature of 6x10 positions is too small")
    assert " ".join(head).startswith("One input (channels x height x width) of 16x6x10 in float32 on CPU ")
    assert "1 thread, torch" in " ".join(head)
    assert "median latency of 1 passes after 2 to warm up" in " ".join(head)
    assert len(table) == 2 + len(found) + 1
    assert {len(line) for line in table} == {len(table[0])}  # aligned
    assert max(map(len, head + table)) <= 90
    assert "| none | 0.002 | 0.0001382 |" in squeezed(report)  # 2,336 parameters and 138,240 products


def test_each_row_of_a_suite_once_whatever_its_seeds() -> None:
    run = load_suite("smoke").runs[0]
    cost(["smoke", run.name], runs=1, csv=Path("cost.csv"))
    found = rows("cost.csv")
    names = [f"{one.scale}/{one.dataset}/{one.row}" for one in load_suite("smoke").runs]
    assert [row["row"] for row in found] == list(dict.fromkeys(names))
    expected = price(build_segmentor(run.params.model, 19).eval(), run.params.train.crop_size)
    assert run.dataset == "cityscapes"
    assert (int(found[0]["macs"]) / 1e9, int(found[0]["parameters"])) == (expected.gmacs, expected.parameters)


def test_figures_are_written_as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def measure(*_: object, warm_up: int, runs: int) -> Pass:
        threads.append(torch.get_num_threads())
        return Pass(3 * 2**20, (0.004, 0.001, 0.0025))

    monkeypatch.setattr(module.measuring, "measure", measure)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 3)
    report = cost(size=(40, 40), channels=16, threads=3, runs=3, csv=Path("cost.csv"))
    assert set(threads) == {3}
    assert "| 3.0 | 2.5 | 1.0 to 4.0 |" in squeezed(report)
    assert "3 threads, torch" in squeezed(report)
    row = rows("cost.csv")[0]
    assert [row[key] for key in ("peak_bytes", "latency_ms", "latency_min_ms", "latency_max_ms", "threads")] == [
        *("3145728", "2.5", "1.0", "4.0", "3")
    ]


def test_the_image_size_can_be_chosen() -> None:
    name = load_suite("smoke").runs[0].name
    report = cost([name], size=(32, 64), runs=1)
    assert "of 3x32x64 in float32" in squeezed(report)


def test_inputs_of_several_sizes_are_told_row_by_row() -> None:
    runs = [load_suite(suite).runs[0] for suite in ("smoke", "camvid_cpu")]
    assert len({run.params.train.crop_size for run in runs}) == 2
    report = cost([run.name for run in runs], runs=1)
    for run in runs:
        row, height, width = run.name.rpartition("-seed")[0], *run.params.train.crop_size
        assert f"| {row} | 3x{height}x{width} |" in squeezed(report)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"what": ["smoky"]}, ParamsError, "run is called 'smoky'; did you mean 'smoke'"),
        ({"what": ["smoke/camvid/none-seed7"]}, ParamsError, "no run is called 'smoke/camvid/none-seed7'"),
        ({"size": (0, 4)}, ParamsError, r"size \(0, 4\).*each must be 1 or more"),
        ({"runs": 0}, ParamsError, "runs 0: each must be 1 or more"),
        ({"channels": 0}, ParamsError, "channels 0"),
        ({"threads": 100_000}, ParamsError, r"threads 100000: this machine has \d+ cores"),
        ({"what": ["gone.safetensors"]}, ModelError, r"no weights at gone\.safetensors"),
        ({"what": ["gald_res5"]}, ParamsError, "did you mean 'gald_res50'"),
        ({"what": ["psp-mask"]}, ParamsError, "no suite, released network or run is called"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: dict, error: type[GaldError], message: str) -> None:
    with pytest.raises(error, match=message):
        cost(**arguments)


def test_released_networks_and_weights_files_are_measured_as_they_are(tmp_path: Path) -> None:
    run = load_suite("smoke").runs[0]
    model = build_segmentor(run.params.model, 5).eval()
    weights.save(tmp_path / "any name", model, run.params.model, ("a", "b", "c", "d", "e"))
    cost(["any name", "dualgcn_res50", "any name"], size=(33, 33), runs=1, csv=Path("cost.csv"))
    found = rows("cost.csv")
    assert [row["row"] for row in found] == ["any name", "dualgcn_res50"]
    assert int(found[0]["macs"]) / 1e9 == price(model, (33, 33)).gmacs
    with torch.device("meta"):
        released = build_segmentor(NETS["dualgcn_res50"].model, 19)
    assert int(found[1]["parameters"]) == parameters(released)


def test_a_row_that_refuses_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "modules", lambda *_: [row for row in modules(12, (4, 4)) if row.name in ("cgnl", "a2")]
    )
    report = squeezed(cost(runs=1))
    assert re.search(r"\| a2 \| 0\.000 \|.*\| cgnl \| - \| - \| - \| - \| refused \|", report)
    assert report.endswith("change groups, reduction or model.channels")
    monkeypatch.setattr(module, "modules", lambda *_: [row for row in modules(12, (4, 4)) if row.name == "cgnl"])
    with pytest.raises(ModelError, match=r"^cgnl: aggregation cgnl: 8 groups must divide both 12"):
        cost(runs=1)


def test_no_cuda_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParamsError, match="torch finds no CUDA device"):
        cost(device="cuda")


def test_a_lack_of_memory_names_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(module.measuring, "measure", fail)
    with pytest.raises(GaldError, match=r"^a2: an input of 8x4x4 takes more memory than there is"):
        cost(size=(4, 4), channels=8)
