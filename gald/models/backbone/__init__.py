"""Backbones, one file each: images to features at a stated output stride."""
