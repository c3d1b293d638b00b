"""The assembled network and its file."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gald
from gald.errors import ModelError
from gald.models import weights
from gald.models.backbone._features import IMAGENET
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import AuxHead, Choice, ModelParams

CLASSES = ("road", "sky", "pole")


def params(**changes) -> ModelParams:
    content = {
        "backbone": Choice(name="tiny", width=16, stem_width=8),
        "channels": 16,
        "aggregation": Choice(name="psp"),
        "aggregation_stride": 1,
        "distribution": Choice(name="affinity"),
        "aux_head": AuxHead(channels=8, relu=True, dropout=0.1),
        "align_corners": True,
    }
    return ModelParams(**{**content, **changes})


@pytest.fixture
def model() -> Segmentor:
    return build_segmentor(params(), 3)


@pytest.mark.parametrize("size", [(48, 64), (33, 57)])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_named_and_at_the_inputs_size_whatever_the_mode(model, size, training):
    model.train(training)
    images = torch.rand(2, 3, *size)
    output = model(images)
    assert output.logits.shape == (2, 3, *size)
    assert output.logits.dtype == torch.float32
    assert output.aux_logits is None
    assert model(images, with_aux=True).aux_logits.shape == (2, 3, *size)


def test_asking_for_auxiliary_logits_changes_no_main_logit(model):
    images = torch.rand(2, 3, 32, 48)
    model.eval()
    torch.testing.assert_close(model(images).logits, model(images, with_aux=True).logits, rtol=0, atol=0)


def test_auxiliary_logits_of_a_model_without_are_refused():
    model = build_segmentor(params(aux_head=None), 3)
    assert model(torch.rand(2, 3, 32, 48)).aux_logits is None
    with pytest.raises(ModelError, match="no auxiliary head"):
        model(torch.rand(2, 3, 32, 48), with_aux=True)


def test_model_normalises_its_images(model):
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 32, 48)
    model.eval()(images)
    expected = (images - torch.tensor(IMAGENET.mean).view(3, 1, 1)) / torch.tensor(IMAGENET.std).view(3, 1, 1)
    torch.testing.assert_close(seen[0], expected)


def test_backbone_feature_comes_first_in_the_concatenation(model):
    seen = []
    model.head.fuse.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = model.eval().backbone(torch.rand(1, 3, 32, 48))
    model.head(features.main)
    torch.testing.assert_close(seen[0][:, :16], features.main)


def test_auxiliary_head_without_relu_lets_negative_features_pass():
    model = build_segmentor(params(aux_head=AuxHead(channels=8, relu=False, dropout=0.0)), 3)
    assert model.aux_head.transform(torch.randn(2, 16, 8, 8)).min() < 0


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(1, 3, 32, 48, dtype=torch.uint8), r"images are uint8 of shape \(1, 3, 32, 48\); a"),
        (torch.zeros(1, 32, 48, 3), r"images are float32 of shape \(1, 32, 48, 3\)"),
        (torch.zeros(1, 1, 32, 48), r"images are float32 of shape \(1, 1, 32, 48\)"),
        (torch.zeros(3, 32, 48), r"images are float32 of shape \(3, 32, 48\)"),
    ],
    ids=["bytes", "channels last", "grey", "no batch"],
)
def test_images_that_would_be_answered_by_nonsense_are_refused(model, images, said):
    with pytest.raises(ModelError, match=said):
        model.eval()(images)


def test_same_seed_draws_the_same_network():
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_segmentor(params(), 3).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_every_parameter_learns():
    model = build_segmentor(params(), 3)
    output = model(torch.rand(2, 3, 32, 48), with_aux=True)
    (output.logits.square().mean() + output.aux_logits.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_saved_and_loaded_is_the_same_model(model, tmp_path):
    images = torch.rand(2, 3, 32, 48)
    model(images)  # moves the running statistics, which are part of the model
    weights.save(tmp_path / "w.safetensors", model, params(), CLASSES)
    loaded = gald.load(tmp_path / "w.safetensors")
    assert not loaded.training
    assert loaded.class_names == CLASSES
    torch.testing.assert_close(loaded(images).logits, model.eval()(images).logits, rtol=0, atol=0)


def test_equal_weights_give_equal_bytes(model, tmp_path):
    for name in ("a", "b"):
        weights.save(tmp_path / name, model, params(), CLASSES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loading_fetches_no_pretrained_weights(tmp_path, monkeypatch):
    backbone = Choice(name="timm", model="tf_efficientnet_lite0", pretrained="package", fuse="add", fuse_channels=16)
    described = params(backbone=backbone)
    model = build_segmentor(described, 3)
    assert model.coverage["loaded"] == 240
    weights.save(tmp_path / "w.safetensors", model, described, CLASSES)
    monkeypatch.setattr("gald.models.backbone.timm.from_package", lambda *_: pytest.fail("fetched again"))
    loaded = weights.load(tmp_path / "w.safetensors")
    name = "backbone.network.conv_stem.weight"
    assert torch.equal(loaded.state_dict()[name], model.state_dict()[name])


def test_truncated_altered_and_missing_files_are_refused(model, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelError, match="no weights at"):
        weights.load(path)
    weights.save(path, model, params(), CLASSES)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:5], b"", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(
            ModelError, match=r"damaged or no safetensors file .*; give a \.safetensors file written by"
        ):
            weights.load(path)


def test_foreign_file_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="not written by gald"):
        weights.load(tmp_path / "w.safetensors")


def test_tensors_that_do_not_fit_are_named(model, tmp_path):
    path = tmp_path / "w.safetensors"
    model.extra = torch.nn.Linear(1, 1)
    weights.save(path, model, params(aux_head=None, channels=24), CLASSES)
    with pytest.raises(
        ModelError, match=r"unknown aux_head\..*extra\.bias.*another shape or type head\.after\.0\.weight"
    ):
        weights.load(path)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_named(model, tmp_path, dtype):
    path, name = tmp_path / "w.safetensors", "head.after.1.running_var"
    weights.save(path, model, params(), CLASSES)
    with safe_open(path, framework="pt") as file:
        state, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    save_file(state | {name: state[name].to(dtype)}, path, metadata=metadata)
    with pytest.raises(ModelError, match=f"of another shape or type {re.escape(name)}"):
        weights.load(path)
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    save_file(halves, path, metadata=metadata)
    assert weights.load(path).head.after[1].running_var.dtype == torch.float32


def test_other_classes_are_refused(model, tmp_path):
    path = tmp_path / "w.safetensors"
    weights.save(path, model, params(), CLASSES)
    assert weights.load(path, classes=CLASSES).num_classes == 3
    with pytest.raises(ModelError, match="class 1 is 'sky', wanted is 'car'"):
        weights.load(path, classes=("road", "car", "pole"))
    with pytest.raises(ModelError, match="3 classes, 2 are wanted"):
        weights.load(path, classes=("road", "sky"))
    with pytest.raises(ModelError, match="2 class names for a model of 3"):
        weights.save(path, model, params(), ("road", "sky"))


@pytest.mark.parametrize("classes", [0, 256])
def test_more_classes_than_a_mask_tells_apart_are_refused(classes):
    with pytest.raises(ModelError, match=f"{classes} classes; masks have 8 bits"):
        build_segmentor(params(), classes)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("{not json", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"classes": ["a"]}', "KeyError: 'model'"),
        ('{"classes": ["a"], "model": {}}', "KeyError: 'backbone'"),
        ('{"classes": "abc", "model": MODEL}', "no list of names"),
        ('{"classes": ["a"], "model": {"newer": 1, "backbone": {"name": "tiny"}}}', "newer: unknown key"),
        ('{"classes": ["a"], "model": MODEL}', "'tiny' has no option 'newer'"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused_with_file_and_version(model, tmp_path, header, said):
    path = tmp_path / "w.safetensors"
    described = params().model_dump_json()
    if "MODEL" in header and '["a"]' in header:
        described = described.replace('"name":"tiny"', '"name":"tiny","newer":1')
    save_file({"x": torch.zeros(1)}, path, metadata={"gald": header.replace("MODEL", described)})
    with pytest.raises(ModelError, match=rf"w\.safetensors: this gald, {gald.__version__}, .*{said}"):
        gald.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head.classifier.bias", float("nan")),
        ("head.before.0.weight", float("inf")),
        ("head.after.1.running_var", -1.0),
    ],
)
def test_weights_that_predict_nothing_are_refused_by_name(model, tmp_path, name, value):
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] = value
    weights.save(tmp_path / "w.safetensors", model, params(), CLASSES)
    with pytest.raises(ModelError, match=rf"w\.safetensors would predict nothing of use: .*numbers of {name};"):
        weights.load(tmp_path / "w.safetensors")


def test_a_file_of_a_network_that_cannot_be_built_is_named(tmp_path):
    header = json.dumps({"classes": [str(index) for index in range(256)], "model": params().model_dump(mode="json")})
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors", metadata={"gald": header})
    with pytest.raises(ModelError, match=r"w\.safetensors: its network cannot be built: 256 classes"):
        gald.load(tmp_path / "w.safetensors")
