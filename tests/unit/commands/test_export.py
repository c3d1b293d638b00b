"""`gald export`: files that compute what the network computes, or no file at all."""

import json
import logging
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from gald import files, plugins
from gald.cli import main
from gald.commands import _export_files, _export_trace
from gald.commands import export as command
from gald.models import weights as weights_file
from tests.unit.commands.exporting import CLASSES, images_of, logits_of, run_onnx, save

pytestmark = pytest.mark.filterwarnings("ignore:distribution mask. :UserWarning")  # small images keep the tests fast

EXCEPTIONS: dict[tuple[str, str, str], str] = {}
"""(suffix, aggregation, distribution) that cannot be exported with free axes, and why; none is known."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before, handlers = torch.get_num_threads(), list(logging.getLogger("gald").handlers)
    torch.set_num_threads(1)  # on a busy machine several wait for each other
    yield
    torch.set_num_threads(before)
    logging.getLogger("gald").handlers[:] = handlers


@pytest.fixture
def small_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_export_trace, "_TRACED", (72, 100))


@pytest.mark.usefixtures("small_trace")
def test_onnx_holds_the_network_at_any_size_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    weights = save("net.safetensors")
    before = files.sha256(weights)
    assert main(["export", "net.safetensors", "-o", "model.onnx"]) == 0
    report, progress = capsys.readouterr()
    assert "difference" not in progress  # the report has them
    assert sorted(os.listdir()) == ["model.onnx", "net.safetensors"]  # noqa: PTH208 - names, hidden ones too
    for shape in ((1, 3, 41, 133), (5, 3, 32, 32)):
        images = images_of(*shape)
        difference = (run_onnx("model.onnx", images) - logits_of(weights, images)).abs().max()
        assert difference <= 1e-4
    differences = [float(found) for found in re.findall(r"^\| \d+x3x\d+x\d+ \| (\S+) \|$", report, re.MULTILINE)]
    assert len(differences) == 5
    assert 0 < max(differences) <= 1e-4
    assert "| 2x3x72x100 |" in report
    assert f"maximum difference {max(differences):.2e}" in report
    assert "opset 20" in report
    assert 'session = onnxruntime.InferenceSession("model.onnx")' in report
    assert '(logits,) = session.run(None, {"images": images})' in report
    model = onnx.load("model.onnx")
    onnx.checker.check_model(model, full_check=True)
    note = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(note["classes"]) == list(CLASSES)
    assert json.loads(note["model"])["channels"] == 16
    assert before in note["origin"]
    for value, channels in ((model.graph.input[0], 3), (model.graph.output[0], len(CLASSES))):
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert axes == ["batch", channels, "height", "width"]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert str(Path(__file__).parents[3]).encode() not in Path("model.onnx").read_bytes()
    assert not any("aux" in tensor.name for tensor in model.graph.initializer)


@pytest.mark.usefixtures("small_trace")
def test_program_holds_the_network_at_any_size(capsys: pytest.CaptureFixture[str]) -> None:
    weights = save("net.safetensors")
    assert main(["export", "net.safetensors", "-o", "model.pt2"]) == 0
    assert 'network = torch.export.load("model.pt2").module()' in capsys.readouterr().out
    extra = {"gald.json": ""}
    network = torch.export.load("model.pt2", extra_files=extra).module()
    note = json.loads(extra["gald.json"])
    assert json.loads(note["classes"]) == list(CLASSES)
    assert note["least_side"] == "32"
    images = images_of(3, 3, 57, 111)
    torch.testing.assert_close(network(images), logits_of(weights, images), rtol=0, atol=1e-5)
    assert network(images_of(1, 3, 736, 736)).shape == (1, 3, 736, 736)  # what training would recompute, too
    with pytest.raises(AssertionError, match=r"images.size\(\)\[2\] >= 32"):
        network(images_of(1, 3, 31, 40))


def test_a_weights_file_is_taken_whatever_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    save("i1")
    assert main(["export", "i1", "-o", "model.pt2", "--static", "--size", "32", "32"]) == 0
    assert main(["export", "i2", "-o", "model.pt2", "--static", "--size", "32", "32"]) == 1
    assert "no weights at runs/i2/weights.safetensors" in capsys.readouterr().err


@pytest.mark.slow
def test_static_export_takes_one_size_only(capsys: pytest.CaptureFixture[str]) -> None:
    weights = save("net.safetensors")
    arguments = ["export", "net.safetensors", "-o", "model.onnx", "--static", "--size", "33", "47"]
    assert main([*arguments, "--opset", "18"]) == 0
    report = capsys.readouterr().out
    assert "| 1x3x33x47 |" in report
    assert "dynamic axes: none" in report
    model = onnx.load("model.onnx")
    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 33, 47]
    assert [one.version for one in model.opset_import if not one.domain] == [18]
    images = images_of(1, 3, 33, 47)
    torch.testing.assert_close(run_onnx("model.onnx", images), logits_of(weights, images), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-o", "model.pth"], 2, r"must be \.onnx \(ONNX\) or \.pt2 \(torch\.export\)"),
        (["-o", "model.onnx", "--static"], 2, "--size HEIGHT WIDTH"),
        (["-o", "model.onnx", "--size", "0", "64"], 2, "--size is 0 64"),
        (["-o", "model.onnx", "--opset", "17"], 2, "--opset is 17; 18 to "),
        (["-o", "model.pt2", "--opset", "20"], 2, "is a torch.export program"),
        (["-o", "folder.onnx"], 2, "is a folder"),
        (["-o", "model.onnx"], 1, "no weights at absent.safetensors"),
    ],
)
def test_refused_before_any_work(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder.onnx").mkdir()
    assert main(["export", "absent.safetensors", *arguments]) == status
    assert re.search(message, capsys.readouterr().err)
    assert list(Path.cwd().iterdir()) == [Path.cwd() / "folder.onnx"]


def test_missing_extra_is_named_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_export_files.importlib.util, "find_spec", lambda name: None)
    assert main(["export", "absent.safetensors", "-o", "model.onnx"]) == 1
    error = capsys.readouterr().err
    assert "onnx, onnxscript, onnxruntime" in error
    assert "pip install -c constraints.txt -e '.[export]'" in error


@pytest.mark.usefixtures("small_trace")
@pytest.mark.parametrize("offset", [2e-4, float("nan")])
def test_file_that_differs_is_not_written(
    offset: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save("net.safetensors")
    Path("model.pt2").write_text("older")
    write = command.write_program

    def write_wrongly(program: torch.export.ExportedProgram, note: dict[str, str]) -> _export_files.Written:
        written = write(program, note)
        return written._replace(run=lambda images: written.run(images) + (offset if images.shape[-1] == 32 else 0))

    monkeypatch.setattr(command, "write_program", write_wrongly)
    assert main(["export", "net.safetensors", "-o", "model.pt2"]) == 1
    error = capsys.readouterr().err
    assert re.search(rf"differs by ({offset:.2g}|0.0002\d*) from the network on images of 1x3x32x32", error)
    assert Path("model.pt2").read_text() == "older"
    assert sorted(os.listdir()) == ["model.pt2", "net.safetensors"]  # noqa: PTH208 - names, hidden ones too


def test_kill_while_writing_leaves_no_file_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    save("net.safetensors")

    def killed(descriptor: int) -> None:
        assert not Path("model.pt2").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", killed)
    assert main(["export", "net.safetensors", "-o", "model.pt2", "--static", "--size", "32", "32"]) == 130
    assert sorted(os.listdir()) == ["net.safetensors"]  # noqa: PTH208 - names, hidden ones too


class Rigid(nn.Module):
    """What torch cannot trace for a free batch: code that counts the images."""

    def forward(self, feature: Tensor) -> Tensor:
        return torch.stack([feature[index] for index in range(len(feature))])


@pytest.mark.usefixtures("small_trace")
def test_part_that_needs_fixed_axes_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save("net.safetensors")
    load = weights_file.load

    def load_rigid(path: Path) -> nn.Module:
        model = load(path)
        model.head.block.aggregation = Rigid()
        return model

    monkeypatch.setattr(command.weights_file, "load", load_rigid)
    assert main(["export", "net.safetensors", "-o", "model.pt2"]) == 1
    error = capsys.readouterr().err
    assert "the aggregation Rigid" in error
    assert "--static --size 72 100" in error
    assert not Path("model.pt2").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small_trace")
def test_least_side_is_the_networks_own(capsys: pytest.CaptureFixture[str]) -> None:
    save("net.safetensors", distribution={"name": "mask", "reductions": 3})
    assert main(["export", "net.safetensors", "-o", "model.pt2"]) == 0
    assert "from 57x57 pixels on" in capsys.readouterr().out  # 15 positions at stride 4
    assert main(["export", "net.safetensors", "-o", "model.pt2", "--size", "56", "99"]) == 1
    assert "need 15x15 or more" in capsys.readouterr().err


COMBINATIONS = [
    (aggregation, distribution)
    for aggregation in plugins.available("models/aggregation")
    for distribution in plugins.available("models/distribution")
]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("aggregation", "distribution"), COMBINATIONS)
def test_every_block_is_exported_with_free_axes(aggregation: str, distribution: str) -> None:
    weights = save("net.safetensors", aggregation={"name": aggregation}, distribution={"name": distribution})
    images = images_of(3, 3, 67, 94)
    expected = logits_of(weights, images)
    with _export_trace.quietly():
        network = _export_trace.LogitsOnly(weights_file.load(weights).requires_grad_(False))
        program = _export_trace.trace(network, (2, 72, 100), 57)
        for suffix in (".onnx", ".pt2"):
            if (suffix, aggregation, distribution) in EXCEPTIONS:
                continue
            write = _export_files.write_program if suffix == ".pt2" else partial(_export_files.write_onnx, opset=None)
            found = write(program, {"input": ""}).run(images)
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-4, err_msg=suffix)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_same_command_gives_same_bytes(suffix: str) -> None:
    weights = save("net.safetensors", distribution={"name": "affinity"})
    for out in ("first", "second"):
        command.export(weights, Path(out + suffix), size=(40, 64), static=True)
    assert files.sha256(Path("first" + suffix)) == files.sha256(Path("second" + suffix))
