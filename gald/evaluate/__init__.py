"""Evaluate stage: from a trained run to its predictions and metrics."""
