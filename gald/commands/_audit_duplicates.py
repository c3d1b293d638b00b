"""Images that occur more than once: the same pixels by digest, and images that look alike by perceptual hash.

The hash is the 64-bit difference hash of the index. Two images are *near* when their hashes differ in a few bits: that
is a hint to look, not a proof. All pairs are compared, so no near pair is missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

THRESHOLD = 4
"""Bits, of 64, in which the hashes of a near pair may differ."""

_FLAT = ("0" * 16, "f" * 16)  # hash of a flat image, or of a ramp: it says nothing about what is seen
_BLOCK = 1 << 20  # pairs compared at once; keeps the work within the caches of a CPU

Rows = Mapping[str, Sequence[Mapping[str, str]]]


class Member(NamedTuple):
    """One sample: its split and its position there."""

    split: str
    position: int


class Group(NamedTuple):
    """Samples whose images have the same pixels.

    Attributes
    ----------
    members : tuple of Member
        At least two, in order of split and position.
    across : bool
        They lie in more than one split.
    same_mask : bool
        Those that have masks have the same one.
    """

    members: tuple[Member, ...]
    across: bool
    same_mask: bool


class NearPairs(NamedTuple):
    """Near pairs of two splits.

    Attributes
    ----------
    first, second : str
        The splits.
    total : int
        How many pairs there are.
    closest : list of (int, int, int)
        Distance in bits, position in `first`, position in `second`; the closest pairs, in ascending order.
    """

    first: str
    second: str
    total: int
    closest: list[tuple[int, int, int]]


def exact(rows: Rows) -> list[Group]:
    """Group the samples whose images are the same, pixel by pixel.

    Parameters
    ----------
    rows : mapping from str to sequence of mapping
        Index rows by split.

    Returns
    -------
    list of Group
        Those across splits first, each kind in order of its first member.
    """
    found: dict[str, list[Member]] = {}
    for split, samples in rows.items():
        for position, row in enumerate(samples):
            found.setdefault(row["image_sha256"], []).append(Member(split, position))
    groups = []
    for members in found.values():
        if len(members) > 1:
            masks = {rows[split][position]["mask_sha256"] for split, position in members} - {""}
            groups.append(Group(tuple(members), len({split for split, _ in members}) > 1, len(masks) < 2))
    return sorted(groups, key=lambda group: not group.across)


def near(rows: Rows, most: int) -> list[NearPairs]:
    """Find pairs across splits whose images look alike without being the same.

    Parameters
    ----------
    rows : mapping from str to sequence of mapping
        Index rows by split.
    most : int
        Pairs to keep for each two splits.

    Returns
    -------
    list of NearPairs
        For each two splits, in order.
    """
    found = []
    for first, second in combinations(rows, 2):
        left, right = hashed(rows[first]), hashed(rows[second])
        digests = [
            np.array([rows[s][i]["image_sha256"] for i in part], dtype="U64")
            for s, part in ((first, left), (second, right))
        ]
        total, closest = compare(
            np.array([int(rows[first][i]["dhash"], 16) for i in left], dtype=np.uint64),
            np.array([int(rows[second][i]["dhash"], 16) for i in right], dtype=np.uint64),
            (digests[0], digests[1]),
            most,
        )
        found.append(NearPairs(first, second, total, [(bits, left[i], right[j]) for bits, i, j in closest]))
    return found


def hashed(rows: Sequence[Mapping[str, str]]) -> list[int]:
    """Positions of the samples whose hash tells something: not those of flat images."""
    return [index for index, row in enumerate(rows) if row["dhash"] not in _FLAT]


def compare(
    first: npt.NDArray[np.uint64],
    second: npt.NDArray[np.uint64],
    digests: tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]],
    most: int,
) -> tuple[int, list[tuple[int, int, int]]]:
    """Compare each hash of `first` with each of `second`.

    Parameters
    ----------
    first, second : ndarray of uint64, shapes (n,) and (m,)
        Hashes.
    digests : pair of ndarray of str, shapes (n,) and (m,)
        Digests of the images; pairs of equal ones are passed over.
    most : int
        Pairs to keep.

    Returns
    -------
    total : int
        Pairs that differ in at most `THRESHOLD` bits.
    closest : list of (int, int, int)
        Distance and the two positions, in ascending order.
    """
    total, kept = 0, np.empty((0, 3), dtype=np.int64)
    step = max(1, _BLOCK // max(1, len(second)))
    for start in range(0, len(first), step):
        distances = np.bitwise_count(first[start : start + step, None] ^ second[None, :])
        i, j = np.nonzero(distances <= THRESHOLD)
        hits = np.stack([distances[i, j], i + start, j], axis=1).astype(np.int64)
        hits = hits[digests[0][hits[:, 1]] != digests[1][hits[:, 2]]]
        total += len(hits)
        kept = np.concatenate([kept, hits])
        kept = kept[np.lexsort(kept.T[::-1])][:most]
    return total, [(int(bits), int(i), int(j)) for bits, i, j in kept]
