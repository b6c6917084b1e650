"""Operations that pad, sort, and select by value (MIL tensor_operation)."""

from typing import Any

import numpy as np

from exporter.core.types import EQUAL_ELEMENTS
from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, axis_of, integers, movement

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def pad(env: Env, x: np.ndarray, pad: np.ndarray, mode: str = "constant", constant_val: Any = 0.0) -> Any:
    """Pad the last len(pad) / 2 axes, (before, after) each, with a constant, by reflection or by the edge."""
    numbers = integers(pad)
    if len(numbers) % 2 or len(numbers) > 2 * x.ndim or min(numbers, default=0) < 0 or mode not in _PAD_MODES:
        raise RefusedError(f"padding {numbers} in mode {mode!r} does not fit rank {x.ndim}")
    numbers = [0] * (2 * x.ndim - len(numbers)) + numbers
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    # Reflection cannot reach beyond what there is to reflect.
    if mode == "reflect" and any(max(pair) >= size > 0 for pair, size in zip(pairs, x.shape, strict=True) if max(pair)):
        raise RefusedError(f"a reflection by {numbers} reaches beyond {list(x.shape)}")
    env.reserve([size + before + after for size, (before, after) in zip(x.shape, pairs, strict=True)], x.itemsize)
    if mode == "constant":
        return np.pad(x, pairs, constant_values=x.dtype.type(constant_val))
    return np.pad(x, pairs, _PAD_MODES[mode])  # type: ignore[call-overload]


def _sorted_places(x: np.ndarray, axis: int, ascending: bool) -> np.ndarray:
    """Return the order along `axis`; equal elements keep theirs."""
    if not ascending:
        x = -x if x.dtype.kind == "f" else -x.astype(np.int64)
    return np.argsort(x, axis, kind="stable")


def _doubt_ties(env: Env, values: np.ndarray, axis: int) -> None:
    """Doubt the order of sorted values where neighbours are equal: the spec does not say which comes first."""
    ahead, behind = (values.take(np.arange(start, values.shape[axis] - 1 + start), axis) for start in (0, 1))
    if values.shape[axis] > 1 and (ahead == behind).any():
        env.doubt(EQUAL_ELEMENTS)


def argsort(env: Env, x: np.ndarray, axis: Any = -1, ascending: bool = False) -> Any:
    """The positions of the elements in descending, or ascending, order."""
    place = axis_of(axis, x.ndim)
    order = _sorted_places(x, place, bool(ascending))
    _doubt_ties(env, np.take_along_axis(x, order, place), place)
    return order.astype(np.int32)


