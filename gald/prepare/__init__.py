"""Prepare stage: from unpacked archives to images, trainId masks and their manifest."""

CONVERTER = 2
"""Version of what this stage makes of the same raw files; part of the manifest, and of what makes it again."""
