"""Which structures to score, and in which order of scores they come: all of them where they are few, else evolution."""

from collections.abc import Callable

import numpy as np

from exporter.measure.structures import sampled

Structure = tuple[int, ...]

MOST_SCORED = 256
_FIRST, _PARENTS, _CHILDREN = 64, 16, 16
_FRUITLESS = 256
"""So many draws of children without a new one that is allowed end an evolution."""


def best_first(
    blocks: int, is_allowed: Callable[[Structure], bool], score: Callable[[Structure], float]
) -> list[tuple[Structure, float]]:
    """Return structures of L blocks that are allowed, with their scores, the best first; at most 256 are scored.

    Where more are allowed than that, they are found by evolution as LitePred and Once-for-All do: parents are the best
    so far, and a child has each block from one of two of them, or with a chance of 1 / L the other way round.
    """
    found: dict[Structure, float] = {}

    def consider(structure: Structure) -> bool:
        new = any(structure) and structure not in found and len(found) < MOST_SCORED and is_allowed(structure)
        if new:
            found[structure] = score(structure)
        return new

    every = 2**blocks - 1
    for structure in sampled(blocks, min(every, MOST_SCORED if every <= MOST_SCORED else _FIRST), seed=0):
        consider(structure)
    if every > MOST_SCORED:
        _evolve(blocks, found, consider)
    return sorted(found.items(), key=lambda one: (-one[1], one[0]))


def _evolve(blocks: int, found: dict[Structure, float], consider: Callable[[Structure], bool]) -> None:
    """Consider children of the best that were found, generation by generation, until enough are scored."""
    rng, fruitless = np.random.default_rng(0), 0
    while found and len(found) < MOST_SCORED and fruitless < _FRUITLESS:
        parents = sorted(found, key=lambda one: (-found[one], one))[:_PARENTS]
        before = len(found)
        for _ in range(_CHILDREN):
            pair = np.array([parents[at] for at in rng.integers(len(parents), size=2)])
            child = pair[rng.integers(2, size=blocks), np.arange(blocks)]
            consider(tuple(np.where(rng.random(blocks) < 1 / blocks, 1 - child, child).tolist()))
        fruitless = fruitless + _CHILDREN if len(found) == before else 0
