"""What the gateway reads: streams of objects in pieces of any size, and requests by the rules of protobuf's JSON."""

from __future__ import annotations

import json

import pytest
from holdfast.api.json_request import MAX_PARTS, BadJson, decode
from holdfast.api.json_stream import NotObjects, Objects
from holdfast.proto import rpc_pb2
from hypothesis import given
from hypothesis import strategies as st

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_objects = st.lists(st.dictionaries(st.text(), _values, max_size=4), max_size=5)


@given(_objects, st.sampled_from(["", " ", "\n", "\r\n\t "]), st.booleans(), st.data())
def test_objects_are_cut_apart_whatever_the_pieces_are(
    objects: list[dict[str, object]], between: str, ascii_only: bool, data: st.DataObject
) -> None:
    text = between.join(json.dumps(value, ensure_ascii=ascii_only) for value in objects).encode("utf-8")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    stream, found = Objects(), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += stream.feed(text[start:end])
    assert [json.loads(part) for part in found] == objects
    assert stream.waiting == 0


def test_what_is_not_whole_waits_and_what_is_no_object_is_refused() -> None:
    stream = Objects()
    assert stream.feed(b' {"a":"}\\"') == []
    assert stream.waiting == 9
    assert stream.feed(b'}"} ') == [b'{"a":"}\\"}"}']
    with pytest.raises(NotObjects):
        stream.feed(b"[1]")


def test_a_piece_costs_what_it_holds_and_not_what_came_before() -> None:
    stream = Objects()
    stream.feed(b'{"x":[' + b"1," * 200_000)
    kept = id(stream._kept)
    for _ in range(1000):
        stream.feed(b"1")
        stream.feed(b",")
    assert id(stream._kept) == kept  # added to, never copied
    (whole,) = stream.feed(b"1]}")
    assert len(json.loads(whole)["x"]) == 201_001


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('{"limit":"1"}', "limit", 1),
        ('{"limit":1.0}', "limit", 1),
        ('{"limit":"-1.50e1"}', "limit", -15),
        ('{"limit":100e-2}', "limit", 1),
        ('{"limit":0.01e2}', "limit", 1),
        ('{"limit":0e99999999999}', "limit", 0),
        ('{"limit":-9223372036854775808}', "limit", -(1 << 63)),
        ('{"limit":null}', "limit", 0),
        ('{"key":"-_8"}', "key", b"\xfb\xff"),
        ('{"key":"+/8="}', "key", b"\xfb\xff"),
        ('{"key":"YQ"}', "key", b"a"),
        ('{"key":"YQ==\\r\\n\\r\\n"}', "key", b"a"),
        ('{"rangeEnd":"YQ=="}', "range_end", b"a"),
        ('{"sort_order":"DESCEND"}', "sort_order", 2),
        ('{"sort_order":1e0}', "sort_order", 1),
        ('{"keys_only":true,"newer":{"a":[1,{}]},"newer":2}', "keys_only", True),
    ],
)
def test_what_is_right(text: str, field: str, value: object) -> None:
    assert getattr(decode(text, rpc_pb2.RangeRequest), field) == value


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "null", "5", '"abc"', "true", "", "{", "{}{}", "{} x", "{'key':1}", '{"key":"YQ==",}', "\ufeff{}"),
        *('{"key":"user:42x"}', '{"key":"pass word"}', '{"key":"a.b.c"}', '{"key":"YQ="}', '{"key":"YQ==="}'),
        *('{"key":"="}', '{"key":"===="}', '{"key":"YQ=a"}', '{"key":"Y"}', '{"key":"+_8"}', '{"key":"é"}'),
        *('{"key":5}', '{"key":["YQ=="]}', '{"key":"\\ud800"}', '{"key":"YQ==","key":"YQ=="}'),
        *('{"rangeEnd":"","range_end":""}', '{"limit":NaN}', '{"x":Infinity}', '{"limit":1.5}', '{"limit":"1_0"}'),
        *('{"limit":"+1"}', '{"limit":" 1"}', '{"limit":"0x1"}', '{"limit":"01"}', '{"limit":""}', '{"limit":true}'),
        *('{"limit":"\u0661"}', '{"limit":9223372036854775808}', '{"limit":1e400}', '{"limit":1e99999999999}'),
        *('{"limit":{}}', '{"limit":[1]}', '{"keys_only":1}', '{"keys_only":"true"}', '{"sort_order":true}'),
        *('{"sort_order":99999999999}', '{"limit":' + "1" * 5000 + "}", '{"x":' * 100_000),
    ],
)
def test_what_is_wrong(text: str) -> None:
    with pytest.raises(BadJson):
        decode(text, rpc_pb2.RangeRequest)


@pytest.mark.parametrize(
    "text",
    [
        '{"compare":{}}',
        '{"compare":[null]}',
        '{"compare":[[]]}',
        '{"success":[{"request_put":[]}]}',
        '{"success":[{"request_put":"x"}]}',
        '{"success":[{"request_put":{},"request_range":{}}]}',
        '{"compare":[{"version":1,"lease":1}]}',
        '{"success":[' + ",".join(["{}"] * (MAX_PARTS + 1)) + "]}",
        '{"success":' * 500 + "[]" + "}" * 500,
    ],
)
def test_what_is_wrong_within_a_message(text: str) -> None:
    with pytest.raises(BadJson):
        decode(text, rpc_pb2.TxnRequest)


def test_text_is_text() -> None:
    assert decode('{"name":"\\ud83d\\ude00"}', rpc_pb2.AuthRoleAddRequest).name == "😀"
    assert decode('{"peerURLs":["a","b"]}', rpc_pb2.MemberAddRequest).peerURLs == ["a", "b"]
    for wrong in ('{"name":"\\ud800"}', '{"name":5}', '{"name":{}}'):
        with pytest.raises(BadJson):
            decode(wrong, rpc_pb2.AuthRoleAddRequest)
    with pytest.raises(BadJson):
        decode('{"peerURLs":["a",5]}', rpc_pb2.MemberAddRequest)
    with pytest.raises(BadJson):
        decode('{"peerURLs":["a",null]}', rpc_pb2.MemberAddRequest)


@pytest.mark.parametrize("part", ["[]", '""', "null", '"x":""', "{}"])
def test_a_body_of_very_many_parts_is_refused_before_it_is_parsed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four megabytes of empty lists, which were not counted, blocked the loop for seconds."""
    monkeypatch.setattr(json.JSONDecoder, "decode", lambda *_: pytest.fail("it was parsed"))
    around = "{%s}" if ":" in part else '{"x":[%s]}'
    with pytest.raises(BadJson, match="more than"):
        decode(around % ",".join([part] * (2 * MAX_PARTS + 1)), rpc_pb2.PutRequest)
