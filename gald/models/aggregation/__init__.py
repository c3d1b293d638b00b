"""Global aggregation, one file each: (N, C, H, W) to the same shape, every position seeing all others."""
