"""Normalisations (MIL normalization)."""

from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, axes_of

Parameter = np.ndarray | None


def layer_norm(
    env: Env,
    x: np.ndarray,
    axes: np.ndarray | None = None,
    gamma: Parameter = None,
    beta: Parameter = None,
    epsilon: np.ndarray | float = 1e-5,
) -> Any:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta over `axes` (all by default), with the biased variance."""
    positions = tuple(range(x.ndim)) if axes is None else axes_of(axes, x.ndim)
    shape = tuple(size if axis in positions else 1 for axis, size in enumerate(x.shape))
    centred = x - env.mean(x, positions, True)
    variance = env.mean(np.square(centred), positions, True)
    result = centred / np.sqrt(variance + x.dtype.type(epsilon))
    if gamma is not None:
        result = result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


def batch_norm(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    gamma: Parameter = None,
    beta: Parameter = None,
    epsilon: np.ndarray | float = 1e-5,
) -> Any:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta per channel of [n, C, *D]."""
    scale = 1 / np.sqrt(variance + variance.dtype.type(epsilon))
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    return x * _channels(scale, x.ndim) + _channels(shift, x.ndim)


def instance_norm(
    env: Env, x: np.ndarray, gamma: Parameter = None, beta: Parameter = None, epsilon: np.ndarray | float = 1e-5
) -> Any:
    """Normalise each channel of each sample of [n, C, *D] over its own *D, with the biased variance."""
    if x.ndim < 3:
        raise RefusedError(f"instance_norm wants rank 3 or more, not {x.ndim}")
    result = layer_norm(env, x, np.arange(2, x.ndim), epsilon=epsilon)
    if gamma is not None:
        result = result * _channels(gamma, x.ndim)
    return result if beta is None else result + _channels(beta, x.ndim)


def l2_norm(env: Env, x: np.ndarray, epsilon: np.ndarray | float = 1e-6) -> Any:
    """x / sqrt(sum of squares + epsilon) over the last three axes."""
    if x.ndim < 3:
        raise RefusedError(f"l2_norm wants rank 3 or more, not {x.ndim}")
    return x / np.sqrt(env.sum(np.square(x), (-3, -2, -1), True) + x.dtype.type(epsilon))


def local_response_norm(
    x: np.ndarray,
    size: Any,
    alpha: np.ndarray | float = 1e-4,
    beta: np.ndarray | float = 0.75,
    k: np.ndarray | float = 1.0,
) -> Any:
    """x / (k + alpha / size * sum of squares over `size` neighbouring channels) ** beta of [n, C, *D]."""
    width, kind = int(size), x.dtype.type
    if width < 1 or x.ndim < 2:
        raise RefusedError(f"local_response_norm wants size >= 1 and rank >= 2, not {width} and {x.ndim}")
    # As in torch, an even window reaches one further to the lower channels; beyond the channels there are only zeros.
    channels = x.shape[1]
    before, after = min(width // 2, channels), min((width - 1) // 2, channels)
    squares = np.zeros((x.shape[0], before + channels + after, *x.shape[2:]), x.dtype)
    squares[:, before : before + channels] = np.square(x)
    total = squares[:, :channels].copy()
    for offset in range(1, before + after + 1):
        total += squares[:, offset : offset + channels]
    return x / np.power(kind(k) + kind(alpha) / kind(width) * total, kind(beta))


def _channels(values: np.ndarray, rank: int) -> np.ndarray:
    return values.reshape(-1, *(1,) * (rank - 2))


NORMALIZATION: dict[str, Kernel] = {
    "batch_norm": arithmetic(batch_norm),
    "instance_norm": arithmetic(instance_norm),
    "l2_norm": arithmetic(l2_norm),
    "layer_norm": arithmetic(layer_norm),
    "local_response_norm": arithmetic(local_response_norm),
}
