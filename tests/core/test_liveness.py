"""The plan of activations: it holds every live set, never overlaps, and is the best one where that can be shown."""

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.core.liveness import (
    Lifetime,
    arena_bytes,
    arena_offsets,
    lifetimes_of,
    memory_plan,
    peak_live_bytes,
    planned_bytes,
)

unhurried = settings(deadline=None)  # two cores are shared with others


@st.composite
def lifetimes(draw, most=12, sizes=None):
    sizes = st.integers(0, 500) if sizes is None else sizes
    found = []
    for _ in range(draw(st.integers(0, most))):
        first = draw(st.integers(0, 12))
        found.append(Lifetime(draw(sizes), first, first + draw(st.integers(0, 6))))
    return found


def alive_together(a, b):
    return a.first <= b.last and b.first <= a.last


def rounded(size, alignment):
    return -(-size // alignment) * alignment


@unhurried
@given(lifetimes())
def test_the_peak_is_the_largest_set_alive_at_one_step(lives):
    steps = range(20)
    assert peak_live_bytes(lives) == max(sum(x.size for x in lives if x.first <= step <= x.last) for step in steps)


@unhurried
@given(lifetimes(), st.sampled_from([1, 16, 64]))
def test_what_is_alive_together_never_overlaps_and_is_aligned(lives, alignment):
    offsets = arena_offsets(lives, alignment)
    assert len(offsets) == len(lives)
    assert all(offset >= 0 and offset % alignment == 0 for offset in offsets)
    for i, a in enumerate(lives):
        for j, b in enumerate(lives[:i]):
            if alive_together(a, b) and a.size and b.size:
                assert offsets[i] + a.size <= offsets[j] or offsets[j] + b.size <= offsets[i]


@unhurried
@given(lifetimes(), st.sampled_from([1, 16, 64]))
def test_the_arena_is_never_below_the_largest_live_set(lives, alignment):
    assert peak_live_bytes(lives) <= arena_bytes(lives, alignment)
    assert arena_bytes(lives, alignment) <= sum(rounded(life.size, alignment) for life in lives)


def best_arena(lives):
    """The smallest arena there is: some order of placing each as low as it goes yields it, so try all orders."""
    best = sum(life.size for life in lives)
    for order in permutations(range(len(lives))):
        offsets = {}
        for index in order:
            life = lives[index]
            taken = sorted(
                (offsets[other], offsets[other] + lives[other].size)
                for other in offsets
                if alive_together(life, lives[other])
            )
            offset = 0
            for start, end in taken:
                if start - offset >= life.size:
                    break
                offset = max(offset, end)
            offsets[index] = offset
        best = min(best, max((offsets[i] + lives[i].size for i in offsets), default=0))
    return best


@settings(deadline=None, max_examples=60)
@given(lifetimes(most=5, sizes=st.integers(1, 8)))
def test_on_small_graphs_the_best_plan_lies_between_the_peak_and_ours(lives):
    assert peak_live_bytes(lives) <= best_arena(lives) <= arena_bytes(lives, alignment=1)


@settings(deadline=None, max_examples=60)
@given(lifetimes(most=6, sizes=st.integers(1, 8)))
def test_on_small_graphs_the_plan_is_the_one_that_brute_force_finds(lives):
    assert planned_bytes(lives, alignment=1) == best_arena(lives)


@unhurried
@given(lifetimes(most=14), st.sampled_from([1, 64]))
def test_the_plan_holds_the_largest_live_set_and_is_no_larger_than_greedy(lives, alignment):
    assert peak_live_bytes(lives) <= planned_bytes(lives, alignment) <= arena_bytes(lives, alignment)


def chain_of(sizes):
    """Each activation lives until the next one is computed."""
    return [Lifetime(size, step, step + 1) for step, size in enumerate(sizes)]


@unhurried
@given(st.lists(st.integers(1, 500), min_size=1, max_size=12))
def test_on_a_chain_the_peak_is_the_largest_pair_of_neighbours(sizes):
    assert peak_live_bytes(chain_of(sizes)) == max(a + b for a, b in zip([*sizes, 0], [0, *sizes], strict=True))


@unhurried
@given(st.lists(st.integers(1, 500), min_size=1, max_size=3))
def test_on_chains_of_three_the_plan_is_the_best_one(sizes):
    assert arena_bytes(chain_of(sizes), alignment=1) == best_arena(chain_of(sizes)) == peak_live_bytes(chain_of(sizes))


@unhurried
@given(st.lists(st.integers(1, 500), min_size=1, max_size=5))
def test_where_all_are_alive_at_once_the_plan_is_the_best_one(sizes):
    together = [Lifetime(size, step, 5) for step, size in enumerate(sizes)]
    assert arena_bytes(together, alignment=1) == best_arena(together) == sum(sizes)


def test_greedy_by_size_is_a_heuristic():
    """The smallest chain on which it misses the best plan: both 2s go to the bottom, and the 1s between do not fit."""
    chain = chain_of([2, 1, 1, 2])
    assert (peak_live_bytes(chain), best_arena(chain), arena_bytes(chain, alignment=1)) == (3, 3, 4)
    assert planned_bytes(chain, alignment=1) == 3


def test_by_hand():
    # a (100) feeds b (50) and c (60) ; d joins b and c: a and d can share, b and c cannot
    a, b, c, d = Lifetime(100, 0, 2), Lifetime(50, 1, 3), Lifetime(60, 2, 3), Lifetime(100, 3, 4)
    assert peak_live_bytes([a, b, c, d]) == 210
    assert arena_offsets([a, b, c, d], alignment=1) == [0, 160, 100, 0]
    assert arena_bytes([a, b, c, d], alignment=1) == 210
    assert arena_bytes([a, b, c, d], alignment=64) == 242
    assert arena_bytes([]) == 0
    assert peak_live_bytes([]) == 0


def test_lifetimes_of_a_small_graph():
    """Inputs a and b; step 0: c = f(a, W), step 1: d = g(c, b), step 2: e = h(c); the results are d and b."""
    steps = [(["a", "W"], ["c"]), (["c", "b"], ["d"]), (["c"], ["e"])]
    sizes = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}  # W is a constant
    assert lifetimes_of(steps, ["a", "b"], ["d", "b"], sizes) == [
        Lifetime(1, 0, 0),
        Lifetime(2, 0, 3),
        Lifetime(3, 0, 2),
        Lifetime(4, 1, 3),
        Lifetime(5, 2, 2),
    ]


def test_a_long_graph_is_planned_as_a_short_one():
    """The work grows with the values that live together, not with all."""
    chain = chain_of([64] * 20_000)
    assert planned_bytes(chain) == arena_bytes(chain) == 128
    assert arena_offsets(chain)[:4] == [0, 64, 0, 64]


def test_more_values_at_once_than_can_be_planned_for_have_no_plan_and_a_reason():
    together = [Lifetime(64, 0, 1)] * 2_000
    plan = memory_plan(10, together, planned_bytes, "method")
    assert (plan.constant_bytes, plan.planned_activation_bytes) == (10, None)
    assert plan.reason is not None and "at the same time" in plan.reason
    assert memory_plan(10, together[:100], planned_bytes, "method").planned_activation_bytes == 6_400
