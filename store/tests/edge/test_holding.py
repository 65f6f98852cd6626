"""Sets of ranges, against sets of keys."""

from __future__ import annotations

import itertools

from holdfast.edge.holding import Holding, Part, joined, without
from holdfast.keyrange import Range, within
from hypothesis import given
from hypothesis import strategies as st

KEYS = [bytes([n]) for n in range(1, 12)]
ENDS = [*KEYS, None]


def ranges() -> st.SearchStrategy[list[Range]]:
    one = st.tuples(st.sampled_from(KEYS), st.sampled_from(ENDS))
    return st.lists(one.filter(lambda r: r[1] is None or r[0] < r[1]), max_size=5)


def keys_of(found: list[Range]) -> set[bytes]:
    return {key for key in KEYS for low, high in found if within(key, low, high)}


@given(ranges())
def test_joined_has_the_same_keys_in_ranges_that_do_not_touch(some: list[Range]) -> None:
    found = joined(some)
    assert keys_of(found) == keys_of(some)
    for (_, high), (low, _) in itertools.pairwise(found):
        assert high is not None
        assert high < low


@given(ranges(), ranges())
def test_without(some: list[Range], taken: list[Range]) -> None:
    assert keys_of(without(some, taken)) == keys_of(some) - keys_of(taken)


@given(ranges(), ranges(), st.integers(1, 9))
def test_what_is_narrowed_and_what_is_lacking_make_up_what_is_wanted(
    held: list[Range], wanted: list[Range], since: int
) -> None:
    holding = Holding(Part(low, high, since) for low, high in joined(held))
    kept = holding.narrowed(wanted)
    assert keys_of([(part.low, part.high) for part in kept.parts]) == keys_of(held) & keys_of(wanted)
    assert keys_of(kept.lacking(wanted)) == keys_of(wanted) - keys_of(held)
    assert kept.shown(since - 1) == []
    whole = kept.with_(kept.lacking(wanted), since)
    assert Holding.read(whole.message().SerializeToString()).parts == whole.parts
    assert whole.shown(since) == joined(wanted)
    for key in keys_of(wanted):
        assert not whole.takes(key, since)
        assert whole.takes(key, since + 1)
    for key in {*KEYS} - keys_of(wanted):
        assert not whole.takes(key, since + 1)
    assert whole.arrived(since) == (since if whole.parts else 0)
    assert whole.shown(0) == joined(wanted)
    assert whole.arrived(since) == 0


def test_parts_that_touch_and_are_of_one_revision_are_one() -> None:
    """Else what a replica says that it holds would grow with every chunk of a snapshot."""
    holding = Holding()
    for n in range(0, 100, 2):
        holding = holding.with_([(b"%03d" % n, b"%03d" % (n + 1))], 5)
    assert len(holding.parts) == 50
    for n in range(1, 100, 2):
        holding = holding.with_([(b"%03d" % n, b"%03d" % (n + 1))], 6)
    assert len(holding.parts) == 100
    assert holding.arrived(6) == 6
    assert holding.parts == [Part(b"000", b"100", 0)]
