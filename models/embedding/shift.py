"""Whether the vectors of a window are still those of the reference, and how often chance alone says not.

The statistic is the squared maximum mean discrepancy with a Gaussian kernel (Gretton et al., "A Kernel
Two-Sample Test", JMLR 13, 2012), its bandwidth the median distance. Its limit comes from permutations, so that
the rate of false alarms on exchangeable owners is what is asked, whatever the vectors are like (the p-value
counts the sample itself: Phipson and Smyth, 2010). Owners are exchanged, never chunks: those of one document
are alike. An owner that both have gives one vector to each, and only its two may change places.

Windows may differ from each other by themselves, by more than their owners do. Where the reference's own
windows show it at 5 %, the draws of chance are widened by as much as they differ more than chance:
quasi-likelihood's way with overdispersion (McCullagh and Nelder, 1989), as the monitors of models have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Sample", "Shift", "neighbour_overlap", "shift"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Longs = np.ndarray[Any, np.dtype[np.int64]]
_ALIKE = 0.05  # p-value below which the reference's windows count as unlike
_FEWEST_WINDOWS = 3
_DRAWS_OF_WINDOWS = 99


@dataclass(frozen=True)
class Sample:
    """Vectors of length 1, float32 [owners, dimension]; `owners` names each, `window` says where it is from."""

    vectors: Floats
    owners: Sequence[str]
    window: Longs

    def __len__(self) -> int:
        return len(self.owners)


@dataclass(frozen=True)
class Shift:
    """How far a window is from its reference.

    `value` is the squared discrepancy and `limit` what chance exceeds in the share of stationary windows that
    was asked for; `p` is the probability of as much by chance, `cosine` that of both mean vectors, `wider` by
    how much the reference's windows differ more than chance (1: they do not).
    """

    value: float
    limit: float
    p: float
    cosine: float
    wider: float
    alarm: bool


def shift(reference: Sample, window: Sample, *, false_alarms: float, draws: int = 999, seed: int = 0) -> Shift:
    """Hold a window against the reference. With 1 / `false_alarms` above `draws` nothing can raise an alarm."""
    rng = np.random.default_rng(seed)
    kernel = _kernel(np.concatenate([reference.vectors, window.vectors]))
    one, other = len(reference), len(window)
    signs = np.concatenate([np.full(one, 1 / one), np.full(other, -1 / other)])
    value = float(_squared(kernel, signs.astype(np.float32)[:, None])[0])
    weights = _exchanged(signs, _pairs(reference, window), draws, rng)
    wider = _wider(kernel[:one, :one], reference.window, draws, rng)
    chance = np.sort(_squared(kernel, weights) * wider)
    p = float((1 + (chance >= value).sum()) / (draws + 1))
    # The k-th largest of draws and value together: above it the p-value is at most what is asked.
    beyond = int(np.floor(false_alarms * (draws + 1)))
    limit = float(chance[-beyond]) if beyond else float("inf")
    means = reference.vectors.mean(axis=0), window.vectors.mean(axis=0)
    length = float(np.linalg.norm(means[0]) * np.linalg.norm(means[1]))
    cosine = float(means[0] @ means[1]) / max(length, 1e-12)
    return Shift(value, limit, p, cosine, wider, p <= false_alarms)


def neighbour_overlap(one: Floats, other: Floats, k: int = 10) -> Floats:
    """Return for each row the share of its `k` nearest rows that both encodings of the same things agree on."""
    found = [_nearest(each, k) for each in (one, other)]
    return np.array(
        [len(set(a) & set(b)) / k for a, b in zip(*(each.tolist() for each in found), strict=True)], np.float32
    )


def _nearest(vectors: Floats, k: int) -> Longs:
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -np.inf)
    nearest: Longs = np.argpartition(-cosine, k, axis=1)[:, :k]
    return nearest


def _kernel(vectors: Floats) -> Floats:
    """The Gaussian kernel of vectors of length 1."""
    squared = np.maximum(2 - 2 * (vectors @ vectors.T), 0).astype(np.float32)
    usual = float(np.median(squared[np.triu_indices(len(squared), 1)]))
    found: Floats = np.exp(-squared / max(usual, 1e-6))
    return found


def _squared(kernel: Floats, weights: Floats) -> Floats:
    """The squared discrepancy of each column of signed weights."""
    found: Floats = (weights * (kernel @ weights)).sum(axis=0)
    return found


def _pairs(reference: Sample, window: Sample) -> Longs:
    """Rows of owners that both have: [pairs, 2]."""
    place = {owner: at for at, owner in enumerate(reference.owners)}
    found = [(place[owner], len(reference) + at) for at, owner in enumerate(window.owners) if owner in place]
    return np.array(found, np.int64).reshape(-1, 2)


def _exchanged(signs: Any, pairs: Longs, draws: int, rng: np.random.Generator) -> Floats:
    """Signed weights as chance might have had them, [rows, draws]."""
    single = np.setdiff1d(np.arange(len(signs)), pairs.ravel())
    found = np.repeat(signs.astype(np.float32)[:, None], draws, axis=1)
    found[single] = rng.permuted(found[single], axis=0)
    swapped = rng.random((len(pairs), draws)) < 0.5
    first, second = signs[pairs[:, :1]], signs[pairs[:, 1:]]
    found[pairs[:, 0]] = np.where(swapped, second, first)
    found[pairs[:, 1]] = np.where(swapped, first, second)
    return found


def _wider(kernel: Floats, window: Longs, draws: int, rng: np.random.Generator) -> float:
    """By how much the reference's windows differ more than its owners alone would have them."""
    names = np.unique(window)
    if len(names) < _FEWEST_WINDOWS:
        return 1.0

    def unlike(labels: Longs) -> float:
        inside = (labels[:, None] == names).astype(np.float32)
        count = inside.sum(axis=0)
        return float(_squared(kernel, inside / count - (1 - inside) / (len(labels) - count)).mean())

    seen = unlike(window)
    chance = np.array([unlike(rng.permutation(window)) for _ in range(_DRAWS_OF_WINDOWS)])
    if (1 + (chance >= seen).sum()) / (len(chance) + 1) > _ALIKE:
        return 1.0
    return max(1.0, seen / max(float(chance.mean()), 1e-12))
