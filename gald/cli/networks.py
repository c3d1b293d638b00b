"""Verbs of networks: predict, explain, export, export-weights, import-weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gald.cli._verb import RUN, Verb
from gald.errors import GaldError, ParamsError

_OUT = "of the results "
_AT = "pixel whose window is drawn, may be given several times; some telling ones if not given"
RELEASED = ("dualgcn_res101", "dualgcn_res50", "gald_res101", "gald_res50")


def add(verb: Verb) -> None:
    """Declare the verbs of networks."""
    one = verb("predict", _predict, "predict pictures: colours over them, train ids, raw ids")
    one.add_argument("inputs", metavar="IMAGE|FOLDER", nargs="+", type=Path, help="pictures of any format and size")
    _add_source(one)
    one.add_argument("-o", "--out", type=Path, metavar="FOLDER", default=Path("predicted"), help=_OUT + "(predicted)")
    one.add_argument(
        "--dataset", metavar="NAME", help="benchmark of colours and raw ids, for example camvid or camvid/original"
    )
    one.add_argument("--raw-ids", action="store_true", help="also write the benchmark's raw ids")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to compute on (cpu)")
    _add_explain(verb)
    _add_export(verb)
    one = verb("export-weights", _export_weights, "copy a trained run's weights to one file for gald.load")
    one.add_argument("run", metavar="RUN", help=RUN)
    one.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="to write: .safetensors")
    one.add_argument("--best", action="store_true", help="the weights that validated best, not the last ones")
    one = verb("import-weights", _import_weights, "make a weights file of the authors' released checkpoint")
    one.add_argument("file", type=Path, metavar="FILE.pth", help="as the authors released it")
    one.add_argument("--net", required=True, metavar="NAME", choices=RELEASED, help="one of " + ", ".join(RELEASED))
    one.add_argument("--classes", type=int, metavar="K", default=19, help="of the checkpoint (19)")
    one.add_argument("-o", "--out", type=Path, metavar="FILE", required=True, help="weights file to write")
    one.add_argument("--rgb", action=argparse.BooleanOptionalAction, help="trained with `--rgb 1`; else as released")


def _add_explain(verb: Verb) -> None:
    one = verb("explain", _explain, "draw what the distribution of a network does to one picture")
    one.add_argument("image", metavar="IMAGE", type=Path, help="a picture of any format and size")
    _add_source(one)
    one.add_argument("-o", "--out", type=Path, metavar="FOLDER", default=Path("explained"), help=_OUT + "(explained)")
    one.add_argument("--at", type=int, nargs=2, action="append", metavar=("ROW", "COLUMN"), help=_AT)
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to compute on (cpu)")


def _add_export(verb: Verb) -> None:
    one = verb("export", _export, "write a network as ONNX or as a torch.export program, and check it")
    one.add_argument("network", metavar="RUN|FILE", help="a trained run, or a weights file")
    one.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="to write: .onnx or .pt2")
    one.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the image it is traced with")
    one.add_argument("--static", action="store_true", help="fix batch, height and width to those of the trace")
    one.add_argument(
        "--opset", type=int, metavar="N", help="version of ONNX operators; torch's own choice if not given"
    )


def _add_source(one: argparse.ArgumentParser) -> None:
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help=f"a trained run, {RUN}")
    source.add_argument("--weights", type=Path, metavar="FILE", help="a weights file, whatever its name")


def _weights_of(run: str) -> Path:
    """Weights of a run, which need not be of any suite here; a misspelt name is answered with the nearest."""
    from gald import paths, plugins

    weights = paths.weights(run)
    known = ["/".join(other.parts[-4:-1]) for other in Path().glob(str(paths.weights("*/*/*")))]
    if known and not weights.is_file():
        raise ParamsError(f"no run {run!r} is trained here; {plugins.nearest(run, known)}")
    return weights


def _predict(args: argparse.Namespace) -> None:
    from gald.commands.predict import predict

    weights = args.weights or _weights_of(args.run)
    problems = predict(args.inputs, weights, args.out, dataset=args.dataset, raw_ids=args.raw_ids, device=args.device)
    if problems:
        raise GaldError(f"{len(problems)} of the inputs could not be predicted; they are named above")


def _explain(args: argparse.Namespace) -> None:
    from gald.commands.explain import explain

    weights = args.weights or _weights_of(args.run)
    at = [(row, column) for row, column in args.at or ()]
    sys.stdout.write(explain(args.image, weights, args.out, at=at, device=args.device))


def _export(args: argparse.Namespace) -> None:
    from gald.commands.export import export

    file = Path(args.network)
    weights = file if file.is_file() or file.suffix == ".safetensors" else _weights_of(args.network)
    size = args.size and (*args.size,)
    sys.stdout.write(export(weights, args.out, size=size, static=args.static, opset=args.opset))


def _export_weights(args: argparse.Namespace) -> None:
    from gald.commands.export_weights import export_weights
    from gald.params import find_run

    sys.stdout.write(export_weights(find_run(args.run), args.out, best=args.best))


def _import_weights(args: argparse.Namespace) -> None:
    from gald.commands.import_weights import import_weights

    sys.stdout.write(import_weights(args.file, args.net, args.classes, args.out, rgb=args.rgb).rstrip() + "\n")
