"""Typed, frozen parameters: from YAML layers to validated runs, without importing torch.

A run is five layers, later ones winning: ``base.yaml``, its recipe (either may say more for one benchmark), its suite's
overrides, its table row, and what the suite adjusts in that row; a note under the table tells of it. The merged result
is validated once and written out beside the run.
"""

from gald.params._merge import Layer, Merged, read_yaml
from gald.params._names import suite_names, suites_of_scale
from gald.params._paper import paper_params
from gald.params._protocols import load_protocol
from gald.params._run_params import RunParams, one_value_of_a_sample
from gald.params._runs import Run
from gald.params._scores import COSTS, SCORES, WIDTHS
from gald.params._sections import (
    AuxHead,
    Box,
    Choice,
    DownloadParams,
    EvaluateParams,
    LossParams,
    ModelParams,
    PhotometricParams,
    PrepareParams,
    ProtocolParams,
    Section,
    TrainParams,
    ValidationParams,
    input_in_words,
)
from gald.params._suites import (
    Suite,
    data_params,
    find_run,
    load_suite,
    validate_suite,
)
from gald.params._tables import Cell, Comparison, Contrast, Published, PublishedProtocol, Table, load_table

__all__ = [
    "COSTS",
    "SCORES",
    "WIDTHS",
    "AuxHead",
    "Box",
    "Cell",
    "Choice",
    "Comparison",
    "Contrast",
    "DownloadParams",
    "EvaluateParams",
    "Layer",
    "LossParams",
    "Merged",
    "ModelParams",
    "PhotometricParams",
    "PrepareParams",
    "ProtocolParams",
    "Published",
    "PublishedProtocol",
    "Run",
    "RunParams",
    "Section",
    "Suite",
    "Table",
    "TrainParams",
    "ValidationParams",
    "data_params",
    "find_run",
    "input_in_words",
    "load_protocol",
    "load_suite",
    "load_table",
    "one_value_of_a_sample",
    "paper_params",
    "read_yaml",
    "suite_names",
    "suites_of_scale",
    "validate_suite",
]
