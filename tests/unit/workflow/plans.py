"""Snakemake as a user calls it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))


def snakemake(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([SNAKEMAKE, *arguments], capture_output=True, text=True, timeout=300)


def said(process: subprocess.CompletedProcess) -> str:
    return process.stdout + process.stderr  # a dry run talks on the former
