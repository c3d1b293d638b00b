"""`gald predict`: a network's answer to any pictures, as colours over the picture, as train ids, and as raw ids.

Each picture is predicted whole, at its own size. It is read as `gald prepare` reads odd images, except that EXIF's
orientation is heeded always: labels may be drawn on the pixels as stored, but who looks at a result wants it upright.
"""

from __future__ import annotations

import errno
import io
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gald import files
from gald.commands._predict_files import Job, plan
from gald.commands._targets import check_folder
from gald.datasets import load_spec, names
from gald.datasets._spec import DatasetSpec
from gald.errors import ModelError, ParamsError
from gald.inference import WHOLE, for_prediction, peak_bytes
from gald.inference import predict as predict_image
from gald.models import weights as weights_file
from gald.models.segmentor import Segmentor
from gald.prepare import images
from gald.process.memory import free_bytes, is_out_of_memory

_LOG = logging.getLogger("gald.predict")
_TELL_EVERY_S = 2.0
_LEAST_SIDES = (1, 16, 32, 64, 128, 256, 512)
_QUALITY = 92

Pixels = npt.NDArray[np.uint8]


def predict(
    inputs: Sequence[Path],
    weights: Path,
    out: Path,
    *,
    dataset: str | None = None,
    raw_ids: bool = False,
    device: str = "cpu",
) -> list[str]:
    """Predict pictures, folders of pictures and frames of a video.

    For each picture ``out`` gets, under its relative path, ``<stem>-overlay.jpg`` (``.png`` unless the picture is a
    JPEG), ``<stem>-mask.png`` (8-bit palette PNG of train ids) and, if asked for, ``<stem>-ids.png`` (raw ids, 8 bits,
    or 16 where ids exceed 255). Names of equal stems: see `gald.commands._predict_files.plan`.

    Parameters
    ----------
    inputs : sequence of Path
        Pictures and folders; folders are walked to their depths.
    weights : Path
        Weights that say how to build their network, for example `gald.paths.weights` of a run.
    out : Path
        Folder of the results.
    dataset : str, optional
        Benchmark of the palette and the raw ids, as ``camvid`` or ``camvid/original`` (source); by default the one that
        has the classes of the weights, and where none has them, colours are generated.
    raw_ids : bool
        Write the benchmark's raw ids too.
    device : {"cpu", "cuda"}

    Returns
    -------
    list of str
        What could not be predicted, and why, each also logged as it is met; all else is written.

    Raises
    ------
    ModelError
        The weights are missing, damaged, of other classes than `dataset`, or refuse every size.
    DatasetError
        There is no such benchmark or source, or raw ids that its classes do not determine.
    ParamsError
        No CUDA device, results among the pictures, or a file where their folder would be.
    """
    check_folder("-o", out)
    jobs, problems = plan(inputs, out)
    for problem in problems:
        _LOG.warning("%s", problem)
    predictor = Predictor(weights, dataset=dataset, raw_ids=raw_ids, device=device)
    told, done = time.monotonic(), 0
    for number, job in enumerate(jobs, 1):
        failure = predictor.write(job)
        if failure is not None:
            _LOG.warning("%s", failure)
            problems.append(failure)
        done += failure is None
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            _LOG.info("%d of %d: %s", number, len(jobs), job.image)
    _LOG.info("%s: %d of %d pictures predicted", out, done, len(jobs))
    return problems


