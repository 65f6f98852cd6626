"""One pass over one HoldfastConfig: write its data to the store in one transaction, report how many replicas have it.

The object owns exactly the keys that it wrote. The store records them in the same transaction, so that keys that leave
`data` are removed, and keys of other writers are not touched.
"""

from __future__ import annotations

import json

from holdfast import client
from holdfast.client import SyncState
from holdfast.proto import holdfast_pb2, rpc_pb2

from holdfast_operator import config_sync, status
from holdfast_operator.config_sync import Sync
from holdfast_operator.kube import Kube, Object
from holdfast_operator.model.config import ConfigSpec
from holdfast_operator.model.parse import InvalidSpec, parse
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.reconcile_cluster import LATER, RETRY, SOON

RECORDS = "/holdfast.dev/configs/"
OPS_AT_ONCE = 100  # a member refuses a transaction of more than 128 operations, but for those within nested ones


class BrokenRecord(Exception):
    """The store's record of the keys that an object owns is not ours. The message says where it is and what to do."""


class ConfigReconciler:
    """The configurations of one cluster."""

    def __init__(self, kube: Kube, namespace: str, cluster: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._cluster = cluster

    async def run(
        self,
        config: Object,
        configs: list[Object],
        pools: list[Object],
        hf: client.Client | None,
        reports: list[holdfast_pb2.ReplicaReport],
    ) -> float | None:
        """One pass. `configs` and `pools`: all of this cluster. `hf`: a client of it; None if it does not answer."""
        try:
            spec = parse(ConfigSpec, config).spec
        except InvalidSpec as error:
            return await self._refuse(config, "InvalidSpec", f"this operator cannot use the object: {error}")
        conflict = _conflict(config, spec, configs)
        if conflict:
            return await self._refuse(config, "PrefixConflict", conflict)
        if hf is None:
            return await self._wait(config, "ClusterNotAvailable", "the cluster does not answer")
        try:
            known = config.get("status", {}).get("revision") or 0
            revision = await self._put(hf, config["metadata"]["name"], spec, known)
            covering = _covering(spec, pools)
            sync = await config_sync.sync(hf, spec.prefix, _at_pools(reports, covering), revision)
        except BrokenRecord as broken:
            return await self._refuse(config, "BrokenRecord", str(broken))
        except client.ClientError as error:
            return await self._wait(config, "WriteFailed", str(error))
        found = [_pool_status(pool, reports, revision, sync) for pool in covering]
        total, have = sum(p["replicas"] for p in found), sum(p["applied"] for p in found)
        message = f"{len(spec.data)} keys at revision {revision}"
        conditions = [
            *status.ready(config, True, "Written", message, progressing=False, stalled=False),
            status.condition(config, "Accepted", True, "Valid", "the data can be written"),
            status.condition(config, "Applied", True, "Written", message),
        ]
        if sync.states:
            conditions.append(status.condition(config, "InSync", sync.reason == "InSync", sync.reason, sync.message))
        told = {"revision": revision, "keys": len(spec.data), "pools": found, "summary": f"{have}/{total}"}
        await status.tell(self._kube, config, {**told, "conditions": conditions})
        return LATER if have == total and sync.reason != "Pending" else SOON

    async def _refuse(self, config: Object, reason: str, message: str) -> float:
        conditions = [
            *status.ready(config, False, reason, message, progressing=False, stalled=True),
            status.condition(config, "Accepted", False, reason, message),
            status.condition(config, "Applied", False, reason, "nothing is written"),
        ]
        await status.tell(self._kube, config, status.with_conditions(config, conditions))
        return LATER

    async def _wait(self, config: Object, reason: str, message: str) -> float:
        conditions = [
            *status.ready(config, False, reason, message, progressing=True, stalled=False),
            status.condition(config, "Accepted", True, "Valid", "the data can be written"),
            status.condition(config, "Applied", False, reason, message),
        ]
        await status.tell(self._kube, config, status.with_conditions(config, conditions))
        return RETRY

    async def _put(self, hf: client.Client, name: str, spec: ConfigSpec, known: int) -> int:
        """Write the keys that differ, in one transaction. Returns the revision that contains all of `data`."""
        record_key = f"{RECORDS}{self._namespace}/{name}"
        record = await hf.get(record_key)
        owned = _owned(record_key, record.value) if record is not None else []
        found = {kv.key: kv for kv in (await hf.range(spec.prefix, prefix=True)).kvs}
        wanted = {(spec.prefix + name).encode(): value.encode() for name, value in spec.data.items()}
        puts = [k for k, v in sorted(wanted.items()) if k not in found or found[k].value != v]
        gone = [k for k in owned if k not in wanted and k in found]
        if not puts and not gone and sorted(owned) == sorted(wanted):
            newest = max((found[k].mod_revision for k in wanted), default=0)
            return max(known, newest, record.mod_revision if record else 0)
        guard = hf.key(record_key).mod_revision == (record.mod_revision if record else 0)
        ops = [hf.op.put(k, wanted[k]) for k in puts] + [hf.op.delete(k) for k in gone]
        ops.append(hf.op.put(record_key, json.dumps([k.decode() for k in sorted(wanted)])))
        result = await hf.txn().if_(guard).then(*_nested(ops)).commit()
        if not result.succeeded:
            raise client.Unavailable("somebody else wrote this configuration at the same moment; trying again")
        return result.revision


def _nested(ops: list[rpc_pb2.RequestOp]) -> list[rpc_pb2.RequestOp]:
    """The same operations, in nested transactions if they are many: all or none of them are done in either form."""
    if len(ops) <= OPS_AT_ONCE:
        return ops
    parts = [ops[at : at + OPS_AT_ONCE] for at in range(0, len(ops), OPS_AT_ONCE)]
    return [rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(success=part)) for part in parts]


