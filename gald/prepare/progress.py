"""How far a prepare is: a line every few seconds with rate and time left."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping

_EVERY_S = 5.0
_log = logging.getLogger("gald")


class Progress:
    """Counts finished samples and tells the log.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    totals : mapping from str to int
        Samples of each split.
    done : mapping from str to int
        Those of them that were done before.
    """

    def __init__(self, name: str, totals: Mapping[str, int], done: Mapping[str, int]) -> None:
        self._name = name
        self._totals = totals
        self._done = Counter(done)
        self._worked = 0
        self._begun = self._told = time.monotonic()

    def count(self, split: str) -> None:
        """Note one finished sample; tell the log if it was not told for some seconds."""
        self._done[split] += 1
        self._worked += 1
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            _log.info(self.line(split, now - self._begun))

    def line(self, split: str, seconds: float) -> str:
        """Spell the state of a split, `seconds` after the beginning.

        Examples
        --------
        >>> progress = Progress("cityscapes", {"train": 2975}, {"train": 657})
        >>> for _ in range(155):
        ...     progress.count("train")
        >>> progress.line("train", 5.0)
        'cityscapes train: 812 of 2975, 31 images/s, 70 s left'
        """
        rate = self._worked / max(seconds, 1e-9)
        done, total = self._done[split], self._totals[split]
        return f"{self._name} {split}: {done} of {total}, {_short(rate)} images/s, {(total - done) / rate:.0f} s left"


def _short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