class Predictor:
    """A loaded network with the colours and raw ids of its classes; arguments are those of `predict`."""

    def __init__(self, weights: Path, *, dataset: str | None, raw_ids: bool, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ParamsError("--device is 'cuda', but torch finds no CUDA device; leave it out")
        spec = None if dataset is None else load_spec(*dataset.split("/", 1))
        model = weights_file.load(weights, classes=None if spec is None else spec.class_names)
        forms = (form for name in names() for form in load_spec(name).sources.values())
        spec = spec or next((form for form in forms if form.class_names == model.class_names), None)
        colours = voc_palette(model.num_classes) if spec is None else spec.palette
        self.palette: Pixels = np.array(colours, dtype=np.uint8)
        self.raw_ids = _raw_ids(spec, weights) if raw_ids else None
        self.model: Segmentor = for_prediction(model.to(device))
        self._told: set[str] = set()

    @cached_property
    def least_side(self) -> int:
        """Side in pixels of the smallest square that the network takes, among a few powers of two."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of networks that take a small image, but not well
            for side in _LEAST_SIDES:
                try:
                    predict_image(self.model, np.zeros((side, side, 3), np.uint8), (side, side))
                except (ModelError, RuntimeError):  # torch's own error where a kernel is larger than a feature
                    continue
                return side
        raise ModelError(f"the network takes no image of {_LEAST_SIDES[-1]}x{_LEAST_SIDES[-1]} pixels or less")

    def write(self, job: Job) -> str | None:
        """Predict one picture; return what was wrong with it, or None."""
        try:
            image = read(job.image)
        except Exception as error:  # Pillow's plugins each have their own ways to say that a file is damaged
            return f"{job.image}: cannot be read as a picture ({images.reason(error)})"
        try:
            mask = self._mask(image)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return f"{job.image}: {self._too_large(image)}"
        try:
            self._write(job, image, mask)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return f"{job.image}: the names of its results are too long for this file system; give it a shorter name"
        return None

    def _write(self, job: Job, image: Pixels, mask: Pixels) -> None:
        """Write the results, that of the longest name first: if it is too long, none is written."""
        coloured = Image.fromarray(overlay(image, mask, self.palette))
        files.write_bytes(job.overlay, _encoded(coloured, job.overlay.suffix))
        files.write_bytes(job.mask, _encoded(_indexed(mask, self.palette), ".png"))
        if self.raw_ids is not None:
            files.write_bytes(job.ids, _encoded(Image.fromarray(self.raw_ids[mask]), ".png"))

    def _mask(self, image: Pixels) -> Pixels:
        """Train ids of an image of any size; one too small for the network is continued by its edge pixels."""
        height, width = image.shape[:2]
        free = free_bytes() if self.model.mean.device.type == "cpu" else None
        if free is not None and self._bytes_needed(image) > free:  # the system would end the process instead of failing
            raise MemoryError
        if min(height, width) < _LEAST_SIDES[-1]:
            missing = (max(0, self.least_side - height), max(0, self.least_side - width))
            image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        with self.telling_once():
            return predict_image(self.model, image, (image.shape[0], image.shape[1]))[:height, :width]

    @contextmanager
    def telling_once(self) -> Iterator[None]:
        """Pass on each warning once, which Python alone does only until somebody catches warnings."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for one in caught:
            if str(one.message) not in self._told:
                self._told.add(str(one.message))
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)

    def _bytes_needed(self, image: Pixels) -> int:
        """Least that choosing the classes of an image takes beyond the network's own, at the usual stride of 8."""
        size = (image.shape[0], image.shape[1])
        return peak_bytes(self.model.num_classes, size, size, 8, WHOLE)

    def _too_large(self, image: Pixels) -> str:
        free = free_bytes() if self.model.mean.device.type == "cpu" else torch.cuda.mem_get_info()[0]
        return (
            f"{image.shape[1]}x{image.shape[0]} pixels take more memory than there is: beside the network's own, "
            f"{self.model.num_classes} classes take {self._bytes_needed(image) / 2**30:.2f} GiB, free are "
            f"{'unknown' if free is None else f'{free / 2**30:.2f} GiB'}; predict a smaller copy, or parts of it"
        )


def read(path: Path) -> Pixels:
    """Read a picture of any kind as upright 8-bit RGB, uint8 (H, W, 3); see `gald.prepare.images.decode`.

    Raises
    ------
    ValueError
        What bears the name is no file: reading a pipe, for example, would wait for somebody to write.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    return np.asarray(images.decode(images.read(path)).upright())


def overlay(image: Pixels, mask: Pixels, palette: Pixels) -> Pixels:
    """Mix an image half and half with the colours of its classes.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
    mask : uint8 array (H, W)
        Train ids.
    palette : uint8 array (K, 3)

    Returns
    -------
    uint8 array (H, W, 3)
        Halves are rounded up.

    Examples
    --------
    >>> picture, colours = np.full((1, 2, 3), 100, np.uint8), np.array([[0, 255, 101], [100, 0, 1]], np.uint8)
    >>> overlay(picture, np.array([[0, 1]], np.uint8), colours).tolist()
    [[[50, 178, 101], [100, 50, 51]]]
    """
    return ((image.astype(np.uint16) + palette[mask] + 1) // 2).astype(np.uint8)


def voc_palette(count: int) -> list[tuple[int, int, int]]:
    """Generate distinct colours as PASCAL VOC does: bits of the index, dealt out to the channels from the top.

    VOC's first colour, black, stands for its background and is left out.

    Examples
    --------
    >>> voc_palette(4)
    [(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    """
    return [(_dealt(index, 0), _dealt(index, 1), _dealt(index, 2)) for index in range(1, count + 1)]


def _dealt(index: int, channel: int) -> int:
    return sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(8))


def _raw_ids(spec: DatasetSpec | None, weights: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Raw id of each train id."""
    if spec is None:
        raise ParamsError(f"{weights}: its classes are of no benchmark here, so there are no raw ids; leave them out")
    ids = spec.raw_ids()
    return ids.astype(np.uint8) if ids.max() < 256 else ids


def _indexed(mask: Pixels, palette: Pixels) -> Image.Image:
    picture = Image.fromarray(mask)
    picture.putpalette(palette.tobytes())
    return picture


def _encoded(picture: Image.Image, suffix: str) -> bytes:
    out = io.BytesIO()
    if suffix == ".jpg":
        picture.save(out, format="JPEG", quality=_QUALITY)
    else:
        picture.save(out, format="PNG")
    return out.getvalue()
