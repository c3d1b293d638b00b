"""Plots of scores and losses."""

import dataclasses

import pytest

from gald import paths
from gald.tables import figures
from gald.tables.collect import collect
from gald.tables.families import families_svg
from gald.tables.report import build_report
from tests.unit.tables.conftest import FAMILIES, TABLE, write_params, write_run


def test_plots_bear_no_date_and_no_other_style(suite, monkeypatch):
    import matplotlib as mpl

    content = collect(suite, "components")
    svg = figures.scores_svg(content)
    monkeypatch.setitem(mpl.rcParams, "font.size", 30.0)  # as a user's matplotlibrc might say
    assert figures.scores_svg(content) == svg
    assert b"dc:date" not in svg
    assert mpl.rcParams["font.size"] == 30.0


def test_a_plot_of_scores_never_zooms_into_noise(suite, monkeypatch):
    from matplotlib.figure import Figure

    for run in suite.runs:
        write_run(run, 0.6 + 0.0001 * run.seed, boundary=0.5)
    limits = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: limits.extend(axes.get_xlim() for axes in self.axes))
    figures.scores_svg(collect(suite, "components"))
    assert all(high - low >= 5 for low, high in limits)


def test_no_history_means_no_loss_plot(suite):
    for run in suite.runs:
        paths.history_csv(run.name).unlink()
    assert figures.loss_svg(collect(suite, "components")) is None


def test_families_of_scores_stand_in_panels(suite, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    plain = Axes.errorbar

    def errorbar(self, places, means, **more):
        drawn.append((list(means), more["yerr"], more["label"]))
        return plain(self, places, means, **more)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    for run in suite.runs:
        write_run(run, 0.6, boundary=0.5 + 0.01 * run.seed, scores={"object_found_2": None})
    table = suite.tables[0].model_copy(update={"layout": "scores", "columns": FAMILIES})
    content = collect(dataclasses.replace(suite, tables=(table,)), "components")
    plot = families_svg(content)
    assert plot is not None
    assert plot == families_svg(content)
    trimap, found = drawn[0], drawn[2]
    assert trimap == (pytest.approx([40, 51]), pytest.approx([0, 1]), "GA")
    assert found[0] == pytest.approx([40])  # what no run could score is left out
    table = table.model_copy(update={"columns": ("mean_iou", "trimap_mean_iou_3")})
    assert families_svg(collect(dataclasses.replace(suite, tables=(table,)), "components")) is None


def test_equal_rows_stand_side_by_side_and_no_line_lifts_one_above_the_other(suite, monkeypatch):
    from matplotlib.figure import Figure

    for run in suite.runs:
        write_run(run, 0.6)
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    table = suite.tables[0].model_copy(
        update={"layout": "scores", "columns": ("border_mean_iou_1", "border_mean_iou_2", "border_mean_iou_3")}
    )
    families_svg(collect(dataclasses.replace(suite, tables=(table,)), "components"))
    (axes,) = drawn[0].axes
    assert axes.get_title(loc="left") == "mIoU by distance to the border"
    dots = [container.lines[0] for container in axes.containers]
    assert [dot.get_linestyle() for dot in dots] == ["None", "None"]
    assert [list(dot.get_ydata()) for dot in dots] == [[pytest.approx(40)] * 3] * 2
    first, second = (dot.get_xdata() for dot in dots)
    assert ((first + second) / 2).tolist() == pytest.approx([0, 1, 2])
    assert 0 < second[0] - first[0] < 0.5


def test_losses_of_the_same_runs_are_plotted_once(workplace):
    uses = {name: {"datasets": ["camvid"], "seeds": [0]} for name in ("components", "again")} | {
        "more": {"datasets": ["camvid"], "seeds": [0, 1]}
    }
    suite = write_params(workplace, dict.fromkeys(uses, TABLE), uses)
    for run in suite.runs:
        write_run(run, 0.6)
    build_report(suite)
    drawn = sorted(path.name for path in paths.figures("tiny").iterdir())
    assert drawn == [
        "again-scores.svg",
        "components-loss.svg",
        "components-scores.svg",
        "more-loss.svg",
        "more-scores.svg",
    ]
    assert "figures/again-loss.svg" not in paths.index("tiny").read_text()


def test_a_legend_has_as_many_columns_as_fit_beside_each_other():
    assert figures.legend_columns(["no GA", "GA (PSP)", "GA, then mask LD", "GA, then affinity LD"]) == 4
    assert figures.legend_columns(["GA, then uniform LD (control: weights 1/k2)"] * 5) == 2
    assert figures.legend_columns(["x" * 300]) == 1


def test_a_loss_is_read_in_decimals():
    axes = figures.new_figure(4, 3).subplots()
    axes.plot([0, 500], [2.2, 0.12])
    figures._scale_logarithmically(axes)
    low, high = axes.get_ylim()
    shown = [label.get_text() for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert shown == ["0.2", "0.5", "1", "2"]
    assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))
