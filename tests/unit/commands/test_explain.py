"""`gald explain`: the files it writes, the numbers in them, and what it refuses."""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from gald import cli
from gald.commands.explain import explain
from gald.datasets import load_spec
from gald.errors import DatasetError, ModelError, ParamsError
from gald.inference import channels_last, predict
from gald.models import weights as weights_file
from gald.models.segmentor import build_segmentor
from gald.params import ModelParams, read_yaml

BASE = Path(__file__).parents[3] / "params" / "base.yaml"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3)).astype(np.uint8))
    coarse.resize((80, 64), Image.Resampling.BICUBIC).save("scene.png")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(**distribution: object) -> Path:
    small = {"backbone": {"name": "tiny", "width": 16, "stem_width": 8}, "channels": 16, "distribution": distribution}
    params, classes = ModelParams.model_validate(read_yaml(BASE)["model"] | small), load_spec("camvid").class_names
    torch.manual_seed(0)
    weights_file.save(Path("net.safetensors"), build_segmentor(params, len(classes)), params, classes)
    return Path("net.safetensors")


def numbers() -> dict:
    return json.loads(Path("out/explain.json").read_text())


def test_weights_at_chosen_positions(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", "scene.png", "--weights", str(weights(name="affinity")), "-o", "out"]
    parsed = cli.parser().parse_args([*arguments, "--at", "32", "40", "--at", "0", "0"])
    parsed.action(parsed)
    found = numbers()
    assert (found["distribution"], found["window"], found["size"]) == ("affinity", 3, [64, 80])
    assert [place["pixel"] for place in found["positions"]] == [[32, 40], [0, 0]]
    assert [len(place["neighbours"]) for place in found["positions"]] == [9, 4]
    for place in found["positions"]:
        assert place["sum"] == pytest.approx([1], abs=1e-6)
        assert sum(one["weights"][0] for one in place["neighbours"]) == pytest.approx(1, abs=1e-6)
    assert found["positions"][1]["neighbours"][-1].items() >= {"rows": 1, "columns": 1}.items()
    network = channels_last(weights_file.load("net.safetensors"))
    labels = predict(network, np.asarray(Image.open("scene.png")), (64, 80))
    network.head.block.distribution = torch.nn.Module()
    network.head.block.distribution.forward = lambda _, aggregated: aggregated
    without = predict(network, np.asarray(Image.open("scene.png")), (64, 80))
    assert found["differing_pixels"] == np.count_nonzero(labels != without) > 0
    with Image.open("out/explain.png") as drawn:
        assert drawn.size[0] == 1210
    said = capsys.readouterr().out
    assert "1, row 32, column 40, chosen: largest weight 0." in said
    assert "its distribution replaced by handing on the aggregated feature" in " ".join(said.split())


def test_many_positions_are_drawn_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    network = weights(name="affinity")
    for count in (4, 11):
        explain(Path("scene.png"), network, Path("out"), at=[(place, place) for place in range(count)])
        titles = [axes.get_title("left").partition(":")[0] for axes in figures[-1].subfigs[1].axes]
        assert [title for title in titles if title.isdigit()] == [str(place + 1) for place in range(count)]
        grid = figures[-1].subfigs[1].axes[0].get_gridspec()
        assert (grid.nrows, grid.ncols) == (-(-count // 4), 5)
    assert figures[1].get_figheight() - figures[0].get_figheight() > 4  # inches of two rows


def test_names_are_no_formulas() -> None:
    network = weights_file.load(weights(name="affinity"))
    params = weights_file.describe(Path("net.safetensors")).model
    weights_file.save(Path("net.safetensors"), network, params, [f"$\\frac{{${index}" for index in range(11)])
    Path("scene.png").rename("a$\\frac{$b.png")
    explain(Path("a$\\frac{$b.png"), Path("net.safetensors"), Path("out"))
    assert Path("out/explain.png").is_file()


def test_what_a_network_advises_is_told_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explain(Path("scene.png"), weights(name="mask"), Path("out"))
    assert [str(one.message).partition(" leave")[0] for one in caught] == ["distribution mask: 16x20 positions"]


def test_the_same_picture_gives_the_same_files() -> None:
    written = []
    for _ in range(2):
        explain(Path("scene.png"), weights(name="mask", reductions=1), Path("out"))
        written.append([Path("out", name).read_bytes() for name in ("explain.png", "explain.json")])
    assert written[0] == written[1]
    mask = numbers()["mask"]
    assert 0.5 <= mask["least"] <= mask["mean"] <= mask["most"] < 1
    deviations = [channel["deviation"] for channel in mask["most_variable_channels"]]
    assert deviations == sorted(deviations, reverse=True)
    assert len(deviations) == 3


def test_numbers_of_places_stay_in_the_picture_and_scales_are_spelt_short(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    draw = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), draw(self, *a, **k)))
    corners = [(0, 0), (0, 79), (63, 0), (63, 79)]
    explain(Path("scene.png"), weights(name="affinity", window=5, dilation=3), Path("out"), at=corners)
    image, overview = figures[0].subfigs[0].axes[0], figures[0].subfigs[1].axes
    frame = image.get_window_extent()
    placed = [text.get_window_extent() for text in image.texts]
    assert len(placed) == 4
    for box in placed:
        assert frame.x0 < box.x0 < box.x1 < frame.x1
        assert frame.y0 < box.y0 < box.y1 < frame.y1
    bar = next(axes for axes in overview if axes.get_xlabel().startswith("0 equal"))
    ends = [label.get_text() for label in bar.get_xticklabels()]
    assert ends[0] == "0"
    assert all(len(label) <= 6 for label in ends)
    assert float(ends[-1]) == pytest.approx(bar.get_xlim()[1], rel=1e-6)  # rounded up, not rounded


def test_a_distribution_without_weights_of_its_own_says_so() -> None:
    report = explain(Path("scene.png"), weights(name="affinity", weights="uniform"), Path("out"))
    assert "equal by construction" in report
    assert "positions" not in numbers()
    assert "only the difference is shown" in explain(Path("scene.png"), weights(name="depthwise"), Path("out"))


def test_a_picture_that_is_too_small_is_continued() -> None:
    Image.new("L", (3, 5), 90).save("small.png")
    with pytest.warns(UserWarning, match="hardly local"):
        report = explain(Path("small.png"), weights(name="mask"), Path("out"))
    height, width = numbers()["size"]
    assert f"continued by its edges to {width}x{height}" in report
    assert min(height, width) >= 15
    with pytest.raises(ParamsError, match=r"--at 5 0 is outside: rows go from 0 to 4, columns from 0 to 2"):
        explain(Path("small.png"), weights(name="affinity"), Path("out"), at=[(5, 0)])


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(ModelError, match=r"net\.safetensors: this network has no local distribution .*-affinity or"):
        explain(Path("scene.png"), weights(name="none"), Path("out"))
    path = weights(name="affinity")
    Path("text.png").write_text("no picture")
    with pytest.raises(DatasetError, match=r"text\.png: cannot be read as a picture"):
        explain(Path("text.png"), path, Path("out"))
    os.mkfifo("pipe.png")
    with pytest.raises(DatasetError, match=r"pipe\.png: cannot be read as a picture \(it is no regular file\)"):
        explain(Path("pipe.png"), path, Path("out"))
    with pytest.raises(ParamsError, match=r"--at 3 80 is outside: rows go from 0 to 63, columns from 0 to 79"):
        explain(Path("scene.png"), path, Path("out"), at=[(3, 80)])
    assert not Path("out").exists()
