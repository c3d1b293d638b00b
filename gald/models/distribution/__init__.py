"""Local distribution, one file each: gives an aggregated feature back to each position by what lies there."""
