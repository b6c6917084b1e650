"""Random numbers (MIL random): reproducible from their seed, but not the sequence that Core ML would draw."""

from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, integers


def _generator(env: Env, seed: Any) -> np.random.Generator:
    env.doubt("its numbers are random, and here not those that Core ML draws")
    return env.random if int(seed) < 0 else np.random.default_rng(int(seed))


def _shape(env: Env, shape: np.ndarray) -> list[int]:
    sizes = integers(shape)
    env.reserve(sizes, 8)
    return sizes


def _scalar(value: Any) -> Any:
    return value.astype(value.dtype) if isinstance(value, np.ndarray) else np.float32(value)


def random_bernoulli(env: Env, shape: np.ndarray, prob: Any = 0.5, seed: Any = -1) -> Any:
    """Ones with probability `prob`, zeros otherwise."""
    draws = _generator(env, seed).random(_shape(env, shape)) < float(prob)
    return draws.astype(_scalar(prob).dtype)


def random_normal(env: Env, shape: np.ndarray, mean: Any = 0.0, stddev: Any = 1.0, seed: Any = -1) -> Any:
    """Normally distributed numbers."""
    if float(stddev) < 0:
        raise RefusedError(f"a standard deviation of {float(stddev)} is none")
    draws = _generator(env, seed).normal(float(mean), float(stddev), _shape(env, shape))
    return draws.astype(_scalar(mean).dtype)


def random_uniform(env: Env, shape: np.ndarray, low: Any = 0.0, high: Any = 1.0, seed: Any = -1) -> Any:
    """Numbers evenly distributed over [low, high)."""
    draws = _generator(env, seed).random(_shape(env, shape))
    return (float(low) + draws * (float(high) - float(low))).astype(_scalar(low).dtype)


def random_categorical(env: Env, x: np.ndarray, mode: str = "logits", size: Any = 1, seed: Any = -1) -> Any:
    """Draw `size` class numbers from each distribution along the last axis, given as logits or probabilities."""
    count = int(size)
    if mode not in ("logits", "probs") or x.ndim < 1 or count < 1 or not x.shape[-1]:
        raise RefusedError(f"mode {mode!r} with {count} samples of x {list(x.shape)} is not defined")
    env.reserve([*x.shape[:-1], count], 8)
    wide = x.astype(np.float64)
    weights = np.exp(wide - wide.max(-1, keepdims=True)) if mode == "logits" else wide
    steps = np.cumsum(weights, -1).reshape(-1, x.shape[-1])
    draws = _generator(env, seed).random((steps.shape[0], count)) * steps[:, -1:]
    # One sorted search for all rows: each row's steps are moved into an interval of their own.
    offset = np.arange(steps.shape[0])[:, None] * (float(steps.max(initial=1.0)) + 1.0)
    places = np.searchsorted((steps + offset).reshape(-1), (draws + offset).reshape(-1), side="right")
    classes = places.reshape(steps.shape[0], count) - np.arange(steps.shape[0])[:, None] * x.shape[-1]
    return np.minimum(classes, x.shape[-1] - 1).reshape(*x.shape[:-1], count).astype(x.dtype)


RANDOM: dict[str, Kernel] = {
    "random_bernoulli": arithmetic(random_bernoulli),
    "random_categorical": arithmetic(random_categorical),
    "random_normal": arithmetic(random_normal),
    "random_uniform": arithmetic(random_uniform),
}
