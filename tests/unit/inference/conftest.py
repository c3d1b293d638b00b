from pathlib import Path

import pytest
import torch

from gald.inference import channels_last
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams, read_yaml


@pytest.fixture(scope="session")
def model() -> Segmentor:
    content = read_yaml(Path(__file__).parents[3] / "params" / "base.yaml")["model"]
    content |= {"backbone": {"name": "tiny", "width": 16, "stem_width": 8}, "channels": 16}
    torch.manual_seed(0)
    return channels_last(build_segmentor(ModelParams.model_validate(content), 5)).eval()
