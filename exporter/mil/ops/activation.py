"""Activations (MIL activation)."""

import math
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, axis_of
from exporter.mil.ops.special import erf

Parameter = np.ndarray | float


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), from exp of a negative number only, so that it cannot overflow."""
    small = np.exp(-np.abs(x))
    result: np.ndarray = np.where(x < 0, small, x.dtype.type(1)) / (x.dtype.type(1) + small)
    return result


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x)."""
    result: np.ndarray = x * sigmoid(x)
    return result


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)), from exp of a negative number only."""
    result: np.ndarray = np.log1p(np.exp(-np.abs(x))) + np.maximum(x, x.dtype.type(0))
    return result


def softsign(x: np.ndarray) -> np.ndarray:
    """x / (1 + |x|)."""
    result: np.ndarray = x / (x.dtype.type(1) + np.abs(x))
    return result


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    result: np.ndarray = np.maximum(x, x.dtype.type(0))
    return result


def relu6(x: np.ndarray) -> np.ndarray:
    """min(max(x, 0), 6)."""
    result: np.ndarray = np.minimum(relu(x), x.dtype.type(6))
    return result


def clamped_relu(x: np.ndarray, alpha: Parameter, beta: Parameter) -> Any:
    """min(beta, x) for x >= 0, min(beta, alpha * x) below."""
    kind = x.dtype.type
    return np.minimum(np.where(x >= 0, x, kind(alpha) * x), kind(beta))


def elu(x: np.ndarray, alpha: Parameter) -> Any:
    """x for x > 0, alpha * (exp(x) - 1) below."""
    return np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, x.dtype.type(0))))


def gelu(x: np.ndarray, mode: str = "EXACT") -> Any:
    """x times the normal distribution function of x, exactly or by the spec's two approximations."""
    kind = x.dtype.type
    if mode == "EXACT":
        return kind(0.5) * x * (kind(1) + erf(x * kind(math.sqrt(0.5))))
    if mode == "TANH_APPROXIMATION":
        inner = kind(math.sqrt(2 / math.pi)) * (x + kind(0.044715) * x * x * x)
        return kind(0.5) * x * (kind(1) + np.tanh(inner))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(kind(1.702) * x)
    raise RefusedError(
        f"gelu mode {mode!r} is not known; the spec has EXACT, TANH_APPROXIMATION and SIGMOID_APPROXIMATION"
    )


def leaky_relu(x: np.ndarray, alpha: Parameter) -> Any:
    """x for x >= 0, alpha * x below."""
    return np.where(x >= 0, x, x.dtype.type(alpha) * x)


def linear_activation(x: np.ndarray, alpha: Parameter, beta: Parameter) -> Any:
    """alpha * x + beta."""
    return x.dtype.type(alpha) * x + x.dtype.type(beta)


def prelu(x: np.ndarray, alpha: np.ndarray) -> Any:
    """x for x > 0, alpha * x below, with one alpha per channel of [B, C, *D]."""
    return np.where(x > 0, x, _per_channel(alpha, x) * x)


def scaled_tanh(x: np.ndarray, alpha: Parameter, beta: Parameter) -> Any:
    """alpha * tanh(beta * x)."""
    return x.dtype.type(alpha) * np.tanh(x.dtype.type(beta) * x)


def sigmoid_hard(x: np.ndarray, alpha: Parameter, beta: Parameter) -> Any:
    """alpha * x + beta, clipped to [0, 1]."""
    kind = x.dtype.type
    return np.minimum(np.maximum(kind(alpha) * x + kind(beta), kind(0)), kind(1))


def softplus_parametric(x: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> Any:
    """alpha * log(1 + exp(beta * x)), with one alpha and beta per channel of [B, C, *D]."""
    return _per_channel(alpha, x) * softplus(_per_channel(beta, x) * x)


def thresholded_relu(x: np.ndarray, alpha: Parameter) -> Any:
    """x for x >= alpha, 0 below."""
    return np.where(x >= x.dtype.type(alpha), x, x.dtype.type(0))


def softmax(env: Env, x: np.ndarray, axis: Any = -1) -> Any:
    """exp(x) / sum of exp(x) along `axis`, after subtracting the largest element."""
    place = axis_of(axis, x.ndim)
    powers = np.exp(x - np.amax(x, place, keepdims=True))
    return powers / env.sum(powers, place, True)


def _per_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    if x.ndim < 2 or values.shape != (x.shape[1],):
        raise RefusedError(f"parameters of shape {list(values.shape)} do not fit the channels of {list(x.shape)}")
    return values.astype(x.dtype, copy=False).reshape(-1, *(1,) * (x.ndim - 2))


ACTIVATION: dict[str, Kernel] = {
    "clamped_relu": arithmetic(clamped_relu),
    "elu": arithmetic(elu),
    "gelu": arithmetic(gelu),
    "leaky_relu": arithmetic(leaky_relu),
    "linear_activation": arithmetic(linear_activation),
    "prelu": arithmetic(prelu),
    "relu": arithmetic(relu),
    "relu6": arithmetic(relu6),
    "scaled_tanh": arithmetic(scaled_tanh),
    "sigmoid": arithmetic(sigmoid),
    "sigmoid_hard": arithmetic(sigmoid_hard),
    "silu": arithmetic(silu),
    "softmax": arithmetic(softmax),
    "softplus": arithmetic(softplus),
    "softplus_parametric": arithmetic(softplus_parametric),
    "softsign": arithmetic(softsign),
    "thresholded_relu": arithmetic(thresholded_relu),
}
