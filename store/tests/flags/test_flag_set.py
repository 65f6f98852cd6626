"""Which keys make which document, and what is left out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from holdfast.flags.definition import (
    MAX_DEFINITION_BYTES,
    MAX_DEPTH,
    MAX_DOCUMENT_ELEMENTS,
    MAX_ELEMENTS,
    Invalid,
    elements,
    parse_object,
    shown,
)
from holdfast.flags.flag_set import ELEMENT_COST, MAX_KEYS, STEP_COST, FlagSet, told
from holdfast.flags.selector import MAX_BYTES, Selector
from holdfast.status import RequestError
from hypothesis import given
from hypothesis import strategies as st

ON = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
PREFIX = Selector(b"/flags/")
KEY = Selector(b"/flags.json")


def take(flags: FlagSet, key: bytes, value: object) -> None:
    data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    for _ in flags.take(key, data):
        pass


def made(selector: Selector, values: dict[bytes, object]) -> tuple[FlagSet, dict[str, Any]]:
    flags = FlagSet(selector)
    for key, value in values.items():
        take(flags, key, value)
    return flags, json.loads(flags.definitions().text())


def test_a_selector_is_a_key_or_a_prefix() -> None:
    assert Selector.parse("", "/flags/") == Selector(b"/flags/")
    assert Selector.parse("/app/", "/flags/").bounds == (b"/app/", b"/app0")
    whole = Selector.parse("/app/flags.json", "/flags/")
    assert whole.whole
    assert (whole.range_end, whole.bounds) == (b"", (b"/app/flags.json", b"/app/flags.json\x00"))
    for wrong in ("x" * (MAX_BYTES + 1), "\ud800"):
        with pytest.raises(RequestError, match="selector"):
            Selector.parse(wrong, "/flags/")


def test_each_key_below_a_prefix_is_a_flag_named_by_the_rest_of_the_key() -> None:
    rule = {"in": ["@holdfast", {"var": "email"}]}
    flags, document = made(
        PREFIX, {b"/flags/a": ON, b"/flags/shop/b": {**ON, "metadata": {"v": 1}}, b"/flags/$evaluators/staff": rule}
    )
    assert document == {
        "flags": {"a": ON, "shop/b": {**ON, "metadata": {"v": 1}}},
        "$evaluators": {"staff": rule},
    }
    assert not flags.left_out
    take(flags, b"/flags/a", None)
    take(flags, b"/flags/$evaluators/staff", None)
    assert json.loads(flags.definitions().text()) == {"flags": {"shop/b": {**ON, "metadata": {"v": 1}}}}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"state": "ENABLED", "variants": {"a": NaN}}', "NaN"),
        (b'{"state": "ENABLED", "variants": {"a": -Infinity}}', "Infinity"),
        (b'{"state": "ENABLED", "variants": {"a": 1e999}}', "too large"),
        (b'{"state": "ENABLED", "variants": {"a": 1%s}}' % (b"0" * 400), "too large"),
        (b'{"state": "ENABLED", "variants": {"a": 1%s}}' % (b"0" * 5000), "not JSON"),
        (b'{"state": "ENABLED", "variants": {"a": %s}}' % (b"[" * 70 + b"]" * 70), "nested"),
        (b'{"state": "ENABLED", "variants": {"a": %s}}' % (b"[" * 4_000 + b"]" * 4_000), "nested"),
        (b'{"a": "%s"}' % (b"x" * MAX_DEFINITION_BYTES), "at most"),
        (b'{"a": [%s]}' % b",".join([b"1"] * MAX_ELEMENTS), "of the characters"),
        (b'{"a": [%s]}' % (b"[[[[]]]]," * 12_000), "of the characters"),
        (json.dumps({**ON, "state": "on"}).encode(), '"state"'),
        (json.dumps({**ON, "variants": {}}).encode(), '"variants"'),
        (json.dumps({**ON, "variants": ["on"]}).encode(), '"variants"'),
        (json.dumps({**ON, "defaultVariant": "other"}).encode(), '"defaultVariant"'),
        (json.dumps({**ON, "defaultVariant": True}).encode(), '"defaultVariant"'),
        (json.dumps({**ON, "targeting": "x"}).encode(), '"targeting"'),
        (json.dumps({**ON, "metadata": {"a": None}}).encode(), '"metadata"'),
        (json.dumps({**ON, "metadata": {"": 1}}).encode(), '"metadata"'),
    ],
)
def test_what_is_no_flag_is_left_out_and_nothing_else(value: bytes, reason: str) -> None:
    flags, document = made(PREFIX, {b"/flags/a": ON, b"/flags/b": ON, b"/flags/c": ON})
    take(flags, b"/flags/b", value)
    document = json.loads(flags.definitions().text())
    assert list(document["flags"]) == ["a", "c"]
    assert list(flags.left_out) == ["b"]
    assert reason in flags.left_out["b"]
    assert flags.newly_left_out() == flags.left_out
    assert flags.newly_left_out() == {}
    take(flags, b"/flags/b", ON)
    assert list(json.loads(flags.definitions().text())["flags"]) == ["a", "b", "c"]
    assert not flags.left_out
    for key in (b"a", b"b", b"c"):
        take(flags, b"/flags/" + key, None)
    assert flags.size == 0


def test_names_that_cannot_be_used_are_left_out() -> None:
    values: dict[bytes, object] = {
        b"/flags/": ON,
        b"/flags/$metadata": ON,
        b"/flags/\xff": ON,
        b"/flags/\\xff": ON,
        b"/flags/$evaluators/": {},
    }
    flags, document = made(PREFIX, values)
    assert list(document["flags"]) == ["\\xff"]
    take(flags, b"/flags/\xff", None)
    assert list(json.loads(flags.definitions().text())["flags"]) == ["\\xff"], "another key was deleted"
    assert set(flags.left_out) == {"", "$metadata", "$evaluators/"}


@pytest.mark.parametrize(
    "name", ["", "$x", "a/b", "a.b", "a b", "a(", "[", "*", "a\\", "\u00e4", "\u0663", "a\n", 'a"']
)
def test_shared_rules_with_names_that_the_go_provider_cannot_take_are_left_out(name: str) -> None:
    """It makes a regular expression of the name, and drops the whole document if it cannot."""
    rule = {"==": [1, 1]}
    flags, document = made(
        PREFIX, {b"/flags/a": ON, b"/flags/$evaluators/Ok_1-x": rule, f"/flags/$evaluators/{name}".encode(): rule}
    )
    assert document == {"flags": {"a": ON}, "$evaluators": {"Ok_1-x": rule}}
    assert "name of a shared rule" in flags.left_out["$evaluators/" + name]
    flags, document = made(KEY, {b"/flags.json": {"flags": {"a": ON}, "$evaluators": {"Ok_1-x": rule, name: rule}}})
    assert document == {"flags": {"a": ON}, "$evaluators": {"Ok_1-x": rule}}
    assert "name of a shared rule" in flags.left_out["$evaluators/" + name]


def test_empty_shared_rules_are_left_out() -> None:
    """The Go provider refuses a document with one."""
    flags, document = made(PREFIX, {b"/flags/a": ON, b"/flags/$evaluators/r": b"{ }"})
    assert document == {"flags": {"a": ON}}
    assert "empty" in flags.left_out["$evaluators/r"]
    flags, document = made(KEY, {b"/flags.json": {"flags": {"a": ON}, "$evaluators": {"r": {}}}})
    assert document == {"flags": {"a": ON}}
    assert "empty" in flags.left_out["$evaluators/r"]


def test_fields_that_no_provider_knows_are_dropped() -> None:
    """The Python provider refuses a whole document for one."""
    _, document = made(PREFIX, {b"/flags/a": {**ON, "description": "x", "owner": "y", "targeting": None}})
    assert document["flags"]["a"] == ON


def test_a_key_may_hold_a_whole_document() -> None:
    value = {"flags": {"a": ON, "b": {}, "$c": ON}, "$evaluators": {"r": {"==": [1, 1]}}, "metadata": {"team": "x"}}
    flags, document = made(KEY, {b"/flags.json": value})
    assert document == {"flags": {"a": ON}, "$evaluators": value["$evaluators"], "metadata": {"team": "x"}}
    assert set(flags.left_out) == {"b", "$c"}
    take(flags, b"/flags.json", {"flags": {}})
    assert (json.loads(flags.definitions().text()), flags.left_out, flags.broken) == ({"flags": {}}, {}, "")
    wrongs: list[object] = [b"", b"[]", {"flags": []}, {"metadata": {"a": []}}, b"[" * 100_000]
    for wrong in wrongs:
        take(flags, b"/flags.json", wrong)
        assert flags.broken
    take(flags, b"/flags.json", None)
    assert (flags.broken, flags.definitions().text()) == ("", b'{"flags":{}}')


def test_a_change_costs_what_it_is_large_and_not_what_all_flags_are() -> None:
    flags, _ = made(PREFIX, {f"/flags/{n}".encode(): ON for n in range(5000)})
    value = json.dumps(ON).encode()
    cost = STEP_COST + len(b"/flags/7") + len(value) + ELEMENT_COST * elements(value)
    assert list(flags.take(b"/flags/7", value)) == [cost]
    assert sum(flags.take(b"/flags/7", None)) == STEP_COST + len(b"/flags/7")


def test_the_number_of_elements_is_bounded() -> None:
    """They decide how long parsing takes: a megabyte of empty lists takes as long as many megabytes of text."""
    parse_object(b'{"a": [%s]}' % b",".join([b"1"] * (MAX_ELEMENTS - 2)))
    with pytest.raises(Invalid, match=f"it has {MAX_ELEMENTS + 1} of the characters"):
        parse_object(b'{"a": [%s]}' % b",".join([b"1"] * (MAX_ELEMENTS - 1)))
    flags, document = made(KEY, {b"/flags.json": {"flags": {"a": ON}, "x": [1] * (MAX_DOCUMENT_ELEMENTS - 50)}})
    assert (list(document["flags"]), flags.broken) == (["a"], "")
    take(flags, b"/flags.json", {"flags": {"a": ON}, "x": [1] * MAX_DOCUMENT_ELEMENTS})
    assert "of the characters" in flags.broken
    assert elements(b'{"a": [1, {"b": "c"}, "d"]}') >= 5


def test_what_is_kept_is_bounded() -> None:
    flags, _ = made(PREFIX, {f"/flags/{n}".encode(): b"" for n in range(MAX_KEYS)})
    assert not flags.too_large
    take(flags, b"/flags/x", ON)
    assert flags.too_large
    names, _ = made(PREFIX, {b"/flags/" + bytes([65 + n]) * 1_000_000: b"" for n in range(5)})
    assert names.too_large


def test_what_is_told_of_it_is_short_and_printable() -> None:
    lines = told({"x" * 1000: "a", "new\nline\ud800": "b", "c": "c"}, 2)
    assert lines == ["x" * 100 + "...: a", "new?line?: b", "and 1 more"]
    assert shown("ä") == "ä"


def test_depth_is_counted_to_the_level() -> None:
    parse_object(b'{"a": %s}' % (b"[" + b",".join([b"[[]]"] * 1_000) + b"]"))
    parse_object(b'{"a": %s}' % (b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)))
    with pytest.raises(Invalid, match=f"deeper than {MAX_DEPTH}"):
        parse_object(b'{"a": %s}' % (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DEFINITION = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["ENABLED", "DISABLED"]) | JSON,
        "variants": st.dictionaries(st.text(), JSON, max_size=3) | JSON,
        "defaultVariant": st.text() | JSON,
        "targeting": st.dictionaries(st.text(), JSON, max_size=2) | JSON,
        "metadata": st.dictionaries(st.text(), JSON, max_size=2) | JSON,
    },
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.just(ON) | DEFINITION, max_size=5))
def test_whatever_is_in_the_keys_the_document_is_strict_json_with_every_valid_flag(values: dict[str, Any]) -> None:
    flags, _ = made(PREFIX, {b"/flags/" + name.encode(): value for name, value in values.items()})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    document = json.loads(flags.definitions().text(), parse_constant=refuse)
    assert set(document["flags"]) | set(flags.left_out) >= {n for n in values if not n.startswith("$evaluators/")}
    for name, value in values.items():
        if value == ON and name and not name.startswith("$"):
            assert document["flags"][name] == ON
    again, _ = made(PREFIX, {b"/flags/" + name.encode(): values[name] for name in reversed(values)})
    assert again.definitions().text() == flags.definitions().text(), "the document depends on the order of writes"
