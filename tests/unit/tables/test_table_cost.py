"""A table of costs: what a machine took, beside what is counted; and the pictures of what distributions did."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gald import paths
from gald.errors import StaleMetrics
from gald.explanation import Explanation, Place
from gald.files import sha256, write_json, write_text
from gald.tables import gallery, machine, render
from gald.tables.collect import collect
from gald.tables.figures import scores_svg
from gald.tables.grid import grid
from gald.tables.report import build_report
from tests.unit.tables.conftest import write_pictures

FIELDS = (
    "row,input,parameters,macs,peak_bytes,latency_ms,latency_min_ms,latency_max_ms,device,dtype,threads,runs,torch\n"
)
COUNTED = "3x96x192,1234567,512340000"
MEASURED = "3145728,2.54,2.0,4.0,Some CPU,float32,1,5,2.13.0\n"


def of_costs(suite):
    """The suite, its table without scores but with all that is of a machine."""
    columns = ("parameters", "gmacs", "peak_memory", "latency")
    return replace(
        suite, tables=tuple(table.model_copy(update={"columns": columns, "main": None}) for table in suite.tables)
    )


def test_cells_are_what_was_measured_of_this_very_network(suite):
    others = f"tiny/camvid/ga-ld,3x96x192,1234568,512340000,{MEASURED}"  # one parameter more: another network
    write_text(paths.reports("tiny") / "cost.csv", FIELDS + f"tiny/camvid/ga,{COUNTED},{MEASURED}" + others)
    content = collect(of_costs(suite), "components")
    laid = grid(content)
    assert laid.header == ["Row", "Parameters (M)", "GMACs", "Peak memory (MiB)", "Latency (ms)"]
    assert laid.rows == [
        ["GA", "1.23", "0.512", "3.0", "2.5"],
        ["GA, then LD", "1.23", "0.512", "not measured", "not measured"],
    ]
    notes = " ".join(content.notes)
    assert "GMACs: one forward pass at 96x192 (height x width)." in notes
    assert "median of 5 passes): one forward pass of one image in float32 on Some CPU, 1 thread, torch 2.13.0" in notes
    assert "Not measured, or measured of another network: CamVid, GA, then LD." in notes
    assert "`gald cost tiny --csv reports/tiny/cost.csv`" in notes
    assert "mIoU" not in notes
    lines = list(csv.DictReader(render.to_csv(content).splitlines()))
    assert [line["peak_bytes"] for line in lines] == ["3145728", ""]
    assert (lines[0]["latency_ms"], lines[0]["latency_max_ms"], lines[0]["device"]) == ("2.54", "4.0", "Some CPU")
    assert "| GA | 1.23 | 0.512 | 3.0 | 2.5 |" in render.to_markdown(content)
    assert "GA & 1.23 & 0.512 & 3.0 & 2.5" in render.to_latex(content)
    assert '<td class="number">3.0</td>' in render.to_html(content)


@pytest.mark.parametrize("changed", ["3x96x193,1234567,512340000", "3x96x192,1234567,512340001"])
def test_a_measurement_of_another_size_or_network_is_not_shown(suite, changed):
    write_text(machine.file("tiny"), FIELDS + f"tiny/camvid/ga,{changed},{MEASURED}")
    assert all(line.machine is None for line in collect(of_costs(suite), "components").lines)


def test_a_network_that_could_not_be_measured_keeps_no_table_back(suite):
    refused = "tiny/camvid/ga-ld,3x96x192,,,,,,,Some CPU,float32,1,5,2.13.0,memory ran out\n"
    measured = f"tiny/camvid/ga,{COUNTED},{MEASURED[:-1]},\n"
    write_text(machine.file("tiny"), f"{FIELDS[:-1]},refused\n{measured}{refused}")
    shown = [line.machine for line in collect(of_costs(suite), "components").lines]
    assert shown[0] is not None
    assert shown[1] is None


@pytest.mark.parametrize(
    "content",
    [
        "row,input\ntiny/camvid/ga,3x96x192\n",
        f"{FIELDS}tiny/camvid/ga\n",
        f"{FIELDS}tiny/camvid/ga,3x96x192,q\n",
        "a\n1\n",
    ],
)
def test_measurements_that_cannot_be_read_are_told_by_file_and_remedy(suite, content):
    write_text(machine.file("tiny"), content)
    told = r"^reports/tiny/cost\.csv: what stands there of .* cannot be read \(.*run `gald cost tiny --csv reports/"
    with pytest.raises(StaleMetrics, match=told):
        collect(of_costs(suite), "components")


def test_a_report_of_costs_alone_has_no_plots_of_scores(suite):
    costs = of_costs(suite)
    assert scores_svg(collect(costs, "components")) is None
    build_report(costs)
    assert not list(paths.figures("tiny").iterdir())
    assert "Peak memory (MiB)" in paths.index("tiny").read_text()
    assert "One seed, no verdict" not in paths.index("tiny").read_text()


def test_scores_say_nothing_of_a_machine(suite):
    write_text(machine.file("tiny"), FIELDS + f"tiny/camvid/ga,{COUNTED},{MEASURED}")
    content = collect(suite, "components")
    assert content.measures == ()
    assert "peak_bytes" not in render.to_csv(content)
    assert "Some CPU, 1 thread" not in " ".join(content.notes)


def keep_explanation(run: str, labels: np.ndarray) -> Path:
    """Leave what an evaluation keeps of the first sample's distribution: half of the labels are others without it."""
    without = labels.copy()
    without[:4] = 1
    found = Explanation(
        kind="affinity", output="norm(sum of a·v(g)) + x", labels=labels, without=without, positions=(2, 4), window=3,
        dilation=1, places=(Place((4, 8), (1, 2), "on a predicted boundary"),),
        weights=np.array([[[0.1, 0.2, 0.3, 0.1, 0.2, 0.1, 0, 0, 0]]], np.float32),
        overview=np.zeros((2, 4), np.float32),
    )  # fmt: skip
    file = paths.predictions(run) / "s0.npz"
    file.write_bytes(found.packed())
    record = json.loads(paths.predictions_json(run).read_text())
    record["samples"][0]["explanation"] = {"file": file.name, "sha256": sha256(file)}
    write_json(paths.predictions_json(run), record)
    return file


