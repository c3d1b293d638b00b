"""`gald predict` on pictures of every kind, with a tiny network."""

import errno
import itertools
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gald import cli
from gald.commands import predict as module
from gald.commands._predict_files import plan
from gald.commands.predict import Predictor, predict, read, voc_palette
from gald.datasets import load_spec
from gald.errors import DatasetError, ModelError, ParamsError
from gald.inference import WHOLE, channels_last, peak_bytes
from gald.inference import predict as predict_image
from gald.models import weights as weights_file
from gald.models.segmentor import build_segmentor
from gald.params import ModelParams, read_yaml

FIRST, SECOND = "mini/camvid/psp-seed0", "mini/camvid/psp-affinity-seed0"
BASE = Path(__file__).parents[3] / "params" / "base.yaml"


def save(path: Path, classes: tuple[str, ...], **changes: object) -> Path:
    small = {"backbone": {"name": "tiny", "width": 16, "stem_width": 8}, "channels": 16}
    params = ModelParams.model_validate(read_yaml(BASE)["model"] | small | changes)
    torch.manual_seed(0)
    weights_file.save(path, build_segmentor(params, len(classes)), params, classes)
    return path


pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def weights() -> Path:
    return save(Path("camvid.safetensors"), load_spec("camvid").class_names)


def picture(path: str, size: tuple[int, int] = (40, 56), seed: int = 0) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return Path(path)


def written(out: str) -> set[str]:
    return {path.relative_to(out).as_posix() for path in Path(out).rglob("*") if path.is_file()}


def test_mask_overlay_and_raw_ids_say_the_same(weights: Path) -> None:
    image = picture("scene.png")
    assert predict([image], weights, Path("out"), raw_ids=True) == []
    assert written("out") == {"scene-overlay.png", "scene-mask.png", "scene-ids.png"}
    pixels = np.asarray(Image.open(image))
    expected = predict_image(channels_last(weights_file.load(weights)), pixels, (40, 56))
    assert len(np.unique(expected)) > 1
    with Image.open("out/scene-mask.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:33] == [value for colour in load_spec("camvid").palette for value in colour]
        np.testing.assert_array_equal(np.array(mask), expected)
    colours = np.array(load_spec("camvid").palette, np.int64)[expected]
    np.testing.assert_array_equal(np.array(Image.open("out/scene-overlay.png")), (pixels + colours + 1) // 2)
    np.testing.assert_array_equal(np.array(Image.open("out/scene-ids.png")), expected)  # camvid's raw ids are 0 to 10


@pytest.mark.parametrize(
    ("name", "mode", "first", "last"), [("cityscapes", "L", 7, 33), ("pascal_context", "I;16", 2, 458)]
)
def test_raw_ids_are_the_benchmarks_own(name: str, mode: str, first: int, last: int) -> None:
    spec = load_spec(name)
    weights = save(Path("weights"), spec.class_names)
    assert predict([picture("a.png")], weights, Path("out"), raw_ids=True) == []
    train_ids = np.array(Image.open("out/a-mask.png"))
    with Image.open("out/a-ids.png") as ids:
        assert ids.mode == mode
        found = np.array(ids)
    assert {spec.train_ids()[raw] for raw in np.unique(found).tolist()} == set(np.unique(train_ids).tolist())
    np.testing.assert_array_equal(spec.lookup()[found], train_ids)
    table = Predictor(weights, dataset=None, raw_ids=True, device="cpu").raw_ids
    assert (table.min(), table.max()) == (first, last)


def test_classes_of_another_published_form_are_known_too() -> None:
    spec = load_spec("pascal_context", "json-60")
    found = Predictor(save(Path("weights"), spec.class_names), dataset=None, raw_ids=True, device="cpu")
    assert found.palette[:2].tolist() == [[0, 0, 0], [128, 0, 0]]
    assert found.raw_ids is not None
    assert found.raw_ids[:3].tolist() == [0, 2, 9]


def test_classes_of_no_benchmark_get_generated_colours() -> None:
    weights = save(Path("weights"), ("ground", "cloud"))
    assert predict([picture("a.png")], weights, Path("out")) == []
    with Image.open("out/a-mask.png") as mask:
        assert mask.getpalette()[:6] == [128, 0, 0, 0, 128, 0]
    with pytest.raises(ParamsError, match="weights: its classes are of no benchmark here"):
        predict([Path("a.png")], weights, Path("out"), raw_ids=True)


def test_generated_colours_are_those_of_voc_and_distinct() -> None:
    assert voc_palette(15)[14] == (192, 128, 128)  # VOC's person, index 15
    assert voc_palette(20)[19] == (0, 64, 128)  # and its tv monitor, index 20
    assert len(set(voc_palette(256))) == 256


def test_another_benchmark_or_source_is_refused_where_it_does_not_fit(weights: Path) -> None:
    image = [picture("a.png")]
    with pytest.raises(ModelError, match="has 11 classes, 19 are wanted"):
        predict(image, weights, Path("out"), dataset="cityscapes")
    with pytest.raises(DatasetError, match="did you mean 'camvid'"):
        predict(image, weights, Path("out"), dataset="camvit")
    with pytest.raises(DatasetError, match="camvid has no source 'none'"):
        predict(image, weights, Path("out"), dataset="camvid/none")
    with pytest.raises(DatasetError, match=r"camvid/original: class Building stands for the raw ids 1, 3, 4, 28, 31"):
        predict(image, weights, Path("out"), dataset="camvid/original", raw_ids=True)
    assert predict(image, weights, Path("out"), dataset="camvid/original") == []


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (65, 7), (33, 47)])
def test_any_size_is_predicted_at_that_size(weights: Path, size: tuple[int, int]) -> None:
    assert predict([picture("a.png", size)], weights, Path("out")) == []
    with Image.open("out/a-mask.png") as mask:
        assert mask.size == size[::-1]


