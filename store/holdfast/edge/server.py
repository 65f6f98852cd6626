"""An edge replica as a process: its data directory, its follower, and a front that serves even while disconnected."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.core import Metric

from holdfast.api.flags import DEFAULT_PREFIX, FlagsService
from holdfast.api.gateway import Gateway
from holdfast.api.memory import memory
from holdfast.api.metrics import Metrics, gauges, server_metrics
from holdfast.api.ofrep import ROOT, Ofrep
from holdfast.api.pages import Page, Pages, as_json, fixed
from holdfast.api.reports import Reports
from holdfast.api.router import Router
from holdfast.api.versions import Versions
from holdfast.api.watch import WatchService
from holdfast.client.connection import Tls as ClientTls
from holdfast.edge.access import Access
from holdfast.edge.core import Loaded, ReplicaCore, ranges_of
from holdfast.edge.flags import ReplicaFlags, ReplicaReader
from holdfast.edge.follow import Follower
from holdfast.edge.forward import Forwarder, connection_to
from holdfast.edge.generations import Generations
from holdfast.edge.lineage import Lineage
from holdfast.edge.local import LocalApi
from holdfast.edge.local_reports import LocalReports
from holdfast.edge.lost import keep_before_going_over
from holdfast.edge.offline import KnownFresh, OfflinePolicies, Policy
from holdfast.edge.outbox import Outbox
from holdfast.edge.ready import Ready
from holdfast.edge.relay import Relay
from holdfast.edge.reporting import Reporting
from holdfast.edge.service import EdgeApi
from holdfast.edge.site import open_site
from holdfast.edge.site_keys import Site, SiteKeys
from holdfast.edge.site_state import site_metrics, site_state
from holdfast.edge.site_writer import SiteWriter
from holdfast.edge.telling import Telling
from holdfast.edge.tokens import CheckedTokens
from holdfast.edge.verify import Verifier
from holdfast.front.calls import Call
from holdfast.front.http2.front import Http2Front
from holdfast.garbage import freeze_what_survives
from holdfast.kv.rows import Change
from holdfast.kv.store import StateDamaged, StoreBusy
from holdfast.process import GRACE_SECONDS, StartError, front_for_probes, listen, room_for_clients
from holdfast.served.keyspace import ServedSpace
from holdfast.served.prune_task import PruneTask
from holdfast.served.scans import Scans
from holdfast.storage.damage import DAMAGE, EXIT_CODE, REPLACE
from holdfast.storage.identity import DataDirectory, DataDirectoryError, NothingTaken, ReadOnlyDirectory
from holdfast.storage.patrol import SLICE_SECONDS, Patrol
from holdfast.storage.state import RocksStore, StateUnreadable, TakesNothing
from holdfast.tls import TlsFiles
from holdfast.watch.hub import Delivery

log = logging.getLogger("holdfast.edge")

SYNC_SECONDS = 1.0
PROGRESS_SECONDS = 10.0  # a watermark that moved without a change is stored so often
DURABLE_SECONDS = 600.0  # and made durable so often: a power cut makes the replica ask for nothing twice
_TOKENS, _FRESH = b"tokens", b"fresh"  # among the notes; see `edge.tokens` and `edge.offline`
EMPTY_IT = "remove all but local/, the keys of its site, from the replica's directory, and it follows anew"
_SITE_LOST = (
    "these keys are written by this replica: name another one as --site-writer, which goes on from its copy; or remove "
    "the directory local/ at all replicas of the site, to begin without them. What was reported of them is in the "
    "cluster, below /reported/REPLICA/local/"
)


def _with_way_back(damage: Exception, way_back: str = EMPTY_IT) -> str:
    """What was found, and what to do about it. The layers below say what to do with a member."""
    found = str(damage)
    return found.replace(REPLACE, way_back) if REPLACE in found else f"{found}; {way_back}"


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """The options of a replica. `prefixes`: the keys that it holds. `endpoints` (host:port): members, or a
    replica, to follow and to forward to."""

    name: str
    data_dir: Path
    prefixes: tuple[str, ...]
    endpoints: tuple[str, ...]
    listen_client_urls: tuple[str, ...]
    parents: tuple[str, ...] = ()  # replicas to follow if possible, before `endpoints`
    listen_metrics_urls: tuple[str, ...] = ()
    pool: str = ""
    server_tls: TlsFiles = field(default_factory=TlsFiles)
    upstream_tls: ClientTls | None = None
    anonymous_reads: bool = False  # serve everyone even if auth is on in the cluster
    trust_common_names: bool = False  # the common name of a client's certificate is its user
    offline: tuple[Policy, ...] = ()  # what is served while the replica is cut off
    verify_seconds: float = 86400.0  # between two comparisons with the upstream; 0: none
    offline_token_seconds: float = 3600.0  # for so long a token is honoured after a member has checked it
    site: Site | None = None  # whose keys below /local/ this replica writes, or has a copy of
    flags_prefix: str = DEFAULT_PREFIX  # of feature flags, for providers that send no selector


class EdgeServer:
    """One replica. `run` returns after a request to stop."""

    def __init__(self, config: EdgeConfig) -> None:
        self.config = config
        try:
            self._data, self.generations = _open(config.data_dir)
            self.core = ReplicaCore(
                self.generations.store,
                ranges_of(config.prefixes),
                self._data.identity.volume_id,
                self.generations.building,
            )
        except (DataDirectoryError, StateUnreadable) as error:
            raise StartError(str(error)) from error
        except OSError as error:
            raise StartError(f"cannot use the data directory {config.data_dir}: {error}") from error
        except DAMAGE as error:
            raise StartError(_with_way_back(error), EXIT_CODE) from error
        loop = asyncio.get_running_loop()
        self._damaged: asyncio.Future[StateDamaged] = loop.create_future()
        self._store.on_damage = self._found_damage
        reports = Reports(above=lambda: self.core.path.nodes)
        self._tiers = [
            connection_to(listed, config.upstream_tls, config.data_dir / cache)
            for listed, cache in ((config.parents, "cache-parents"), (config.endpoints, "cache"))
            if listed
        ]
        self.follower = Follower(
            self.core,
            self._tiers,
            name=config.name,
            pool=config.pool,
            changed=self._changed,
            replaced=self._replaced,
            rights_changed=self._rights_changed,
            placed=self._placed,
            fresher=self._fresher,
            below=reports.all,
            restored=self._keep_lost,
            build=self._build,
            built=self._built,
            site=lambda: site_state(self._local),
        )
        notes = self.core.notes
        self.access = Access(
            self.core,
            CheckedTokens(config.offline_token_seconds, notes.get(_TOKENS) or b"", time.time),
            name=config.name,
            trust_common_names=config.trust_common_names,
            anonymous_reads=config.anonymous_reads,
            reaches_cluster=self._reaches_cluster,
        )
        self._known_fresh = KnownFresh(notes.get(_FRESH) or b"", time.time)
        self._offline = OfflinePolicies(
            config.offline,
            name=config.name,
            online=self._reaches_cluster,
            age_seconds=lambda: self._known_fresh.age(self.follower.staleness_ms),
        )
        self._was_served = self._offline.state()
        self.router = Router(hold=self._hold, site=config.site.name if config.site is not None else "")
        self.served = ServedSpace(self.core.space, Scans(loop.call_soon, self.router.flush))
        self._telling = Telling(self.served, self._deliver)
        self._local = self._open_site()
        self.api = EdgeApi(
            self.router,
            self.core,
            self.follower,
            Forwarder(self._tiers[-1], self.access),
            name=config.name,
            volume_id=self._data.identity.volume_id,
            prefixes=config.prefixes,
            access=self.access,
            offline=self._offline,
            served=self.served,
            reports=reports,
            poke=self._telling.soon,
            local=self._local,
        )
        self.relay = Relay(self.router, self.core, self.follower, self.api, reports)
        outbox = Outbox(notes, config.name, self._data.identity.incarnation)
        site = self._local.site if self._local is not None else None
        self._reporting = Reporting(
            self.router,
            self.core,
            outbox,
            self.access,
            ask=self.follower.ask,
            durable=self._durable,
            node=config.name,
            local=LocalReports(site.overlay, outbox) if isinstance(site, SiteWriter) else None,
        )
        self._verifier = Verifier(self.core, self.served, self.follower.ask, self._gave_up, config.verify_seconds)
        self.watch = WatchService(self.router, self.api.watchable)
        flags = ReplicaFlags(self.served, lambda: self.follower.staleness_ms, self._tell)
        self.flags = FlagsService(
            self.router, lambda call: ReplicaReader(self.api, flags, call), default=config.flags_prefix
        )
        metrics = Metrics(self._metrics)
        pages: dict[str, Page] = {
            **Ready(self.core, lambda: self._turned_at, lambda: self.follower.staleness_ms).pages(),
            "/metrics": fixed(lambda: (200, metrics.text())),
            "/health": fixed(self._health),
            "/version": fixed(lambda: (200, Versions().page())),
        }
        gateway = Gateway(self.router)
        for_clients = Pages(pages, {"/v3/": gateway, "/v3beta/": gateway, ROOT: Ofrep(self.router, self.flags)})
        self.front = Http2Front(self.router.kinds, for_clients, max_connections=room_for_clients())
        self.probes = front_for_probes(Pages(pages))
        self._turned_at = time.monotonic()
        self._synced = self.core.written
        self._saved_at = self._synced_at = time.monotonic()
        self._pruning = PruneTask(self.served, loop.call_later, self.router.flush)
        self._was_full = False
        self._received = asyncio.Event()  # a snapshot, to be made durable at once

    def _reaches_cluster(self) -> bool:
        return self.follower.reaches_cluster

    def _hold(self, call: Call, go_on: Callable[[], None]) -> bool:
        return self.api.hold(call, go_on)

    @property
    def _store(self) -> RocksStore:
        return self.generations.store

    def _health(self) -> tuple[int, str]:
        """As at a member, where it means that reads are answered."""
        if self.core.complete:
            return 200, as_json({"health": "true", "reason": ""})
        return 503, as_json({"health": "false", "reason": "no data yet"})

    def _found_damage(self, damage: StateDamaged) -> None:
        """On whichever thread."""
        self._damaged.get_loop().call_soon_threadsafe(self._state_damaged, damage)

    def _state_damaged(self, damage: StateDamaged) -> None:
        """Handle damage found by a read: stop, and refuse to start again until the directory has been emptied."""
        if not self._damaged.done():
            log.critical("%s", _with_way_back(damage))
            self._data.mark_damaged(str(damage))
            self._damaged.set_result(damage)

    async def run(self, stop: asyncio.Event) -> None:
        await listen(self.probes, self.config.listen_metrics_urls)
        await listen(self.front, self.config.listen_client_urls, self.config.server_tls)
        self.router.attach(self.front)
        freeze_what_survives()
        p = self.core.position
        if p.cluster_id:
            log.info("holding cluster %x as of revision %d", p.cluster_id, p.watermark)
        following = asyncio.ensure_future(self.follower.run())
        syncing = asyncio.ensure_future(self._keep())
        reporting = asyncio.ensure_future(self._reporting.run())
        verifying = asyncio.ensure_future(self._verifier.run()) if self.config.verify_seconds else None
        site = self._local.site if self._local is not None else None
        keeping_site = [] if site is None else [asyncio.ensure_future(site.run())]
        tasks = (following, syncing, reporting, *keeping_site)
        for task in tasks:
            task.add_done_callback(lambda _: stop.set())
        self._damaged.add_done_callback(lambda _: stop.set())
        await stop.wait()
        self._pruning.stop()
        failed = next((t for t in tasks if t.done() and not t.cancelled()), None)
        for task in tasks:
            task.cancel()
        if verifying is not None:
            verifying.cancel()
        self.router.end_streams()
        await self.front.drain(GRACE_SECONDS)
        self.router.detach()
        await self.front.close()
        await self.probes.close()
        for connection in self._tiers:
            await connection.close()
        if not self.core.stalled:
            self._save_fresh()
            self.core.save()
            self._save_tokens()
        for part in (site, self.generations):
            with contextlib.suppress(StateDamaged, StoreBusy):
                if part is not None:
                    await part.close()
        self._data.close()
        if self._damaged.done():
            raise StartError(_with_way_back(self._damaged.result()), EXIT_CODE)
        if failed is not None:
            try:
                failed.result()
            except StateUnreadable as error:
                raise StartError(str(error)) from error

    # ---- callbacks of the follower -------------------------------------------------------------------------

    def _changed(self, changes: list[Change]) -> None:
        self._tell([changes] if changes else [])
        self.api.reached()

    def _fresher(self) -> None:
        self.api.fresher()

    def _replaced(self, loaded: Loaded) -> None:
        p = self.core.position
        log.info("took a snapshot of cluster %x at revision %d", p.cluster_id, p.watermark)
        self._received.set()
        self.served.replace(self.core.space, another_history=loaded is Loaded.ANOTHER_HISTORY)
        self.flags.sets.read_again()
        self._tell()
        self.api.reached()

    async def _build(self) -> None:
        """A snapshot begins."""
        self.core.build(await self.generations.renew())

    async def _built(self) -> None:
        """A snapshot is whole: it takes the place of what is here."""
        self.core.conclude()
        if self.core.stalled:
            return  # the next frame waits for the store, and then it is tried again
        await self.generations.use()
        loaded = self.core.succeed()
        self.generations.succeed().on_damage = self._found_damage
        self._synced = self.core.written
        self._replaced(loaded)

    async def _keep_lost(self, later: Lineage) -> None:
        """The cluster was restored: keep what it lost, before its snapshot replaces what is here."""
        p = self.core.position
        log.warning(
            "the cluster was restored from its revision %d, in epoch %d: serving what epoch %d had at revision %d "
            "until the snapshot is here",
            *(later.restored_from, later.epoch, p.epoch, p.watermark),
        )
        await keep_before_going_over(self._data.path, self.core, later)
        if self._local is not None and isinstance(self._local.site, SiteWriter):
            self._local.site.overlay.report_again()
            self._reporting.look()

    def _rights_changed(self) -> None:
        self.watch.rights_changed()
        self.flags.rights_changed()
        self.relay.follow.rights_changed()

    def _gave_up(self) -> None:
        """A part of the data was not that of the upstream."""
        self._rights_changed()  # nobody is shown it any more
        self.follower.fetch_anew()

    def _placed(self) -> None:
        """The path to the cluster has changed: the replicas below have to know, lest a loop forms."""
        self.relay.follow.moved()
        if self._reaches_cluster():
            self._reporting.try_again()

    def _tell(self, revisions: Sequence[list[Change]] = ()) -> None:
        self._telling.tell(revisions)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for delivery in self.watch.deliver(deliveries):
            self.relay.follow.deliver(delivery) or self.flags.deliver(delivery)
        self.router.flush()

    # ---- keys of the site ----------------------------------------------------------------------------------

    def _open_site(self) -> LocalApi | None:
        config, site = self.config, self.config.site
        if site is None:
            return None
        keys, writes = SiteKeys(site), site.writer == config.name
        # The name of the writer is looked up before the site is cut off, perhaps from its DNS as well.
        cache = config.data_dir / "cache-site"
        writer = None if writes else connection_to([site.address], config.upstream_tls, cache)
        try:
            served = open_site(
                self._data.path,
                keys,
                name=config.name,
                node=self._data.identity.volume_id,
                writer=writer,
                tell=self._tell_site,
                changed=self._site_changed,
                damaged=self._found_damage,
                flush=self.router.flush,
            )
        except (OSError, StateUnreadable, StoreBusy) as error:
            raise StartError(f"cannot use the keys of the site in {self._data.path}: {error}") from error
        except DAMAGE as error:
            raise StartError(_with_way_back(error, _SITE_LOST if writes else EMPTY_IT), EXIT_CODE) from error
        self._telling_site = Telling(served.served, self._deliver)
        return LocalApi(
            self.router,
            keys,
            served,
            None if writer is None else Forwarder(writer, self.access, site=site.name),
            self.access,
            name=config.name,
            node=self._data.identity.volume_id,
            poke=self._telling_site.soon,
        )

    def _site_changed(self) -> None:
        self._reporting.look()

    def _tell_site(self, revisions: list[list[Change]]) -> None:
        assert self._local is not None
        self._telling_site.tell(revisions)
        self._local.reached()

    # ---- the data on disk ----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Make received data durable about every second, and a snapshot at once. A crash of the process loses nothing;
        a power cut loses at most the last second, which the replica then requests again."""
        loop = asyncio.get_running_loop()
        patrol, patrolled_at = Patrol(self._store), time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS):
                    await self._received.wait()
            self._received.clear()
            if time.monotonic() > patrolled_at + SLICE_SECONDS:
                patrolled_at = time.monotonic()
                if patrol.store is not self._store:
                    patrol = Patrol(self._store)
                await loop.run_in_executor(None, patrol.step)
            self._turned_at = time.monotonic()
            self._end_what_is_too_old()
            await self._sync()
            await self._remove_unused()
            self._forget_history()

    def _end_what_is_too_old(self) -> None:
        """Watches of what is not served any more are cancelled."""
        now = self._offline.state()
        if now != self._was_served:
            self._was_served = now
            self.watch.rights_changed()
            self.flags.rights_changed()

    async def _sync(self) -> None:
        now, core = time.monotonic(), self.core
        building = self.generations.building
        if building is not None and building.full:
            self._go_on_if_there_is_room(building)
        full = self._store.full or (building is not None and building.full)
        if self._store.full:
            self._go_on_if_there_is_room(self._store)
        elif not core.stalled:
            if now > self._saved_at + PROGRESS_SECONDS:
                self._saved_at = now
                self._save_fresh()
                core.save()
                self._save_tokens()
            written = core.written
            if written != self._synced or now > self._synced_at + DURABLE_SECONDS:
                try:
                    await asyncio.get_running_loop().run_in_executor(None, self._store.sync)
                except StoreBusy as error:
                    log.warning("what came in is not durable yet; it is tried again: %s", error)
                    return
                self._synced, self._synced_at = written, now
        if full and not self._was_full:
            log.error("the disk of %s is full: changes are not taken until there is room", self._data.path)
        self._was_full = full

    async def _durable(self) -> bool:
        """Make durable all that was written. Returns whether it is."""
        if self.core.stalled:
            return False
        try:
            for store in self.generations.used:
                await asyncio.get_running_loop().run_in_executor(None, store.sync)
        except StoreBusy:
            return False
        return True

    def _save_fresh(self) -> None:
        fresh = self._known_fresh.store(self.follower.staleness_ms) if self.config.offline else None
        if fresh is not None:
            self.core.notes.put(_FRESH, fresh)

    def _save_tokens(self) -> None:
        if self.access.tokens.changed:
            self.core.notes.put(_TOKENS, self.access.tokens.stored())

    def _go_on_if_there_is_room(self, store: RocksStore) -> None:
        """Reopen the store if there is room. No other read is in progress now: reads run on the loop, or are awaited by
        the task that calls this."""
        if self.served.scans.idle and store.has_room():
            store.reopen()
            if not store.full:
                log.warning("the disk of %s takes writes again: changes are taken", self._data.path)

    async def _remove_unused(self) -> None:
        """Remove what is not served any more, and a snapshot that is built no more."""
        if self.core.building is None and not self.core.wants_store:
            self.generations.give_up()
        if self.generations.retired and self.served.scans.idle and not self.relay.follow.followers.snapshots:
            await self.generations.remove_retired()

    def _forget_history(self) -> None:
        if self.served.pruned and not self.core.stalled:
            self.core.forget_history()
        self._pruning.start()

    def _metrics(self) -> Iterator[Metric]:
        staleness = self.follower.staleness_ms
        yield from server_metrics(self.router, self.front)
        yield from memory(self._store, 0, self.front)
        yield from gauges(
            {
                "holdfast_replica_connected": float(self.follower.connected),
                "holdfast_replica_watermark": self.core.position.watermark,
                "holdfast_replica_epoch": self.core.position.epoch,
                "holdfast_replica_staleness_seconds": float("nan") if staleness is None else staleness / 1000,
                "holdfast_replica_stalled": float(self.core.stalled),
                "holdfast_replica_watchers": self.served.hub.watchers,
                "holdfast_replica_depth": len(self.core.path.nodes) - 1,
                "holdfast_replicas_following": len(self.relay.follow.streams),
                "holdfast_replica_verified": self._verifier.compared,
                "holdfast_replica_verify_different": self._verifier.different,
                "holdfast_replica_reports_waiting": self._reporting.waiting,
            }
        )
        if self._local is not None:
            yield from site_metrics(self._local)


def _open(path: Path) -> tuple[DataDirectory | ReadOnlyDirectory, Generations]:
    """Open the replica's directory and state, or create an empty one. If the disk takes nothing, what is there is
    served until it does. Raises DataDirectoryError, Damaged, StateDamaged or StateUnreadable."""
    data: DataDirectory | None = None
    try:
        data = DataDirectory(path, kind="replica")
        return data, Generations.of(data)
    except (NothingTaken, TakesNothing) as error:
        if data is not None:
            data.close()
        try:
            left = ReadOnlyDirectory(path, "replica")
        except DataDirectoryError:
            raise error from None  # there is nothing to serve
        generations = Generations.read_only(left)
        log.error("%s: what is there is served; changes are not taken until the disk takes writes", error)
        return left, generations
