"""`gald export` of backbones that pad their images, of those that torch cannot trace, and of files that cannot run."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gald.cli import main
from gald.commands import _export_files, _export_trace
from gald.commands import export as command
from gald.errors import GaldError
from gald.models.backbone._extractor import Fit
from gald.models.backbone._timm import import_timm
from tests.unit.commands.exporting import images_of, logits_of, run_onnx, save

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def small_swin(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of timm's under which a Swin of 16 channels is built."""
    timm, name = import_timm(), "swin_tiny_patch4_window7_224"
    create, small = timm.create_model, {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 2)}
    monkeypatch.setattr(timm, "create_model", lambda named, **options: create(named, **options, **small))
    return name


@pytest.mark.parametrize("side", range(31, 68))
def test_images_are_padded_to_a_multiple_and_features_cut_to_what_the_image_has(side: int) -> None:
    class Network(nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            assert tuple(images.shape[2:]) == (-(-side // 32) * 32, 64)
            return [images[:, :, ::stride, ::stride] for stride in (8, 32)]

    fit = Fit(strides=[8, 32], widths=[3, 3], multiple=32, channels_last=False)
    found = fit.features(Network(), torch.zeros(1, 3, side, 64))
    assert [tuple(feature.shape[2:]) for feature in found] == [(-(-side // 8), 8), (-(-side // 32), 2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        {"name": "resnet", "depth": 50},
        {"name": "timm", "model": "efficientnet_lite0", "output_stride": 8, "fuse": "add"},
        {"name": "timm", "model": "test_convnext", "output_stride": 32},
        {"name": "timm", "model": "test_vit", "output_stride": 16},
    ],
    ids=["resnet50", "efficientnet_lite0", "convnext", "vit"],
)
def test_backbones_are_exported_with_free_axes(backbone: dict[str, object]) -> None:
    weights = save("net.safetensors", backbone=backbone)
    command.export(weights, Path("model.onnx"), size=(64, 96))
    images = images_of(1, 3, 81, 75)
    np.testing.assert_allclose(
        run_onnx("model.onnx", images).numpy(), logits_of(weights, images).numpy(), rtol=0, atol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "stride"), [("test_convnext", 32), ("test_vit", 16)])
def test_padding_backbones_become_programs_of_any_size_and_batch(model: str, stride: int) -> None:
    weights = save("net.safetensors", backbone={"name": "timm", "model": model, "output_stride": stride})
    command.export(weights, Path("model.pt2"), size=(64, 96))
    network = torch.export.load("model.pt2").module()
    for shape in ((1, 3, 32, 32), (1, 3, 81, 75), (3, 3, 33, 150)):
        images = images_of(*shape)
        torch.testing.assert_close(network(images), logits_of(weights, images), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_swin_is_exported_for_one_size_and_refused_for_all_in_bounded_time(
    suffix: str, small_swin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = save("net.safetensors", backbone={"name": "timm", "model": small_swin, "output_stride": 32})
    out = Path("model").with_suffix(suffix)
    assert "maximum difference" in command.export(weights, out, size=(64, 96), static=True)
    out.unlink()
    monkeypatch.setattr(_export_trace, "_LIMIT_S", 5.0)
    with pytest.raises(GaldError, match=r"for 5 s without an end.*--static --size 64 96"):
        command.export(weights, out, size=(64, 96))
    assert not out.exists()


def test_a_trace_without_end_is_ended_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def endless(*_: Any) -> None:
        while True:
            time.monotonic()

    save("net.safetensors")
    monkeypatch.setattr(command, "trace", endless)
    monkeypatch.setattr(_export_trace, "_LIMIT_S", 0.2)
    assert main(["export", "net.safetensors", "-o", "model.pt2"]) == 1
    assert "--static --size 192 256" in capsys.readouterr().err


@pytest.mark.parametrize("failing", ["save", "load"])
def test_a_program_that_torch_cannot_write_or_read_back_is_refused_with_the_remedy(
    failing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("Mod(s14, 32)")

    save("net.safetensors")
    monkeypatch.setattr(torch.export, failing, fail)
    assert main(["export", "net.safetensors", "-o", "model.pt2"]) == 1
    error = capsys.readouterr().err
    assert "--static --size HEIGHT WIDTH" in error
    assert "KeyError" in error
    assert not Path("model.pt2").exists()


@pytest.mark.parametrize("error", [TypeError("a"), KeyError("b"), RuntimeError("c")])
def test_an_exported_network_that_fails_is_refused_with_the_remedy(error: Exception) -> None:
    def run(images: torch.Tensor) -> torch.Tensor:
        raise error

    written = _export_files.Written(b"", run, "", ())
    with pytest.raises(GaldError, match=r"fails on images of 1x3x8x8.*--static"):
        command._compare(lambda images: images, written, (1, 8, 8))