@pytest.mark.filterwarnings("ignore:distribution mask")
def test_a_network_that_refuses_small_images_sees_them_continued_by_their_edge() -> None:
    weights = save(Path("weights"), ("a", "b"), distribution={"name": "mask"})
    predictor = Predictor(weights, dataset=None, raw_ids=False, device="cpu")
    assert predictor.least_side == 64  # 15 positions at output stride 4 need 57 pixels
    assert predict([picture("a.png", (20, 90))], weights, Path("out")) == []
    padded = np.pad(np.asarray(Image.open("a.png")), ((0, 44), (0, 0), (0, 0)), mode="edge")
    expected = predict_image(predictor.model, padded, (64, 90))[:20]
    np.testing.assert_array_equal(np.array(Image.open("out/a-mask.png")), expected)


def test_neither_a_long_name_nor_a_pipe_ends_the_batch(weights: Path) -> None:
    long = "l" * 245
    for name in ("in/a.png", f"in/{long}.png", "in/z.png"):
        picture(name)
    os.mkfifo("in/pipe.png")
    problems = predict([Path("in"), Path("in/pipe.png")], weights, Path("out"))
    assert written("out") == {"a-mask.png", "a-overlay.png", "z-mask.png", "z-overlay.png"}
    assert problems == [
        f"in/{long}.png: the names of its results are too long for this file system; give it a shorter name",
        "in/pipe.png: cannot be read as a picture (it is no regular file)",
    ]


