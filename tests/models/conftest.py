"""Interactions to train on."""

import gzip

import numpy as np
import pytest


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """80 users who walk through 300 items in steps of one, so that there is something to learn."""
    path = tmp_path_factory.mktemp("data") / "walks.tsv.gz"
    rng = np.random.default_rng(0)
    rows = ["user\titem\ttimestamp"]
    for user in range(80):
        start, length = rng.integers(0, 300), rng.integers(1, 30)
        rows += [f"{user}\t{(start + step) % 300 + 1000}\t{step * 60}" for step in range(length)]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    return path
