"""OpenTelemetry spans of calls. Optional: if tracing is off, this module is not imported and nothing is recorded.

A span is made when its call has ended, from times that are recorded anyway: when it began, when it reached each step,
when it was answered. It belongs to the trace named in the client's metadata (W3C traceparent), if there is one.
"""

from __future__ import annotations

import time
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from holdfast.api.call_record import CallRecord

MILLION = 1_000_000


def exporter(address: str) -> SpanProcessor:
    """A processor that sends spans by OTLP to HOST:PORT, in batches, from a thread."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    directly: Any = (("grpc.enable_http_proxy", 0),)  # ignore proxies set in the environment
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=address, insecure=True, channel_options=directly))


class Tracing:
    """Makes a span of each finished unary call. Of a million calls without a trace, `per_million` are sampled."""

    def __init__(self, processor: SpanProcessor, service: str, instance: str, per_million: int) -> None:
        resource = Resource.create({"service.name": service, "service.instance.id": instance})
        sampler = ParentBased(TraceIdRatioBased(per_million / MILLION))
        self._provider = TracerProvider(resource=resource, sampler=sampler)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("holdfast")
        self._propagator = TraceContextTextMapPropagator()

    def ended(self, record: CallRecord, ended_ns: int, code: str) -> None:
        """See `router.Router.ended`. Times are on the monotonic clock."""
        shift = time.time_ns() - time.monotonic_ns()
        service, _, method = record.call.method[1:].rpartition("/")
        span = self._tracer.start_span(
            record.call.method[1:],
            context=self._propagator.extract(record.call.metadata),
            kind=SpanKind.SERVER,
            start_time=record.began_ns + shift,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status": code,
                "client.address": record.call.peer.address,
                "rpc.message.size": record.request_bytes,
            },
        )
        if record.name:
            span.set_attribute("holdfast.request", record.name)
        for what, at in record.marks:
            span.add_event(what, timestamp=at + shift)
        if code != "OK":
            span.set_status(Status(StatusCode.ERROR, code))
        span.end(end_time=ended_ns + shift)

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()
