"""The two files that a traced network becomes, in memory, each with the runtime that reads it."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from gald.errors import GaldError, ParamsError

FORMATS = {".onnx": "ONNX", ".pt2": "torch.export"}
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OLDEST = 18  # what torch's operators are written in; older ones would be converted, perhaps
_NOTE = "gald.json"
_INPUT, _OUTPUT = "images", "logits"
_AXES = {0: "batch", 2: "height", 3: "width"}


class Written(NamedTuple):
    """A file's bytes, a function that runs them, further words for the report, and how a user loads the file."""

    content: bytes
    run: Callable[[Tensor], Tensor]
    details: str
    usage: tuple[str, ...]


def check_packages(opset: int | None) -> None:
    """Refuse ONNX before any work.

    Raises
    ------
    GaldError
        A package is not installed.
    ParamsError
        The opset is not one that can be written.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise GaldError(
            f"ONNX needs {', '.join(missing)}, not installed here: pip install -c constraints.txt -e '.[export]'; "
            "torch.export (a file ending in .pt2) needs nothing"
        )
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not _OLDEST <= opset <= newest:
        raise ParamsError(f"--opset is {opset}; {_OLDEST} to {newest} can be written here")


def failures() -> tuple[type[Exception], ...]:
    """Errors by which an exported file says that it cannot run."""
    found: tuple[type[Exception], ...] = (RuntimeError, AssertionError, ValueError, TypeError, KeyError)
    if importlib.util.find_spec("onnxruntime") is None:
        return found
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
    )
    return found + tuple(getattr(state, name) for name in names)


def write_onnx(program: ExportedProgram, note: dict[str, str], opset: int | None) -> Written:
    """Make an ONNX file of a traced network; equal programs give equal bytes.

    Parameters
    ----------
    program : ExportedProgram
        From images to logits.
    note : dict of str to str
        Becomes the model's metadata.
    opset : int or None
        Version of ONNX's operators; torch's default if None.

    Returns
    -------
    Written
        Run by onnxruntime on the CPU.

    Raises
    ------
    ParamsError
        The network cannot be written in this opset.
    GaldError
        It has an operator that ONNX does not have, or exceeds the 2 GB of one ONNX file.
    """
    names = {_INPUT: _AXES} if program.range_constraints else None
    try:
        made: Any = torch.onnx.export(
            program,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_shapes=names,
            opset_version=opset,
            verbose=False,
            dynamo=True,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise GaldError(
            f"torch cannot write this network as ONNX; export it to a .pt2 file instead ({error})"
        ) from error
    proto = made.model_proto
    version = next(one.version for one in proto.opset_import if one.domain == "")
    if opset is not None and version != opset:
        raise ParamsError(f"--opset is {opset}, but this network needs {version}; leave --opset out")
    _annotate(proto, note)
    try:
        content: bytes = proto.SerializeToString(deterministic=True)
    except ValueError as error:
        raise GaldError("the network exceeds the 2 GB of one ONNX file; export it to a .pt2 file instead") from error
    usage = ('session = onnxruntime.InferenceSession("{file}")', '(logits,) = session.run(None, {{"images": images}})')
    return Written(content, _onnx_runner(content), f", opset {version}", usage)


def _annotate(proto: Any, note: dict[str, str]) -> None:
    """Put the note where ONNX has its metadata, in the place of what the exporter noted for itself.

    Which lines of which files an operator came from is nobody's business but the developer's, and half of the file.
    """
    import onnx

    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
    for function in proto.functions:
        for node in function.node:
            del node.metadata_props[:]
    onnx.helper.set_model_props(proto, note)
    proto.doc_string = f"Semantic segmentation. {note['input']}"


def _onnx_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised, and need not be printed too
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([_OUTPUT], {_INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return run


def write_program(program: ExportedProgram, note: dict[str, str]) -> Written:
    """Make a file of `torch.export.save`, with the note beside the program as ``gald.json``.

    Parameters
    ----------
    program : ExportedProgram
        From images to logits.
    note : dict of str to str
        Goes into the file.

    Returns
    -------
    Written
        Run by torch, as loaded from the bytes.

    Raises
    ------
    GaldError
        torch cannot write the program, or not read what it wrote.
    """
    buffer = io.BytesIO()
    try:
        torch.export.save(program, buffer, extra_files={_NOTE: json.dumps(note, indent=2, ensure_ascii=False)})
        content = buffer.getvalue()
        loaded: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # its serialiser passes on whatever an expression of sizes makes it raise
        raise GaldError(
            "torch.export cannot write this network and read it back; nothing was written; export it for one size with "
            f"--static --size HEIGHT WIDTH, or as ONNX ({type(error).__name__}: {str(error).strip()[:200]})"
        ) from error
    usage = ('network = torch.export.load("{file}").module()', "logits = network(images)")
    return Written(content, loaded, "", usage)
