"""Evaluate stage: from a trained run to its predictions and metrics."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see gald.train
