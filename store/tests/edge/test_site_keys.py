"""Which requests are about keys of a site, and which of its keys can be written."""

import pytest
from holdfast.edge.site_keys import Site, SiteKeys, puts_of, reported_as
from holdfast.keyrange import bounds, prefix_end
from holdfast.proto import rpc_pb2
from holdfast.status import RequestError

KEYS = SiteKeys(Site("store-12", "edge-a"))
MINE, OTHERS, CLUSTER = b"/local/store-12/till", b"/local/store-13/till", b"/config/till"


def put(key: bytes, value: bytes = b"1", lease: int = 0) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value, lease=lease))


def nested(*ops: rpc_pb2.RequestOp) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(failure=ops))


def read(key: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))


def delete(key: bytes, end: bytes = b"") -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key, range_end=end))


@pytest.mark.parametrize("name", ["a", "store-12", "a.b_c", "x" * 63])
def test_names_of_sites(name: str) -> None:
    assert SiteKeys(Site(name, "w")).prefix == b"/local/" + name.encode() + b"/"


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "x" * 64, "é", "a\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a site"):
        Site(name, "w")


def test_whose_keys() -> None:
    assert KEYS.has(bounds(MINE, b""))
    assert KEYS.has(bounds(b"/local/store-12/", prefix_end(b"/local/store-12/")))
    assert not KEYS.has(bounds(CLUSTER, b""))
    assert not KEYS.has(bounds(b"\0", b"\0")), "all keys: those of the cluster"
    for range in (bounds(OTHERS, b""), bounds(b"/local/", prefix_end(b"/local/")), bounds(MINE, b"/local/store-13/a")):
        with pytest.raises(RequestError, match="only those below /local/store-12/"):
            KEYS.has(range)


@pytest.mark.parametrize("mine", [put(MINE), read(MINE), delete(MINE), nested(put(MINE), nested(delete(MINE)))])
def test_a_transaction_is_about_the_site_or_about_the_cluster(mine: rpc_pb2.RequestOp) -> None:
    compare = rpc_pb2.Compare(key=MINE)
    assert KEYS.has_all(rpc_pb2.TxnRequest(compare=[compare], success=[mine]))
    assert not KEYS.has_all(rpc_pb2.TxnRequest(success=[put(CLUSTER), nested(read(CLUSTER))]))
    assert not KEYS.has_all(rpc_pb2.TxnRequest()), "one about no key at all: the cluster's"
    for mixed in (
        rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=CLUSTER)], success=[mine]),
        rpc_pb2.TxnRequest(compare=[compare], failure=[nested(delete(CLUSTER))]),
        rpc_pb2.TxnRequest(success=[mine], failure=[delete(b"/a", b"/b")]),
    ):
        with pytest.raises(RequestError, match="not about both"):
            KEYS.has_all(mixed)


def test_what_could_not_be_reported_is_not_written() -> None:
    KEYS.check_put(put(MINE).request_put)
    with pytest.raises(RequestError, match="have no leases"):
        KEYS.check_put(put(MINE, lease=7).request_put)
    with pytest.raises(RequestError, match="the key is not UTF-8"):
        KEYS.check_put(put(b"/local/store-12/\xff").request_put)
    with pytest.raises(RequestError, match="keys of a site are reported to the cluster"):
        KEYS.check_put(put(MINE, b"x" * 2_000_000).request_put)


def test_the_puts_of_a_transaction_are_those_of_both_branches_and_below() -> None:
    txn = rpc_pb2.TxnRequest(success=[put(b"a"), read(b"b"), nested(put(b"c"))], failure=[put(b"d")])
    assert [op.key for op in puts_of(txn)] == [b"a", b"c", b"d"]


def test_where_a_key_is_reported() -> None:
    assert reported_as(MINE) == "local/store-12/till"
