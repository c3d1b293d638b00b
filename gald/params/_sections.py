"""The sections of a run's params: every key, its type, its unit, and what cannot be combined.

Defaults live in ``params/base.yaml`` alone, so that a reader finds each value in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from gald import plugins
from gald.datasets import load_spec
from gald.errors import DatasetError, ParamsError

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[PositiveInt, PositiveInt]


class Section(BaseModel):
    """Base of all sections: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Choice(Section):
    """A plugin by file name, with its options beside the name: ``{name: psp, bins: [1, 2, 3, 6]}``."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Options given, by name; lists are tuples, as the plugin's signature says."""
        extra = self.model_extra or {}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in extra.items()}


def _checked(kind: str) -> Callable[[Choice], Choice]:
    """Hold a choice against the signature of its plugin's ``build``; return it with every default filled in."""

    def check(choice: Choice) -> Choice:
        try:
            options = plugins.signature(f"models/{kind}", choice.name)
        except ParamsError as error:
            raise _refusal("name", str(error)) from error
        for key in choice.options:
            if key not in options:
                raise _refusal(key, f"{choice.name!r} has no option {key!r}; {plugins.nearest(key, options)}")
        filled = {key: _option(choice, key, option) for key, option in options.items()}
        return Choice.model_validate({"name": choice.name, **filled})

    return check


def _option(choice: Choice, key: str, option: plugins.Option) -> Any:
    if key not in choice.options and option.required:
        raise _refusal("name", f"{choice.name!r} needs the option {key!r}")
    value = choice.options.get(key, option.default)
    try:
        return TypeAdapter(option.annotation).validate_python(value, strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise _refusal(key, f"found {value!r}; {message[0].lower()}{message[1:]}") from None


def _refusal(key: str, message: str) -> PydanticCustomError:
    """Error at one key of a choice, which pydantic itself would place at the choice as a whole."""
    return PydanticCustomError("value_error", "{message}", {"message": message, "at": key})


Backbone = Annotated[Choice, AfterValidator(_checked("backbone"))]
Aggregation = Annotated[Choice, AfterValidator(_checked("aggregation"))]
Distribution = Annotated[Choice, AfterValidator(_checked("distribution"))]


class DownloadParams(Section):
    """How raw data comes to be; shared by all suites of an edition."""

    seed: NonNegativeInt  # of the miniature benchmarks' scenes
    sources: dict[str, str]  # dataset -> published form; a dataset that is not named takes its usual one

    @model_validator(mode="after")
    def _check(self) -> DownloadParams:
        for dataset, source in self.sources.items():
            try:
                load_spec(dataset, source)
            except DatasetError as error:
                raise ValueError(f"sources: {error}") from error
        return self

    def source(self, dataset: str) -> str:
        """Published form that a dataset is taken from."""
        return self.sources.get(dataset) or load_spec(dataset).source


class PrepareParams(Section):
    """How raw data becomes images and trainId masks; shared by all suites of an edition."""

    processes: PositiveInt | None  # null = one for each core; their number changes nothing that is made
    on_error: Literal["stop", "skip"]  # what a sample that cannot be read does to the benchmark
    store: Literal["packed", "files"]  # what training reads; see README


class AuxHead(Section):
    """Auxiliary head on the backbone's last but one stage."""

    channels: PositiveInt
    relu: bool  # the authors' DualGCN nets have none
    dropout: Fraction  # of whole channels


class ModelParams(Section):
    """The network: backbone, neck with the aggregation-then-distribution block, heads."""

    backbone: Backbone
    channels: PositiveInt  # width of the neck and of the block
    aggregation: Aggregation
    aggregation_stride: Literal[1, 2]  # 2: the authors' unpadded depthwise downsampling around the aggregation
    distribution: Distribution
    aux_head: AuxHead | None
    align_corners: bool  # of every resize in the network


class LossParams(Section):
    """Pixel loss of the main head; `threshold` and `min_kept` matter to OHEM only."""

    name: Literal["cross_entropy", "ohem"]
    threshold: Fraction  # pixels whose true class scores above it count as easy
    min_kept: PositiveInt  # pixels kept per batch at least


class PhotometricParams(Section):
    """Largest changes of an image's colours; each is drawn uniformly, and 0 leaves them as they are."""

    brightness: Fraction  # relative
    contrast: Fraction  # relative
    saturation: Fraction  # relative
    hue: Annotated[float, Field(ge=0, le=0.5)]  # in turns of the colour circle


class TrainParams(Section):
    """The training recipe."""

    seed: NonNegativeInt
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    image_size: Size | None  # (height, width) every sample is resized to first; null = as prepared
    crop_size: Size  # (height, width)
    scale_range: tuple[PositiveFloat, PositiveFloat]
    flip: bool
    photometric: PhotometricParams
    max_class_ratio: Annotated[float, Field(gt=0, le=1)]  # of one class in a crop, else another is drawn; 1 = any crop
    batch_size: PositiveInt
    max_iters: PositiveInt
    learning_rate: PositiveFloat
    head_learning_rate_factor: PositiveFloat
    momentum: Fraction
    weight_decay: NonNegativeFloat
    power: PositiveFloat  # of the poly schedule
    warmup_iters: NonNegativeInt
    loss: LossParams
    aux_weight: NonNegativeFloat
    device: Literal["cpu", "cuda"]
    threads: PositiveInt  # of one CPU process; other counts give other bits
    workers: NonNegativeInt  # loader threads beside the training's own; they do not change a bit
    log_every: PositiveInt  # iterations
    checkpoint_every: PositiveInt  # iterations

    @model_validator(mode="after")
    def _check(self) -> TrainParams:
        if self.scale_range[0] > self.scale_range[1]:
            raise ValueError(f"scale_range: the lower bound {self.scale_range[0]} exceeds {self.scale_range[1]}")
        if self.warmup_iters >= self.max_iters:
            raise ValueError(f"warmup_iters {self.warmup_iters} must stay below max_iters {self.max_iters}")
        return self


class EvaluateParams(Section):
    """How a run is scored; a number never travels without it."""

    split: str
    image_size: Size | None  # the network's input (height, width); scores are at the mask's own size. null = native
    boundary_width: PositiveInt  # pixels on each side of a boundary between classes
    gallery: NonNegativeInt  # samples whose predicted masks are kept as pictures
    threads: PositiveInt
