"""Train stage: from a manifest and a run's params to weights, history and run.json."""

import os

# Read when torch loads OpenMP. Threads that spin while they wait cost several times the time of a step as soon as
# anything else runs on the machine; sleeping ones cost microseconds, and no bit depends on it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
