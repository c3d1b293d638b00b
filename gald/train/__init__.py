"""Train stage: from a manifest and a run's params to weights, history and run.json."""
