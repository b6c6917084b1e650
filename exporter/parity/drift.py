"""How far a recurrent artifact, fed with its own states, gets from torch, fed with its own: click after click."""

from dataclasses import dataclass

import numpy as np

from exporter.parity.ranking import top_sets


@dataclass(frozen=True)
class Drift:
    """Scores of an artifact beside torch's after each of S clicks, over all sessions.

    `max_abs_error` has the largest error of each step, `scale` is torch's largest |score|. `first_rank` has for each
    step the first rank (from 1) at which the two order the candidates of any session differently, None where all agree.
    """

    max_abs_error: tuple[float, ...]
    scale: float
    first_rank: tuple[int | None, ...]

    @property
    def first_step(self) -> int | None:
        """Return the first step (from 1) whose order of candidates differs anywhere, or None."""
        return next((step for step, rank in enumerate(self.first_rank, start=1) if rank is not None), None)


def drift(expected: np.ndarray, actual: np.ndarray) -> Drift:
    """Compare torch's scores with an artifact's, both [steps, sessions, candidates]; equal scores keep their order."""
    errors, ranks = [], []
    for of_torch, of_artifact in zip(expected.astype(np.float64), actual.astype(np.float64), strict=True):
        errors.append(float(np.abs(of_artifact - of_torch).max()))
        candidates = of_torch.shape[1]
        differ = (top_sets(of_torch, candidates) != top_sets(of_artifact, candidates)).any(axis=0)
        ranks.append(int(np.argmax(differ)) + 1 if differ.any() else None)
    return Drift(tuple(errors), float(np.abs(expected).max()), tuple(ranks))
