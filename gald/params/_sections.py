"""The sections of a run's params: every key, its type, its unit, and what cannot be combined.

Defaults live in ``params/base.yaml`` alone, so that a reader finds each value in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from gald import plugins
from gald.datasets import load_spec
from gald.errors import DatasetError, ParamsError
from gald.options import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

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
            filled = plugins.checked(f"models/{kind}", choice.name, choice.options)
        except plugins.OptionError as error:
            at = error.option if error.option in choice.options else "name"
            raise _refusal(at, str(error)) from error
        except ParamsError as error:
            raise _refusal("name", str(error)) from error
        return Choice.model_validate({"name": choice.name, **filled})

    return check


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
    store: Literal["packed", "files"]  # what training reads; see docs/data.md


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
    min_kept: PositiveInt  # pixels of a batch kept at least; devices and micro-batches keep an equal share of them each
    class_weights: tuple[NonNegativeFloat, ...] | None  # one for each class, of both heads
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]

    def kept_of(self, parts: int) -> int:
        """Pixels that each of so many parts of a batch keeps at least."""
        return -(-self.min_kept // parts)


class ValidationParams(Section):
    """Scores on the way; they change nothing but where a training ends early and which weights are kept as best."""

    every: NonNegativeInt  # iterations; 0: never
    split: str
    samples: PositiveInt | None  # the first ones of the split; null: all
    patience: PositiveInt | None  # validations without a better one after which the training ends; null: never


class Box(Section):
    """Sides that an image is made as large as they allow, its ratio kept: ``{long_side: 2048, short_side: 512}``."""

    long_side: PositiveInt
    short_side: PositiveInt

    @model_validator(mode="after")
    def _check(self) -> Box:
        if self.short_side > self.long_side:
            raise ValueError(f"short_side: {self.short_side} exceeds long_side {self.long_side}")
        return self

    def __str__(self) -> str:
        """Spell it for a reader."""
        return f"at most {self.long_side}x{self.short_side}, ratio kept"


def input_in_words(image_size: Size | Box) -> str:
    """Spell the size that images are resized to, for example ``360x480``."""
    return str(image_size) if isinstance(image_size, Box) else "{}x{}".format(*image_size)


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
    image_size: Size | Box | None  # (height, width), or a box, that samples are resized to first; null = as prepared
    crop_size: Size  # (height, width)
    scale_range: tuple[PositiveFloat, PositiveFloat]
    flip: bool
    photometric: PhotometricParams
    max_class_ratio: Annotated[float, Field(gt=0, le=1)]  # of one class in a crop, else another is drawn; 1 = any crop
    batch_size: PositiveInt  # of an iteration: of all devices and micro-batches together
    micro_batches: PositiveInt  # parts that a device computes one after the other (gradient accumulation)
    max_iters: PositiveInt
    optimiser: Literal["sgd", "adamw"]
    learning_rate: PositiveFloat
    head_learning_rate_factor: PositiveFloat
    momentum: Fraction  # of sgd
    betas: tuple[Fraction, Fraction]  # of adamw
    weight_decay: NonNegativeFloat
    decay_norm_and_bias: bool  # whether parameters of norms, and biases, decay too
    power: PositiveFloat  # of the poly schedule
    warmup_iters: NonNegativeInt
    clip_gradient_norm: PositiveFloat | None
    average_decay: Annotated[float, Field(gt=0, lt=1)] | None  # of the moving average of weights (EMA)
    loss: LossParams
    aux_weight: NonNegativeFloat
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bf16", "fp16"]
    channels_last: bool
    compile: bool
    activation_checkpointing: bool  # compute the backbone's blocks twice instead of keeping what is inside
    batch_norm: Literal["local", "sync", "frozen"]  # statistics of a device's own part, of all devices, or as loaded
    determinism: Literal["bitwise", "seeded"]
    threads: PositiveInt  # of one CPU process; other counts give other bits
    workers: NonNegativeInt  # loader threads beside the training's own; they do not change a bit
    validation: ValidationParams
    strict: bool  # refuse to train where the effective recipe departs from the paper's
    log_every: PositiveInt  # iterations
    checkpoint_every: PositiveInt  # iterations

    @model_validator(mode="after")
    def _check(self) -> TrainParams:
        if self.scale_range[0] > self.scale_range[1]:
            raise ValueError(f"scale_range: the lower bound {self.scale_range[0]} exceeds {self.scale_range[1]}")
        if self.warmup_iters >= self.max_iters:
            raise ValueError(f"warmup_iters {self.warmup_iters} must stay below max_iters {self.max_iters}")
        if self.batch_size % self.micro_batches:
            raise ValueError(f"micro_batches {self.micro_batches} must divide batch_size {self.batch_size}")
        return self


class ProtocolParams(Section):
    """How a class is found for each pixel of an image, under the name that stands beside every number."""

    name: str
    window: Size | None  # (height, width) of a sliding window's tiles; null = the whole image in one piece
    overlap: Annotated[float, Field(ge=0, lt=1)]  # share of a tile that the next one covers too
    average: Literal["logits", "probabilities"]  # what is averaged over tiles, scales and flips
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]  # of the input
    flip: bool  # predict the mirrored image too

    @model_validator(mode="after")
    def _check(self) -> ProtocolParams:
        if self.window is None and self.overlap:
            raise ValueError(f"overlap: {self.overlap} is of a sliding window, but window is null; set it to 0")
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales: {list(self.scales)} names a scale twice; keep one")
        return self


class EvaluateParams(Section):
    """How a run is scored; a number never travels without it."""

    split: str
    protocol: ProtocolParams  # in YAML by its name in params/protocols.yaml
    image_size: Size | Box | None  # the network's input; scores are at the mask's own size. null = native
    gallery: NonNegativeInt  # samples whose predicted masks are kept as pictures
    threads: PositiveInt