def test_a_full_disk_ends_the_batch(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module.files, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        predict([picture("a.png")], weights, Path("out"))


def test_a_mask_that_is_hardly_local_is_told_once_a_size() -> None:
    weights = save(Path("weights"), ("a", "b"), distribution={"name": "mask"})
    pictures = [picture(f"{index}.png", (20 + index // 2, 70), seed=index) for index in range(4)]
    pictures += [picture(f"{index}.png", (70, 80), seed=index) for index in range(4, 6)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert predict(pictures, weights, Path("out")) == []
    sizes = [str(one.message).split(":")[1].split(" positions")[0] for one in caught]
    assert sizes == [" 16x18", " 18x20"]


def test_odd_pictures_are_read_as_they_look(weights: Path) -> None:
    upright = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 9, 9], [80, 80, 80], [200, 200, 200]]], np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees clockwise
    Image.fromarray(np.rot90(upright).copy()).save("turned.png", exif=exif)
    Image.fromarray(upright).convert("RGBA").save("alpha.png")
    Image.fromarray(upright).quantize(6).save("palette.png")
    for name in ("turned", "alpha", "palette"):
        np.testing.assert_array_equal(read(Path(f"{name}.png")), upright)
    deep = np.array([[0, 257, 65535, 128, 129]], np.uint16)
    Image.fromarray(deep).save("deep.png")
    assert read(Path("deep.png"))[0, :, 1].tolist() == [0, 1, 255, 0, 1]
    Image.fromarray(upright).convert("CMYK").save("cmyk.jpg")
    Image.fromarray(upright).convert("L").save("gray.jpg")
    assert predict([Path("cmyk.jpg"), Path("gray.jpg"), Path("turned.png")], weights, Path("out")) == []
    with Image.open("out/cmyk-overlay.jpg") as overlay, Image.open("out/turned-mask.png") as mask:
        assert (overlay.format, overlay.size, mask.size) == ("JPEG", (3, 2), (3, 2))


def test_what_cannot_be_read_is_named_and_the_rest_is_predicted(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gald")
    picture("in/a.png")
    picture("in/deep/er/b.jpg")
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:90])
    Path("in/text.jpg").write_text("no picture")
    Path("in/notes.txt").write_text("passed over")
    picture("in/.hidden.png")
    Path("empty/inside").mkdir(parents=True)
    Path("film.mp4").write_bytes(b"\0" * 64)
    problems = predict([Path("in"), Path("empty"), Path("gone.png"), Path("film.mp4")], weights, Path("out"))
    assert written("out") == {f"{stem}-mask.png" for stem in ("a", "deep/er/b")} | {
        "a-overlay.png",
        "deep/er/b-overlay.jpg",
    }
    assert problems[0].startswith("empty: no picture in it (.jpg, ")
    assert problems[1] == "gone.png: no such file or folder"
    assert [problem.split(":")[0] for problem in problems[2:]] == ["in/broken.png", "in/text.jpg", "film.mp4"]
    assert all(": cannot be read as a picture (" in problem for problem in problems[2:])
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == problems
    assert problems[-1].endswith("(not an image of a known format)")
    assert caplog.records[-1].message == "out: 2 of 5 pictures predicted"


def test_missing_weights_are_named_and_nothing_is_written() -> None:
    with pytest.raises(ModelError, match=r"no weights at runs/x/weights\.safetensors"):
        predict([picture("a.png")], Path("runs/x/weights.safetensors"), Path("out"))
    assert not Path("out").exists()


def test_equal_stems_never_share_a_name() -> None:
    for name in ("x/a.png", "x/a.jpg", "x/b.png", "y/a.png", "y/a.jpg", "y/A.PNG", "y/a.png-2.jpg"):
        picture(name)
    jobs, problems = plan([Path("x"), Path("y"), Path("x/b.png"), Path("x/../x/b.png")], Path("out"))
    assert problems == []
    assert {job.image.as_posix(): job.mask.relative_to("out").as_posix() for job in jobs} == {
        "x/a.jpg": "a.jpg-mask.png",
        "x/a.png": "a.png-mask.png",
        "x/b.png": "b-mask.png",
        "y/A.PNG": "A.PNG-3-mask.png",
        "y/a.jpg": "a.jpg-2-mask.png",
        "y/a.png": "a.png-4-mask.png",
        "y/a.png-2.jpg": "a.png-2-mask.png",
    }


def test_links_are_pictures_of_their_own(weights: Path) -> None:
    picture("cache/4f/d2.png")
    Path("in").mkdir()
    Path("also").symlink_to("in")
    for name in ("frame1.png", "frame2.png"):  # as a cache lays out two frames of equal content
        Path("in", name).symlink_to("../cache/4f/d2.png")
    Path("in/loop.png").symlink_to("loop.png")
    (problem,) = predict([Path("in"), Path("also"), Path("in/../in/frame1.png")], weights, Path("out"))
    assert problem.startswith("in/loop.png: cannot be read as a picture (Too many levels of symbolic links")
    assert written("out") == {f"frame{number}-{what}.png" for number in (1, 2) for what in ("mask", "overlay")}


def test_results_never_lie_among_the_pictures(weights: Path) -> None:
    picture("in/a.png")
    with pytest.raises(ParamsError, match="--out in is a folder of pictures"):
        predict([Path("in")], weights, Path("in"))
    picture("a.png")
    ours = picture("a-mask.png").read_bytes()
    problems = predict([Path("a.png"), Path("a-mask.png")], weights, Path())
    assert problems == ["a.png: its result would overwrite the picture a-mask.png; choose another --out"]
    assert Path("a-mask.png").read_bytes() == ours
    for _ in range(2):  # the second time, the results of the first are no pictures
        assert predict([Path("in")], weights, Path("in/out")) == []
    assert written("in") == {"a.png", "out/a-mask.png", "out/a-overlay.png"}


@pytest.mark.parametrize("out", ["notes.md", "notes.md/deeper/still"])
def test_a_file_in_the_place_of_the_results_is_refused_before_any_work(
    out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.md").write_text("mine")
    commands = (
        ["predict", "absent.png", "--weights", "absent.safetensors"],
        ["explain", "absent.png", "--weights", "absent.safetensors"],
        ["compare", FIRST, SECOND],
    )
    shutil.copytree(BASE.parent, "params")
    for command in commands:
        assert cli.main([*command, "-o", out]) == 2
        message = f"gald {command[0]}: -o {out}: notes.md is a file; name a folder for the results\n"
        assert capsys.readouterr().err == message
    assert Path("notes.md").read_text() == "mine"


def needed(size: tuple[int, int]) -> int:
    return peak_bytes(11, size, size, 8, WHOLE)


@pytest.mark.parametrize("how", ["too little is free", "the allocator fails"])
def test_too_large_a_picture_names_the_memory(weights: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    large, small = picture("large.png", (64, 128)), picture("small.png", (8, 8))
    if how == "too little is free":
        monkeypatch.setattr(module, "free_bytes", lambda: needed((64, 128)) - 1)
    else:
        real, calls = module.predict_image, itertools.count()

        def fail(model, image, size):
            if image.shape[0] == 64 and next(calls) == 0:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")
            return real(model, image, size)

        monkeypatch.setattr(module, "predict_image", fail)
        monkeypatch.setattr(module, "free_bytes", lambda: None)
    (problem,) = predict([large, small], weights, Path("out"))
    assert problem.startswith("large.png: 128x64 pixels take more memory than there is: beside the network's own, 11")
    assert "small-mask.png" in written("out")
    assert "large-mask.png" not in written("out")


def test_another_runtime_error_is_no_matter_of_memory(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(weights, dataset=None, raw_ids=False, device="cpu")
    assert predictor.least_side == 1

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "predict_image", fail)
    (job,), _ = plan([picture("a.png")], Path("out"))
    with pytest.raises(RuntimeError, match="a bug"):
        predictor.write(job)
