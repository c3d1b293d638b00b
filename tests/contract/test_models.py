"""What every plugin file of the networks must keep; a new file is tested by being there."""

import ast
import importlib
import inspect
import re
import typing
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gald import plugins
from gald.models.backbone._features import Channels, Features

CHANNELS = 16  # divisible by every default number of groups, heads and grids
REQUIRED = {"timm": {"model": "resnet18"}}  # values for options without a default
PLUGINS = [
    (kind, name) for kind in ("backbone", "aggregation", "distribution") for name in plugins.available(f"models/{kind}")
]
BLOCKS = [(kind, name) for kind, name in PLUGINS if kind != "backbone"]
BACKBONES = [name for kind, name in PLUGINS if kind == "backbone"]


def choices(kind: str, name: str) -> Iterator[dict[str, object]]:
    """Each value of each option that is a choice, but the defaults."""
    for option, said in plugins.signature(f"models/{kind}", name).items():
        is_choice = said.annotation is bool or typing.get_origin(said.annotation) is typing.Literal
        values = (False, True) if said.annotation is bool else typing.get_args(said.annotation)
        yield from ({option: value} for value in values if is_choice and value != said.default)


pytestmark = pytest.mark.filterwarnings("ignore:distribution mask")


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def build(kind: str, name: str, **options: object) -> nn.Module:
    """Build a plugin with its defaults, but nothing that starts at zero, which may cut gradients off."""
    given = () if kind == "backbone" else (CHANNELS,)
    off = {"zero_start": False} if "zero_start" in plugins.signature(f"models/{kind}", name) else {}
    module = plugins.load(f"models/{kind}", name)(*given, **off | REQUIRED.get(name, {}) | options)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return module


def features(kind: str, size: tuple[int, int], seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of a block: one feature for an aggregation, two for a distribution."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(2, CHANNELS, *size, generator=generator, requires_grad=True)
        for _ in range(2 if kind == "distribution" else 1)
    )


@pytest.mark.parametrize("size", [(24, 48), (17, 23), (15, 15)])
@pytest.mark.parametrize(("kind", "name"), BLOCKS)
def test_shape_goes_out_as_it_comes_in(kind, name, size):
    inputs = features(kind, size)
    output = build(kind, name)(*inputs)
    assert output.shape == inputs[0].shape
    assert output.dtype == torch.float32
    assert output.isfinite().all()


@pytest.mark.parametrize(("kind", "name"), BLOCKS)
def test_gradients_reach_every_parameter_and_the_aggregated_feature(kind, name):
    module, inputs = build(kind, name), features(kind, (17, 23))
    module(*inputs).square().mean().backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.dim() == 1 or parameter.grad.abs().max() > 0, parameter_name  # a norm voids a bias before it
    assert inputs[-1].grad.abs().max() > 0


@pytest.mark.parametrize(
    ("kind", "name", "option"), [(*block, option) for block in BLOCKS for option in choices(*block)]
)
@pytest.mark.parametrize("least", [1, 1 << 40], ids=["recomputed", "kept"])
def test_every_choice_of_every_option_trains(monkeypatch, kind, name, option, least):
    monkeypatch.setattr("gald.models._recompute.LEAST_ELEMENTS", least)
    inputs = features(kind, (17, 23))
    build(kind, name, **option)(*inputs).square().mean().backward()
    assert inputs[-1].grad.isfinite().all()


@pytest.mark.parametrize(("kind", "name"), BLOCKS)
def test_same_seed_same_bits(kind, name):
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        module, inputs = build(kind, name), features(kind, (17, 23))
        output = module(*inputs)
        output.square().mean().backward()
        results.append([output, *(parameter.grad for parameter in module.parameters())])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


@pytest.mark.parametrize(("kind", "name"), BLOCKS)
def test_evaluation_treats_images_one_by_one(kind, name):
    module, inputs = build(kind, name).eval(), features(kind, (17, 23))
    alone = module(*(feature[:1] for feature in inputs))
    torch.testing.assert_close(module(*inputs)[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), BLOCKS)
def test_inputs_are_left_as_they_were(kind, name):
    inputs = features(kind, (17, 23))
    before = [feature.detach().clone() for feature in inputs]
    build(kind, name)(*inputs)
    assert all(torch.equal(feature, copy) for feature, copy in zip(inputs, before, strict=True))


@pytest.mark.parametrize(("kind", "name"), BLOCKS)
@pytest.mark.parametrize("factor", [0.0, 1e3])
def test_constant_and_large_inputs_keep_gradients_finite(kind, name, factor):
    module = build(kind, name)
    inputs = [(factor * feature.detach()).requires_grad_() for feature in features(kind, (17, 23))]
    module(*inputs).square().mean().backward()
    assert inputs[-1].grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(("kind", "name"), BLOCKS)
def test_channels_last_changes_nothing(kind, name):
    module, inputs = build(kind, name).eval(), features(kind, (17, 23))
    last = [feature.detach().contiguous(memory_format=torch.channels_last) for feature in inputs]
    torch.testing.assert_close(module(*last), module(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_says_its_channels_and_keeps_its_stride(name):
    module = build("backbone", name).eval()
    stride = plugins.signature("models/backbone", name)["output_stride"].default
    assert isinstance(module.channels, Channels)
    assert module.coverage is None
    for height, width in ((96, 128), (65, 97)):
        with torch.no_grad():
            output = module(torch.randn(1, 3, height, width))
        assert isinstance(output, Features)
        assert (output.main.shape[1], output.aux.shape[1]) == module.channels
        for side, of_image in zip(output.main.shape[2:], (height, width), strict=True):
            assert side - -(-of_image // stride) in (0, 1)  # pooling that rounds up may leave one position more


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_options_are_named_typed_documented_and_readable_without_torch(kind, name):
    module = importlib.import_module(f"gald.models.{kind}.{name}")
    assert ast.get_docstring(ast.parse(inspect.getsource(module)))
    parameters = inspect.signature(module.build).parameters
    options = plugins.signature(f"models/{kind}", name)
    keywords = {key for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}
    assert set(options) == keywords
    assert not any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values())
    assert set(parameters) - keywords <= {"channels", "align_corners", "stride"}
    for option, said in options.items():
        assert option == option.lower()
        typed = re.search(rf"^    {option} : (.+)$", module.build.__doc__, re.MULTILINE)
        assert typed, f"{option} is not documented"
        if typing.get_origin(said.annotation) is typing.Literal:
            values = [ast.literal_eval(value) for value in re.findall(r"\"[^\"]*\"|\d+", typed[1])]
            assert values == list(typing.get_args(said.annotation)), f"{option}: documented are {typed[1]}"
        assert said.required or said.default == parameters[option].default
