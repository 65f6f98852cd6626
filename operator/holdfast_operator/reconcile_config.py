"""One pass over one HoldfastConfig: write its data to the store in one transaction, report how many replicas have it.

The object owns exactly the keys that it wrote. The store records them in the same transaction, so that keys that leave
`data` are removed, and keys of other writers are not touched.
"""

from __future__ import annotations

import json

from holdfast import client
from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.model.config import ConfigSpec
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.reconcile_cluster import LATER, SOON

RECORDS = "/holdfast.dev/configs/"
MAX_KEYS = 100


class ConfigReconciler:
    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self._kube = kube
        self.namespace = namespace
        self.name = name

    async def close(self) -> None:
        """Nothing is kept open."""

    async def run(self, hf: client.Client | None, reports: list[holdfast_pb2.ReplicaReport]) -> float | None:
        """One pass, with a client of the cluster (None: the cluster does not answer)."""
        config = await self._kube.get("HoldfastConfig", self.namespace, self.name)
        if config is None or "deletionTimestamp" in config["metadata"]:
            return None
        spec = ConfigSpec.model_validate(config["spec"])
        conflict = await self._conflict(config, spec)
        if conflict:
            await self._write(
                config,
                {
                    **config.get("status", {}),
                    "conditions": [
                        status.condition(config, "Accepted", False, "PrefixConflict", conflict),
                        status.condition(config, "Applied", False, "PrefixConflict", "nothing is written"),
                    ],
                },
            )
            return LATER
        accepted = status.condition(config, "Accepted", True, "Valid", "the data can be written")
        if hf is None:
            waiting = status.condition(config, "Applied", False, "ClusterNotAvailable", "the cluster does not answer")
            await self._write(config, {**config.get("status", {}), "conditions": [accepted, waiting]})
            return SOON
        try:
            revision = await self._put(hf, spec, config.get("status", {}).get("revision") or 0)
        except client.ClientError as error:
            failed = status.condition(config, "Applied", False, "WriteFailed", str(error))
            await self._write(config, {**config.get("status", {}), "conditions": [accepted, failed]})
            return SOON
        applied = status.condition(config, "Applied", True, "Written", f"{len(spec.data)} keys at revision {revision}")
        pools = await self._pools(spec, reports, revision)
        total = sum(p["replicas"] for p in pools)
        have = sum(p["applied"] for p in pools)
        await self._write(
            config,
            {
                "revision": revision,
                "keys": len(spec.data),
                "pools": pools,
                "summary": f"{have}/{total}",
                "conditions": [accepted, applied],
            },
        )
        return LATER if have == total else SOON

    async def _conflict(self, config: Object, spec: ConfigSpec) -> str:
        """The conflict with another object, if there is one: if prefixes overlap, the older object is applied."""
        mine = (config["metadata"]["creationTimestamp"], self.name)
        for other in await self._kube.list("HoldfastConfig", self.namespace):
            their_spec, meta = other["spec"], other["metadata"]
            if meta["name"] == self.name or their_spec["clusterRef"]["name"] != spec.clusterRef.name:
                continue
            overlap = spec.prefix.startswith(their_spec["prefix"]) or their_spec["prefix"].startswith(spec.prefix)
            if overlap and (meta["creationTimestamp"], meta["name"]) < mine:
                return (
                    f"{their_spec['prefix']} belongs to the older HoldfastConfig {meta['name']}; choose another prefix"
                )
        return ""

    async def _put(self, hf: client.Client, spec: ConfigSpec, known: int) -> int:
        """Write the keys that differ, in one transaction. Returns the revision that contains all of `data`."""
        record_key = f"{RECORDS}{self.namespace}/{self.name}"
        record = await hf.get(record_key)
        owned: list[str] = json.loads(record.value) if record is not None else []
        found = {kv.key.decode(): kv for kv in (await hf.range(spec.prefix, prefix=True)).kvs}
        wanted = {spec.prefix + name: value.encode() for name, value in spec.data.items()}
        puts = [k for k, v in sorted(wanted.items()) if k not in found or found[k].value != v]
        gone = [k for k in owned if k not in wanted and k in found]
        if not puts and not gone and sorted(owned) == sorted(wanted):
            newest = max((found[k].mod_revision for k in wanted), default=0)
            return max(known, newest, record.mod_revision if record else 0)
        guard = hf.key(record_key).mod_revision == (record.mod_revision if record else 0)
        ops = [hf.op.put(k, wanted[k]) for k in puts] + [hf.op.delete(k) for k in gone]
        ops.append(hf.op.put(record_key, json.dumps(sorted(wanted))))
        result = await hf.txn().if_(guard).then(*ops).commit()
        if not result.succeeded:
            raise client.Unavailable("somebody else wrote this configuration at the same moment; trying again")
        return result.revision

    async def _pools(self, spec: ConfigSpec, reports: list[holdfast_pb2.ReplicaReport], revision: int) -> list[Object]:
        """For each pool whose prefixes cover this prefix: how many replicas have the revision."""
        found = []
        for pool in await self._kube.list("HoldfastEdgePool", self.namespace):
            pool_spec = PoolSpec.model_validate(pool["spec"])
            covers = any(spec.prefix.startswith(p) for p in pool_spec.prefixes)
            if pool_spec.clusterRef.name != spec.clusterRef.name or not covers:
                continue
            name = pool["metadata"]["name"]
            have = sum(1 for r in reports if r.pool == name and r.watermark >= revision)
            replicas = pool.get("status", {}).get("replicas", 0)
            found.append({"name": name, "replicas": replicas, "applied": min(have, replicas)})
        return sorted(found, key=lambda p: str(p["name"]))

    async def _write(self, config: Object, wanted: Object) -> None:
        try:
            await status.write(self._kube, config, {**wanted, "observedGeneration": config["metadata"]["generation"]})
        except ApiError as error:
            if error.reason not in ("Conflict", "NotFound"):
                raise