@pytest.mark.slow
def test_the_gallery_shows_what_a_distribution_did(suite):
    write_pictures(suite)
    keep_explanation("tiny/camvid/ga-ld-seed0", np.zeros((8, 16), np.uint8))
    build_report(suite)
    page = paths.index("tiny").read_text()
    text = "GA, then LD: affinity weights of the 3 x 3 window at 1 positions; 50.0 % of the labels differ without it"
    assert f'<img src="gallery/camvid/0-ga-ld-seed0-explained.png" alt="{text}, s0"' in page
    with Image.open(paths.gallery("tiny") / "camvid/0-ga-ld-seed0-explained.png") as drawn:
        assert drawn.size[0] == 1210
        colours = np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0).tolist()
        assert [213, 94, 0] in colours  # of what differs
        assert [128, 64, 128] in colours  # of the class road
    assert page.count("explained.png") == 1
    before = (paths.gallery("tiny") / "camvid/0-ga-ld-seed0-explained.png").read_bytes()
    build_report(suite)
    assert (paths.gallery("tiny") / "camvid/0-ga-ld-seed0-explained.png").read_bytes() == before


@pytest.mark.parametrize("promised", [True, False])
def test_a_damaged_explanation_is_left_out_with_a_note(suite, promised):
    write_pictures(suite)
    run = "tiny/camvid/ga-ld-seed0"
    file = keep_explanation(run, np.zeros((8, 16), np.uint8))
    file.write_bytes(file.read_bytes()[:80])
    if promised:
        record = json.loads(paths.predictions_json(run).read_text())
        record["samples"][0]["explanation"]["sha256"] = sha256(file)
        write_json(paths.predictions_json(run), record)
    build_report(suite)
    page = paths.index("tiny").read_text()
    assert "explained.png" not in page
    assert ("s0.npz is damaged" if promised else f"{run}: a prediction is missing or damaged") in page


def test_only_the_first_samples_are_explained(suite):
    assert 1 <= gallery.EXPLAINED <= gallery.SAMPLES
