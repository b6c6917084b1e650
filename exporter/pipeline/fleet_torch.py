"""What torch says of users, many at once: a model, and a program with the tables that an artifact has."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from exporter.artifact.store import Golden

HISTORY, CANDIDATES = "item_ids", "candidate_ids"
Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Scores [n, C] for histories [n, N] and candidates [n, C]."""

_BATCH = 64
_TRIED = 64
"""Golden cases with which it is tried whether a program gives the same for many users at once."""


def batched(model: Callable) -> Scores:
    """Return what scores users with a model of torch, many at once."""
    import torch

    def scores(item_ids: np.ndarray, candidate_ids: np.ndarray) -> np.ndarray:
        found = [np.empty((0, candidate_ids.shape[1]), np.float32)]
        with torch.no_grad():
            for start in range(0, len(item_ids), _BATCH):
                part = slice(start, start + _BATCH)
                found.append(model(*(torch.from_numpy(ids[part]) for ids in (item_ids, candidate_ids))).numpy())
        return np.concatenate(found)

    return scores


def scores_of_program(file: Path, golden: "Golden") -> Scores:
    """Return what scores users with a program that takes one at a time: many at once where that gives the same.

    Whether it does is tried with golden cases. What torch cannot take for many users at once, as a whole GRU, it may be
    able to where that is taken apart; where it cannot, or more than rounding comes between, users are taken one by one.
    """
    import torch

    exported = torch.export.load(file)
    single = one_by_one(of_one(exported))
    for form in (lambda: exported, exported.run_decompositions):
        with suppress(RuntimeError):  # torch's word for an operation that it cannot take for many at once
            together = torch.func.vmap(of_one(form()))
            if are_equal(together, single, golden):
                return batched(together)
    return batched(single)


def one_by_one(score: Callable) -> Callable:
    """Return what scores users [n, ...] of torch with a function of one user."""
    import torch

    return lambda item_ids, candidate_ids: torch.stack(
        [score(*user) for user in zip(item_ids, candidate_ids, strict=True)]
    )


def of_one(exported: "torch.export.ExportedProgram") -> Callable:
    """Return a program as a function of one user's history [N] and candidates [C], and of weights by name."""
    program = exported.module(check_guards=False)

    def score(item_ids: "torch.Tensor", candidate_ids: "torch.Tensor", **weights: "torch.Tensor") -> "torch.Tensor":
        given = program(**{HISTORY: item_ids[None], CANDIDATES: candidate_ids[None]}, **weights)
        scores: torch.Tensor = next(iter(given.values()))
        return scores.reshape(-1)

    return score


def are_equal(together: Callable, single: Callable, golden: "Golden") -> bool:
    """Say whether two ways to score give the same for golden cases, but for a small part of what parity allows."""
    from exporter.parity.users import compare_users
    from exporter.parity.verdict import BATCH_SHARE

    cases = [golden.inputs[name][:_TRIED] for name in (HISTORY, CANDIDATES)]
    cases = [case.reshape(len(case), -1) for case in cases]
    expected, actual = (batched(score)(*cases) for score in (single, together))
    figures = compare_users(expected, actual, "fp32", float(abs(expected).max()))
    return bool((figures.error <= BATCH_SHARE * figures.allowed).all())
