"""A member as a process: combines ports, node, services and front, from the start to a graceful stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import __version__
from holdfast.api import debug
from holdfast.api.access import Access, Allowed
from holdfast.api.auth import AuthService
from holdfast.api.base import Limits, Serving
from holdfast.api.caches import CacheService
from holdfast.api.cluster import ClusterService
from holdfast.api.edge import EdgeService
from holdfast.api.election import ElectionService
from holdfast.api.flag_member import MemberReader
from holdfast.api.flags import DEFAULT_PREFIX, FlagsService
from holdfast.api.gateway import Gateway
from holdfast.api.health import Health
from holdfast.api.identity import Identities, Tokens
from holdfast.api.kv import KvService
from holdfast.api.lease import LeaseService
from holdfast.api.lock import LockService
from holdfast.api.maintenance import MaintenanceService
from holdfast.api.metrics import Metrics, Sources, member_metrics
from holdfast.api.node import NodeService, ready
from holdfast.api.ofrep import ROOT, Ofrep
from holdfast.api.operator import Operator
from holdfast.api.pages import Pages, fixed, stuck
from holdfast.api.quota import Quota
from holdfast.api.reported import ReportedService
from holdfast.api.reports import Reports
from holdfast.api.router import Router
from holdfast.api.session import SessionService
from holdfast.api.tokens import SimpleTokens
from holdfast.api.versions import Versions
from holdfast.api.watch import WatchService
from holdfast.api.watched import WatchedMember
from holdfast.api.whoami import IdentityService
from holdfast.front.calls import Call
from holdfast.front.http import HttpHandler
from holdfast.front.http2.front import Http2Front
from holdfast.garbage import freeze_what_survives
from holdfast.kv.store import StateDamaged
from holdfast.member.bootstrap import BootstrapRefused
from holdfast.member.compactor import Compactor, Retention
from holdfast.member.node import Node, NodeConfig, NodeHooks
from holdfast.process import (
    GRACE_SECONDS,
    StartError,
    file_limit,
    front_for_probes,
    host_port,
    listen,
    room_for_clients,
)
from holdfast.raft.invariant import InvariantViolation
from holdfast.storage.damage import DAMAGE, EXIT_CODE
from holdfast.storage.identity import DataDirectory, DataDirectoryError
from holdfast.storage.state import StateUnreadable
from holdfast.tasks import Tasks
from holdfast.tls import TlsFiles
from holdfast.watch.hub import Delivery

if TYPE_CHECKING:
    from holdfast.api.tracing import Tracing

log = logging.getLogger("holdfast")

MESSAGE_OVERHEAD_BYTES = 512 << 10  # a message may exceed --max-request-bytes by this, as in etcd


@dataclass(frozen=True, slots=True)
class ServerConfig:
    data_dir: Path
    node: NodeConfig
    listen_client_urls: tuple[str, ...]
    listen_peer_urls: tuple[str, ...]
    listen_client_http_urls: tuple[str, ...] = ()
    listen_metrics_urls: tuple[str, ...] = ()
    client_tls: TlsFiles = field(default_factory=TlsFiles)
    trust_common_names: bool = False  # the common name of a client's certificate is its user
    operator: Operator = field(default_factory=Operator)
    progress_seconds: float = 600.0
    limits: Limits = field(default_factory=Limits)
    versions: Versions = field(default_factory=Versions)
    tokens: Tokens = field(default_factory=SimpleTokens)
    bcrypt_cost: int = 10
    retention: Retention = field(default_factory=Retention)
    max_streams: int = 1 << 20  # per connection
    keepalive_seconds: float = 7200.0
    keepalive_timeout_seconds: float = 20.0
    tracing_address: str = ""  # host:port of an OpenTelemetry collector; empty: no spans
    tracing_service: str = "etcd"
    tracing_per_million: int = 0
    slow_request_seconds: float = 0.3
    extensive_metrics: bool = False  # also histograms of the duration of calls by method
    debug_pages: bool = False
    browsers: Allowed = field(default_factory=Allowed)
    flags_prefix: str = DEFAULT_PREFIX  # of feature flags, for providers that send no selector


class Server:
    """One member. `run` returns after a request to stop, and raises StartError if the member cannot continue."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        try:
            self._data = DataDirectory(config.data_dir)
        except DataDirectoryError as error:
            raise StartError(str(error)) from error
        except DAMAGE as error:
            raise StartError(str(error), EXIT_CODE) from error
        hooks = NodeHooks(self._deliver, self._turn_ended, self._member_ended)
        self.node = Node(self._data, config.node, hooks)
        self._tracing = self._trace() if config.tracing_address else None
        self.router = Router(
            timed=config.extensive_metrics,
            hold=self._hold,
            slow_ns=int(config.slow_request_seconds * 1e9),
            ended=self._tracing.ended if self._tracing is not None else None,
        )
        self.identities = Identities(
            config.tokens, trust_common_names=config.trust_common_names, operator=config.operator
        )
        services = Serving(self.router, self.node, self.identities, config.limits, config.versions)
        quota = Quota(config.limits.quota_bytes)
        reports = Reports()
        kv = KvService(services, quota)
        LeaseService(services, quota)
        SessionService(services, quota)
        ClusterService(services)
        AuthService(services, config.bcrypt_cost)
        LockService(services)
        ElectionService(services)
        NodeService(services, reports)
        IdentityService(services)
        ReportedService(services)
        self.maintenance = MaintenanceService(services)
        self.watch = WatchService(self.router, lambda call: WatchedMember(kv, call), config.progress_seconds)
        self.edge = EdgeService(services, reports)
        self.caches = CacheService(services)
        self.flags = FlagsService(self.router, lambda call: MemberReader(kv, call), config.flags_prefix)
        self.ofrep = Ofrep(self.router, self.flags)
        self._leaderless_since: float | None = None
        self._rights = (False, 0)  # whether auth is on, and the auth revision
        self._tasks = Tasks()
        health = Health(self.node, self._stuck, lambda: "" if ready(self.node) else self._why_not(), self._leaderless)
        self.front, self.probes = self._fronts(health)

    def _fronts(self, health: Health) -> tuple[Http2Front, Http2Front]:
        """The front for clients, and the one for probes and metrics."""
        config = self.config
        pages = {
            **health.pages(),
            "/version": fixed(lambda: (200, config.versions.page())),
            **(debug.pages(self._variables) if config.debug_pages else {}),
        }
        max_message_bytes = config.limits.request_bytes + MESSAGE_OVERHEAD_BYTES
        gateway = Gateway(self.router, max_message_bytes)
        below: dict[str, HttpHandler] = {"/v3/": gateway, "/v3beta/": gateway, ROOT: self.ofrep}
        for_clients = Pages(pages, below)
        for_probes = Pages(pages)
        front = Http2Front(
            self.router.kinds,
            Access(for_clients, config.browsers),
            max_message_bytes=max_message_bytes,
            max_streams=config.max_streams,
            max_connections=room_for_clients(),
            keepalive_seconds=config.keepalive_seconds,
            keepalive_timeout_seconds=config.keepalive_timeout_seconds,
        )
        sources = Sources(
            self.node, config.versions, config.limits, self.router, self.edge, self.maintenance, health, front
        )
        metrics = Metrics(lambda: member_metrics(sources))
        for served in (for_clients, for_probes):
            served.add("/metrics", fixed(lambda: (200, metrics.text())))
        return front, front_for_probes(for_probes)

    def _trace(self) -> Tracing:
        try:
            from holdfast.api.tracing import Tracing, exporter
        except ModuleNotFoundError as error:
            raise StartError(f"{error.name} is not installed; tracing needs pip install 'holdfast[tracing]'") from error
        config = self.config
        processor = exporter(config.tracing_address)
        return Tracing(processor, config.tracing_service, config.node.name, config.tracing_per_million)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for delivery in self.watch.deliver(deliveries):
            self.edge.follow.deliver(delivery) or self.flags.deliver(delivery)

    def _turn_ended(self) -> None:
        self.maintenance.turn_ended()
        member = self.node.member
        if member is not None:
            auth = member.state.auth
            if (auth.enabled, auth.revision) != self._rights:
                self._rights = (auth.enabled, auth.revision)
                self.watch.rights_changed()
                self.edge.follow.rights_changed()
                self.caches.rights_changed()
                self.flags.rights_changed()
        self.router.flush()

    def _member_ended(self) -> None:
        self.router.end_streams()

    def _hold(self, call: Call, go_on: Callable[[], None]) -> bool:
        """Hold a call whose token may have just been issued by another member, until its entry is applied here."""
        member = self.node.member
        if member is None:
            return False
        state = member.state
        if not self.identities.waits_for(call, state.auth, state.applied_index):
            return False
        member.read(lambda _: go_on(), call.deadline_ns)
        return True

    def _watch_leader(self) -> None:
        """Check once per election timeout; after three of them without a leader, end streams that require one."""
        seconds = self.config.node.settings.election_ns / 1e9
        asyncio.get_running_loop().call_later(seconds, self._watch_leader)
        member = self.node.member
        if member is None or member.raft.leader:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = time.monotonic()
        elif time.monotonic() > self._leaderless_since + 3 * seconds:
            self.router.leaderless()

    def _leaderless(self) -> float:
        """For how many seconds this voter has known no leader; 0 if that is less than an election timeout."""
        member, since = self.node.member, self._leaderless_since
        if since is None or member is None or member.raft.leader or not member.is_voter:
            return 0.0
        seconds = time.monotonic() - since
        return seconds if seconds > self.config.node.settings.election_ns / 1e9 else 0.0

    async def _compact(self) -> None:
        retention = self.config.retention
        compactor = Compactor(retention)
        while True:
            await asyncio.sleep(retention.interval)
            if self.node.member is not None:
                compactor.look(self.node.member)

    async def _sweep_tokens(self, tokens: SimpleTokens) -> None:
        while True:
            await asyncio.sleep(tokens.sweep_seconds)
            if self.node.member is not None:
                tokens.sweep(self.node.member.state.auth)

    async def run(self, stop: asyncio.Event) -> None:
        node = self.node
        await self._listen()
        self.router.attach(self.front)
        try:
            node.start()
        except DAMAGE as error:
            self._remember(error)
            raise StartError(str(error), EXIT_CODE) from error
        except (StateUnreadable, InvariantViolation, DataDirectoryError) as error:
            raise StartError(str(error)) from error
        except OSError as error:
            raise StartError(f"cannot use the data directory {self.config.data_dir}: {error}") from error
        freeze_what_survives()
        node.failed.add_done_callback(lambda _: stop.set())
        self._watch_leader()
        if self.config.retention != Retention():
            self._tasks.spawn(self._compact())
        if isinstance(self.identities.tokens, SimpleTokens):
            self._tasks.spawn(self._sweep_tokens(self.identities.tokens))
        await stop.wait()
        failure = node.failed.result() if node.failed.done() else None
        if isinstance(failure, DAMAGE):
            log.critical("%s", failure)
            self._remember(failure)
        self._tasks.cancel()
        await self.stop()
        if isinstance(failure, DAMAGE):
            raise StartError(str(failure), EXIT_CODE) from failure
        if failure is not None:
            if isinstance(failure, InvariantViolation):
                log.critical("an invariant does not hold; this member stops", exc_info=failure)
            if isinstance(
                failure, BootstrapRefused | StateUnreadable | InvariantViolation | DataDirectoryError | SystemExit
            ):
                raise StartError(str(failure)) from failure
            raise failure

    def _remember(self, damage: Exception) -> None:
        """Record damage of the state, because a later start may not read the damaged rows. Other damage is found at
        every start."""
        if isinstance(damage, StateDamaged):
            self._data.mark_damaged(str(damage))

    async def _listen(self) -> None:
        config = self.config
        for url in config.listen_peer_urls:
            host, port = host_port(url)
            try:
                await self.node.transport.listen(host, port)
            except OSError as error:
                raise StartError(f"cannot listen for peers on {url}: {error.strerror or error}") from error
        await listen(self.probes, config.listen_metrics_urls)
        urls = config.listen_client_urls + config.listen_client_http_urls
        await listen(self.front, urls, config.client_tls)
        for url in urls:
            if not url.startswith("https") and host_port(url)[0] not in ("127.0.0.1", "localhost", "::1"):
                log.warning("clients are served without TLS on %s: anyone who reaches it can read and write", url)
            if not url.startswith("https") and config.client_tls.given:
                ignored = ", nor --client-cert-auth" if config.trust_common_names else ""
                log.warning("%s is no https URL: --cert-file and --key-file do not count there%s", url, ignored)

    async def stop(self) -> None:
        """Transfer leadership, end streams so that clients reconnect elsewhere, wait for running calls, close files."""
        member = self.node.member
        if member is not None and not self.node.failed.done():
            await member.hand_over(1.0)
        self.router.end_streams()
        draining = asyncio.ensure_future(self.front.drain(GRACE_SECONDS))
        await asyncio.sleep(0)
        await self.node.stop(0.0)
        await draining
        self.router.detach()
        await self.front.close()
        await self.probes.close()
        if self._tracing is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._tracing.close)

    # ---- pages ---------------------------------------------------------------------------------------------

    def _variables(self) -> dict[str, object]:
        """The member's values for /debug/vars."""
        member = self.node.member
        told: dict[str, object] = {"version": __version__, "file_descriptor_limit": file_limit()}
        if member is not None:
            raft = member.raft
            shown = {"id": f"{raft.id:x}", "term": raft.term, "commit": raft.commit, "lead": f"{raft.leader:x}"}
            told["raft.status"] = shown
        return told

    def _stuck(self) -> str:
        """The problem of the member's event loop; empty if there is none."""
        member = self.node.member
        if member is None or self.node.failed.done():
            return ""
        return stuck(member.turned_at)

    def _why_not(self) -> str:
        member = self.node.member
        if member is None:
            return "belongs to no cluster yet"
        if not self._data.identity.opened:
            return "the founding of its cluster is not recorded yet"
        if not member.is_voter:
            return "a learner, not a voter yet"
        if member.disk_stalled:
            return "the disk takes no writes"
        return "has not caught up since its start"
