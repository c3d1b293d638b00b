"""Released checkpoints become weights files: the same numbers, or a refusal that names the tensors."""

import os
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gald
from gald.commands.import_weights import import_weights
from gald.datasets import load_spec
from gald.errors import ModelError, ParamsError
from gald.models import released
from gald.models.backbone._checkpoint import read
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import AuxHead, Choice, ModelParams

CAFFE = torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(1, 3, 1, 1)  # blue, green, red
SMALL = ModelParams(
    backbone=Choice.model_validate({"name": "tiny", "width": 8, "stem_width": 4}),
    channels=8,
    aggregation=Choice(name="psp"),
    aggregation_stride=1,
    distribution=Choice(name="none"),
    aux_head=AuxHead(channels=4, relu=True, dropout=0.1),
    align_corners=True,
)


def without_buffers(model: Segmentor) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name not in ("mean", "std")}


def hollow(recorded, classes: int = 19) -> dict[str, Tensor]:
    """Checkpoint of the R-50 GALD net, every tensor one repeated number: the file is small, the shapes are right."""
    shapes = {name: shape for name, shape in recorded("gald_res50").shapes.items() if name != "__input__"}
    resized = {name: [classes, *shape[1:]] if shape[0] == 19 else shape for name, shape in shapes.items()}
    return {name: torch.ones(()).expand(shape) for name, shape in resized.items()}


@pytest.fixture
def small(monkeypatch) -> tuple[Segmentor, dict[str, Tensor]]:
    """A small net beside the released ones: what the checkpoint was taken from, and the checkpoint."""
    renames = [(r"^backbone\.stem\.0\.", "conv1.0.")]
    net = released.Released(SMALL, renames, rgb=False)
    monkeypatch.setattr(released, "NETS", {**released.NETS, "small": net, "small_rgb": replace(net, rgb=True)})
    model = build_segmentor(SMALL, 5).eval()
    state = without_buffers(model)
    state["conv1.0.weight"] = state.pop("backbone.stem.0.weight")
    return model, state


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:distribution mask")  # the recorded input leaves a mask of 2x3
def test_recorded_network_through_the_weights_file(recorded, tmp_path):
    record = recorded("gald_res50")
    torch.save(record.state(), tmp_path / "GALD_res50_final.pth")
    said = import_weights(tmp_path / "GALD_res50_final.pth", "gald_res50", 19, tmp_path / "gald.safetensors")
    assert "gald_res50 of 19 classes, all 330 tensors" in said
    model = gald.load(tmp_path / "gald.safetensors")
    assert model.class_names == load_spec("cityscapes").class_names
    images = (record.input + CAFFE).flip(1) / 255  # what the recorded input, BGR less the mean, was as RGB in [0, 1]
    with torch.no_grad():
        logits = model(images).logits
    assert logits.shape == (1, 19, 193, 257)
    aligned = logits[:, :, ::8, ::8]  # corners are aligned, so every eighth position is one before upsampling
    torch.testing.assert_close(aligned, record.array("gald_res50.npz", "logits"), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("net", "rgb", "bgr"),
    [("small", None, True), ("small", True, False), ("small_rgb", None, False), ("small_rgb", False, True)],
)
def test_images_are_normalised_as_the_network_was_trained(small, tmp_path, net, rgb, bgr):
    model, state = small
    torch.save(state, tmp_path / "in.pth")
    import_weights(tmp_path / "in.pth", net, 5, tmp_path / "out", rgb=rgb)
    images = torch.rand(2, 3, 24, 32)
    seen = 255 * images.flip(1) - CAFFE if bgr else (images - model.mean) / model.std
    with torch.no_grad():
        features = model.backbone(seen)
        output = gald.load(tmp_path / "out")(images, with_aux=True)
    for logits, found in (
        (model.head(features.main), output.logits),
        (model.aux_head(features.aux), output.aux_logits),
    ):
        assert found.shape == (2, 5, 24, 32)
        resized = torch.nn.functional.interpolate(logits, (24, 32), mode="bilinear", align_corners=True)
        torch.testing.assert_close(found, resized, atol=1e-4, rtol=1e-4)


def test_classes_of_another_number_are_counted(small, tmp_path):
    torch.save(small[1], tmp_path / "in.pth")
    said = import_weights(tmp_path / "in.pth", "small", 5, tmp_path / "out")
    assert said.endswith("which was trained on BGR with Caffe's mean")
    assert gald.load(tmp_path / "out").class_names == ("class_0", "class_1", "class_2", "class_3", "class_4")


def saved(state, tmp_path, **options):
    torch.save(state, tmp_path / "in.pth", **options)
    return tmp_path / "in.pth"


@pytest.mark.parametrize("form", ["plain", "prefixed", "nested", "both", "model", "no counters", "legacy"])
def test_every_form_of_a_checkpoint_gives_the_same_file(small, tmp_path, form):
    plain, state = small[1], OrderedDict(small[1])
    state._metadata = {"": {"version": 1}}  # as `state_dict` leaves it
    if form in ("prefixed", "both"):
        state = {f"module.{name}": tensor for name, tensor in plain.items()}
    if form == "no counters":
        state = {name: tensor for name, tensor in plain.items() if not name.endswith("num_batches_tracked")}
        assert len(state) < len(plain)
    if form in ("nested", "both"):
        state = {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.01}}
    if form == "model":
        state = {"model": state}
    file = saved(state, tmp_path, _use_new_zipfile_serialization=form != "legacy")
    found = read(file)
    assert found.keys() == {name for name in plain if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(found[name], plain[name]) for name in found)
    import_weights(file, "small", 5, tmp_path / "out")
    model = gald.load(tmp_path / "out").state_dict()
    assert torch.equal(model["backbone.stem.0.weight"], plain["conv1.0.weight"].flip(1))
    assert all(torch.equal(model[name], found[name]) for name in found if name != "conv1.0.weight")


