"""Spans, and where the time of a slow request went."""

from __future__ import annotations

import time

from holdfast.api.call_record import CallRecord, MethodCounts
from holdfast.api.tracing import MILLION, Tracing
from holdfast.front.calls import Call, Peer
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def served(**metadata: str) -> CallRecord:
    call = Call(1, "/etcdserverpb.KV/Put", Peer("1.2.3.4:5"), metadata, None)
    return CallRecord(call, MethodCounts(), request_bytes=7)


def test_a_span_of_a_call_that_has_ended() -> None:
    kept = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(kept), "etcd", "m1", MILLION)
    done = served(traceparent=PARENT)
    done.mark("applied here")
    tracing.ended(done, done.began_ns + 5_000_000, "Unavailable")
    (span,) = kept.get_finished_spans()
    assert span.name == "etcdserverpb.KV/Put"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.attributes is not None
    assert span.end_time - span.start_time == 5_000_000
    assert abs(span.start_time - time.time_ns()) < 60e9
    assert format(span.context.trace_id, "032x") == PARENT.split("-")[1]
    assert [event.name for event in span.events] == ["applied here"]
    assert span.attributes["rpc.grpc.status"] == "Unavailable"
    assert not span.status.is_ok
    assert span.resource.attributes["service.name"] == "etcd"


def test_what_is_not_sampled_is_not_sent() -> None:
    kept = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(kept), "etcd", "m1", 0)
    tracing.ended(served(), time.monotonic_ns(), "OK")
    tracing.ended(served(traceparent=PARENT), time.monotonic_ns(), "OK")
    assert len(kept.get_finished_spans()) == 1  # its trace asked for it


def test_where_the_time_went() -> None:
    slow = served()
    slow.marks = [("applied here", slow.began_ns + 400_000_000)]
    assert slow.took(slow.began_ns + 402_000_000) == "400.0 ms until applied here, 2.0 ms until answered"