def topk(
    env: Env,
    x: np.ndarray,
    k: Any = 1,
    axis: Any = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Any:
    """The k largest, or smallest, elements along `axis` and their positions; k = -1 takes all. They come sorted."""
    place = axis_of(axis, x.ndim)
    count = x.shape[place] if int(k) == -1 else int(k)
    if not 0 <= count <= x.shape[place] or output_indices_dtype not in ("int32", "uint16"):
        raise RefusedError(
            f"{count} of {x.shape[place]} elements with {output_indices_dtype} positions cannot be taken"
        )
    if output_indices_dtype == "uint16" and x.shape[place] > 1 << 16:
        raise RefusedError(f"uint16 positions cannot name {x.shape[place]} elements")
    every = _sorted_places(x, place, bool(ascending))
    if not sort and count > 1:
        env.doubt("the order of what it takes is not given, since `sort` is false; here it is sorted")
    if return_indices:  # the first that is not taken counts: it may be equal to the last that is
        _doubt_ties(
            env, np.take_along_axis(x, every.take(np.arange(min(count + 1, x.shape[place])), place), place), place
        )
    order = every.take(np.arange(count), place)
    values = np.take_along_axis(x, order, place)
    return (values, order.astype(output_indices_dtype)) if return_indices else values


def non_zero(x: np.ndarray) -> Any:
    """The positions of the elements that are not zero, [count, rank]."""
    return np.argwhere(x).astype(np.int32)


def one_hot(
    env: Env,
    indices: np.ndarray,
    one_hot_vector_size: Any,
    axis: Any = -1,
    on_value: Any = 1,
    off_value: Any = 0,
) -> Any:
    """A new axis of `one_hot_vector_size` that holds `on_value` at the index and `off_value` elsewhere."""
    depth, place = int(one_hot_vector_size), axis_of(axis, indices.ndim + 1)
    if depth < 0:
        raise RefusedError(f"a vector of {depth} elements is none")
    on = on_value if isinstance(on_value, np.ndarray) else np.int32(on_value)
    off = off_value if isinstance(off_value, np.ndarray) else np.int32(off_value)
    env.reserve([*indices.shape, depth], on.itemsize)
    if ((indices < 0) | (indices >= depth)).any():
        env.doubt("an index is beyond the vector; here all of it is off_value")
    hit = np.expand_dims(indices, place) == np.arange(depth).reshape(-1, *(1,) * (indices.ndim - place))
    return np.where(hit, on, off)


def non_maximum_suppression(
    env: Env,
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: Any,
    max_boxes: Any,
    score_threshold: Any = -np.inf,
    per_class_suppression: bool = False,
) -> Any:
    """Keep boxes in order of their best score and drop those that overlap a kept one (of their class) too much.

    Up to iOS 16: boxes [n, B, 4], scores [n, B, K], and the number kept as a fourth output; from iOS 17 on [n, 4, B]
    and [n, K, B]. Missing rows are zero with index -1, and when no score passes the threshold the best box is kept.
    """
    modern = env.opset >= 17
    if modern:
        boxes, scores = boxes.swapaxes(1, 2), scores.swapaxes(1, 2)
    count, limit, least = int(max_boxes), float(iou_threshold), float(score_threshold)
    if boxes.ndim != 3 or boxes.shape[2] != 4 or boxes.shape[:2] != scores.shape[:2] or count < 1 or not scores.size:
        raise RefusedError(f"boxes {list(boxes.shape)} and scores {list(scores.shape)} do not fit, for {count} boxes")
    env.reserve([boxes.shape[0], count, 5 + scores.shape[2]], 8)
    best = np.sort(scores.max(2), 1)
    if (best[:, 1:] == best[:, :-1]).any():
        env.doubt("boxes have equal scores; here the one that stands first comes first")
    kept = np.zeros((boxes.shape[0], count, 4), boxes.dtype)
    ranks = np.zeros((boxes.shape[0], count, scores.shape[2]), scores.dtype)
    places = np.full((boxes.shape[0], count), -1, np.int32)
    numbers = np.zeros(boxes.shape[0], np.int32)
    for sample in range(boxes.shape[0]):
        chosen = _suppress(boxes[sample], scores[sample], limit, least, count, bool(per_class_suppression))
        numbers[sample] = number = len(chosen)
        kept[sample, :number], ranks[sample, :number] = boxes[sample, chosen], scores[sample, chosen]
        places[sample, :number] = chosen
    if modern:
        return kept.swapaxes(1, 2), ranks.swapaxes(1, 2), places
    return kept, ranks, places, numbers


def _suppress(
    boxes: np.ndarray, scores: np.ndarray, limit: float, least: float, count: int, per_class: bool
) -> np.ndarray:
    best = scores.max(1)
    classes = scores.argmax(1) if per_class else np.zeros(len(best), np.int64)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] > least]
    half = boxes[:, 2:] / 2
    low, high = boxes[:, :2] - half, boxes[:, :2] + half
    area = np.prod(boxes[:, 2:], 1)
    kept: list[int] = []
    taken = dict.fromkeys(np.unique(classes).tolist(), 0)
    while order.size and len(kept) < count * len(taken):
        first, order = order[0], order[1:]
        if taken[int(classes[first])] < count:
            kept.append(int(first))
            taken[int(classes[first])] += 1
        overlap = np.prod(np.maximum(np.minimum(high[first], high[order]) - np.maximum(low[first], low[order]), 0), 1)
        union = area[first] + area[order] - overlap
        # Two boxes without an area have no union; they do not suppress each other.
        share = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
        order = order[(share <= limit) | (classes[order] != classes[first])]
    return np.array(kept[:count] if kept else [int(np.argmax(best))], np.int64)


SELECTION: dict[str, Kernel] = {
    "pad": movement(pad),
    "argsort": movement(argsort),
    "topk": movement(topk),
    "non_zero": movement(non_zero),
    "one_hot": movement(one_hot),
    "non_maximum_suppression": arithmetic(non_maximum_suppression),
}