def refusal(state, tmp_path, net="gald_res50", classes=19) -> str:
    file = saved(state, tmp_path)
    with pytest.raises(ModelError) as caught:
        import_weights(file, net, classes, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(caught.value).removeprefix(str(file))


def test_tensors_that_do_not_fit_are_each_named(recorded, tmp_path):
    state = hollow(recorded)
    del state["layer3.2.bn2.running_var"], state["dsn.1.bias"]
    state |= {
        "fc.weight": torch.ones(2),
        "head.convb.1.bias": torch.ones(511),
        "bn1.weight": torch.full((128,), torch.nan),
    }
    state["bn1.bias"] = torch.ones(128, dtype=torch.int64)
    assert refusal(state, tmp_path) == (
        " does not fit gald_res50 of 19 classes, missing: layer3.2.bn2.running_var, dsn.1.bias; unexpected: fc.weight; "
        "of another shape: head.convb.1.bias (found (511,), expected (512,)); not of finite numbers: bn1.weight, "
        "bn1.bias; use a checkpoint of the released code that is whole"
    )


def test_a_variance_below_zero_is_refused(recorded, tmp_path):
    state = hollow(recorded)
    state["bn1.running_var"][3] = -1e-3
    assert " a variance below zero: bn1.running_var; use a checkpoint" in refusal(state, tmp_path)


def test_names_with_and_without_prefix_are_not_mixed(recorded, tmp_path):
    state = hollow(recorded)
    state["module.bn1.bias"] = state["bn1.bias"]
    assert "classes, unexpected: module.bn1.bias; " in refusal(state, tmp_path)


def test_another_network_and_another_number_of_classes_are_recognised(recorded, tmp_path):
    assert refusal(hollow(recorded), tmp_path, net="gald_res101").endswith("of gald_res50: pass --net gald_res50")
    assert refusal(hollow(recorded, 11), tmp_path).endswith("its classifier has 11 classes: pass --classes 11")


class Call:
    """An object whose pickle calls a function when it is read."""

    def __reduce__(self):
        return os.mkdir, ("called",)


@pytest.mark.parametrize("new", [True, False])
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, new):
    monkeypatch.chdir(tmp_path)
    file = saved({"bn1.bias": torch.ones(2), "more": Call()}, tmp_path, _use_new_zipfile_serialization=new)
    with pytest.raises(ModelError, match=r"is refused: it holds more than tensors, and .* would call posix\.mkdir"):
        read(file)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x03\x04 cut", b"\x80\x02cut"])
def test_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "in.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"in\.pth is damaged or no checkpoint"):
        read(tmp_path / "in.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.ones(2), "holds no state dict"),
        ({}, "holds no state dict"),
        ({"state_dict": {}}, "holds no state dict"),
        ({"a": torch.ones(2), "epoch": 3}, "holds entries that are no tensors of plain numbers: epoch"),
        (
            {
                "sparse": torch.ones(2).to_sparse(),
                "small": torch.ones(2).to(torch.float8_e5m2),
                "complex": torch.ones(2, dtype=torch.complex64),
                "void": torch.ones(2, device="meta"),
                "plain": torch.ones(2),
                "count": torch.tensor(1),
            },
            "holds entries that are no tensors of plain numbers: sparse, small, complex, void; give",
        ),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, said):
    with pytest.raises(ModelError, match=said):
        read(saved(content, tmp_path))


def test_impossible_requests_are_refused(tmp_path):
    file = tmp_path / "in.pth"
    with pytest.raises(ModelError, match=r"no checkpoint at .*in\.pth"):
        import_weights(file, "gald_res50", 19, tmp_path / "out")
    for classes in (0, 256, 300):
        with pytest.raises(ModelError, match=f"{classes} classes; masks have 8 bits.* 1 to 255"):
            import_weights(file, "gald_res50", classes, tmp_path / "out")
    for out in (file, tmp_path / "sub/.." / file.name):
        with pytest.raises(ParamsError, match=r"-o \S+in\.pth is what is read here"):
            import_weights(file, "gald_res50", 19, out)
    with pytest.raises(ModelError, match="no released network is called 'gald'"):
        import_weights(file, "gald", 19, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("net", ["gald_res101", "dualgcn_res50", "dualgcn_res101"])
def test_whole_networks_go_through(tmp_path, net):
    origin = released.NETS[net]
    model = build_segmentor(origin.model, 19).eval()
    own = without_buffers(model)
    names = released.released_names((name for name in own if not name.endswith("num_batches_tracked")), origin.renames)
    file = saved({f"module.{name}": own[ours] for name, ours in names.items()}, tmp_path)
    import_weights(file, net, 19, tmp_path / "out")
    images = torch.rand(1, 3, 312, 312)
    seen = (images - model.mean) / model.std if origin.rgb else 255 * images.flip(1) - CAFFE
    with torch.no_grad():
        features = model.backbone(seen)
        output = gald.load(tmp_path / "out")(images, with_aux=True)
        for head, feature, found in (
            (model.head, features.main, output.logits),
            (model.aux_head, features.aux, output.aux_logits),
        ):
            logits = torch.nn.functional.interpolate(head(feature), (312, 312), mode="bilinear", align_corners=True)
            assert found.shape == (1, 19, 312, 312)
            torch.testing.assert_close(found, logits, atol=1e-4 * float(logits.abs().max()), rtol=0)
