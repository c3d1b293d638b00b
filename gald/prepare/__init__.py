"""Prepare stage: from unpacked archives to images, trainId masks and their manifest."""

CONVERTER = 1
"""Version of what this stage makes of the same raw files; part of the manifest, and of what makes it again."""
