"""Attention (MIL transformers)."""

import math
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic
from exporter.mil.ops.activation import softmax


def scaled_dot_product_attention(
    env: Env, query: np.ndarray, key: np.ndarray, value: np.ndarray, attn_mask: np.ndarray | None = None
) -> Any:
    """softmax(Q K^T / sqrt(E) + mask) V for [.., L, E], [.., S, E], [.., S, EV]; a boolean mask marks what counts."""
    if not query.ndim == key.ndim == value.ndim or query.ndim < 3:
        raise RefusedError(f"query, key and value have ranks {query.ndim}, {key.ndim} and {value.ndim}")
    scale = query.dtype.type(1 / math.sqrt(query.shape[-1]))
    scores = env.matmul(query, key.swapaxes(-1, -2)) * scale
    if attn_mask is not None:
        env.broadcast(scores, attn_mask)
        if attn_mask.dtype == bool:
            scores = np.where(attn_mask, scores, scores.dtype.type(-np.inf))
        else:
            scores = scores + attn_mask.astype(scores.dtype, copy=False)
    return env.matmul(softmax(env, scores), value)


ATTENTION: dict[str, Kernel] = {"scaled_dot_product_attention": arithmetic(scaled_dot_product_attention)}