def _owned(record_key: str, value: bytes) -> list[bytes]:
    """The keys of a record. Raises BrokenRecord."""
    try:
        keys = json.loads(value)
        return [key.encode() for key in keys]
    except (ValueError, AttributeError, TypeError) as error:
        raise BrokenRecord(
            f"{record_key} in the store is no list of keys; delete it, and delete keys that are not wanted by hand"
        ) from error


def _conflict(config: Object, spec: ConfigSpec, configs: list[Object]) -> str:
    """The conflict with another object, if there is one: if prefixes overlap, the older object is applied."""
    name = config["metadata"]["name"]
    mine = (config["metadata"]["creationTimestamp"], name)
    for other in configs:
        theirs, meta = str(other["spec"].get("prefix", "")), other["metadata"]
        if meta["name"] == name or not theirs:
            continue
        overlap = spec.prefix.startswith(theirs) or theirs.startswith(spec.prefix)
        if overlap and (meta["creationTimestamp"], meta["name"]) < mine:
            return f"{theirs} belongs to the older HoldfastConfig {meta['name']}; choose another prefix"
    return ""


def _covering(spec: ConfigSpec, pools: list[Object]) -> list[Object]:
    """The pools whose prefixes cover this prefix, by name."""
    found = []
    for pool in pools:
        try:
            prefixes = parse(PoolSpec, pool).spec.prefixes
        except InvalidSpec:
            continue  # its own condition says so
        if any(spec.prefix.startswith(p) for p in prefixes):
            found.append(pool)
    return sorted(found, key=lambda pool: str(pool["metadata"]["name"]))


def _at_pools(reports: list[holdfast_pb2.ReplicaReport], pools: list[Object]) -> list[holdfast_pb2.ReplicaReport]:
    names = {pool["metadata"]["name"] for pool in pools}
    return [report for report in reports if report.pool in names]


def _pool_status(pool: Object, reports: list[holdfast_pb2.ReplicaReport], revision: int, sync: Sync) -> Object:
    """How many replicas have the revision, and what their nodes say."""
    mine = _at_pools(reports, [pool])
    have = sum(1 for report in mine if report.watermark >= revision)
    replicas = pool.get("status", {}).get("replicas", 0)
    said = {"inSync": SyncState.IN_SYNC, "failed": SyncState.FAILED, "drifted": SyncState.DRIFTED}
    nodes = [report.replica for report in mine if report.replica in sync.states]
    counts = {word: sync.count(state, nodes) for word, state in said.items()} if nodes else {}
    return {"name": pool["metadata"]["name"], "replicas": replicas, "applied": min(have, replicas), **counts}
