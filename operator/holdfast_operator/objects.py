"""Keeps an object of ours as it is wanted: creates it, compares it with the live one, applies it, or deletes it.

The live object is the truth; nothing is remembered between passes. An object is applied if it was made from something
else (an annotation has the hash), or if a field that we set is missing or has another value. Fields that we do not set
are left to those who set them.
"""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from typing import Any

from holdfast_operator.kube import FIELD_MANAGER, ApiError, Kube, Object

APPLIED = "holdfast.dev/applied"  # annotation: the hash of what the object was made from
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_FACTORS = {"m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12)}
_FACTORS |= {"Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40)}
_IMMUTABLE = ("volumeClaimTemplates", "selector", "serviceName", "podManagementPolicy")  # of a StatefulSet


class NotOurs(Exception):
    """An object with a name that we need belongs to somebody else. The message says which, and what to do."""


class Leaving(Exception):
    """An object with a name that we need is being deleted. The next passes wait until it is gone."""


async def ensure(kube: Kube, owner: Object, wanted: Object) -> Object:
    """Make the live object like `wanted`. Returns it. Raises NotOurs, Leaving and ApiError."""
    meta = wanted["metadata"]
    return await ensure_from(kube, owner, wanted, await kube.get(wanted["kind"], meta["namespace"], meta["name"]))


async def ensure_from(kube: Kube, owner: Object, wanted: Object, live: Object | None) -> Object:
    """`ensure` for an object that was read just now; None: there is none."""
    kind, meta = wanted["kind"], wanted["metadata"]
    if live is None:
        return await _create(kube, owner, wanted)
    live = {**live, "kind": kind}
    check_owner(owner, live)
    marked = _marked(wanted)
    if kind == "StatefulSet":
        # These cannot be changed, and with a change of one of them the whole apply would be refused.
        kept = {key: live["spec"][key] for key in _IMMUTABLE if key in live["spec"]}
        marked = {**marked, "spec": {**marked["spec"], **_bare(kept)}}
    if is_applied(marked, live) and _is_exact(marked, live):
        return live
    await _own(kube, live)
    uid = {"uid": live["metadata"]["uid"]}
    try:
        done = await kube.apply(kind, meta["namespace"], {**marked, "metadata": {**marked["metadata"], **uid}})
        if kind != "Service" or _is_exact(marked, done):
            return done
    except ApiError as error:
        if error.reason != "Invalid" or kind != "Service":
            raise
    # An apply keeps items of lists that others added: another port of a Service. If its port was changed by hand, both
    # together are invalid, because two ports have one name. A replacement has only our items.
    fresh = await kube.get(kind, meta["namespace"], meta["name"])
    if fresh is None:
        raise Leaving(f"the {kind} {meta['name']} is being deleted")
    return await kube.replace({**_over(fresh, marked), "kind": kind})


async def ensure_absent(kube: Kube, owner: Object, kind: str, name: str) -> Object | None:
    """Delete the object if it is ours. Returns what was found."""
    namespace = owner["metadata"]["namespace"]
    live = await kube.get(kind, namespace, name)
    if live is not None and "deletionTimestamp" not in live["metadata"] and is_owned(owner, live):
        await kube.delete(kind, namespace, name, uid=live["metadata"]["uid"])
    return live


def is_owned(owner: Object, obj: Object) -> bool:
    """Whether `owner` is the controller of `obj`, by uid: an object of the same name that was made later is another."""
    found = _controller(obj)
    return found is not None and found["uid"] == owner["metadata"]["uid"]


def check_owner(owner: Object, obj: Object) -> None:
    """Raise NotOurs or Leaving unless `obj` is owned by `owner` and stays."""
    kind, name = obj["kind"], obj["metadata"]["name"]
    controller = _controller(obj)
    same_name = controller is not None and (controller["kind"], controller["name"]) == (
        owner["kind"],
        owner["metadata"]["name"],
    )
    if "deletionTimestamp" in obj["metadata"] or (same_name and not is_owned(owner, obj)):
        raise Leaving(f"the {kind} {name} of an earlier {owner['kind']} is being deleted")
    if not is_owned(owner, obj):
        raise NotOurs(f"the {kind} {name} exists and is not ours; rename it, or this {owner['kind']}")


def is_applied(marked: Object, live: Object) -> bool:
    """Whether `live` was made from `marked`, and still has everything that it sets."""
    annotations = live["metadata"].get("annotations") or {}
    return annotations.get(APPLIED) == marked["metadata"]["annotations"][APPLIED] and _has(live, marked)


def _is_exact(wanted: Object, live: Object) -> bool:
    """Whether a selector has nothing that we did not set, and a Service no other port: either changes what the object
    does for our pods."""
    if wanted["kind"] not in ("Service", "PodDisruptionBudget"):
        return True
    ours, theirs = wanted["spec"], live["spec"]
    selects = "selector" not in ours or ours["selector"] == theirs.get("selector")
    return selects and len(ours.get("ports", ())) == len(theirs.get("ports") or ())


async def _create(kube: Kube, owner: Object, wanted: Object) -> Object:
    """POST, because an apply would take over an object that somebody made meanwhile."""
    kind, meta = wanted["kind"], wanted["metadata"]
    try:
        return await kube.create(kind, meta["namespace"], _marked(wanted))
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    live = await kube.get(kind, meta["namespace"], meta["name"])
    if live is None:
        raise Leaving(f"the {kind} {meta['name']} is being deleted")
    check_owner(owner, {**live, "kind": kind})
    return live  # another operator made it; the next pass compares it


async def _own(kube: Kube, live: Object) -> None:
    """Turn the fields that a POST set into fields that we applied. Otherwise a field that is no longer wanted would
    stay, because the API server takes the POST for another writer."""
    managers = live["metadata"].get("managedFields", [])
    ours = [m for m in managers if m.get("manager") == FIELD_MANAGER and not m.get("subresource")]
    posted = next((m for m in ours if m.get("operation") == "Update"), None)
    if posted is None:
        return
    applied = next((m for m in ours if m.get("operation") == "Apply"), None)
    fields = _union(posted["fieldsV1"], applied["fieldsV1"] if applied else {})
    rest = [m for m in managers if m not in (posted, applied)]
    await kube.replace_managers(live, [*rest, {**posted, "operation": "Apply", "fieldsV1": fields}])


def _union(one: Object, other: Object) -> Object:
    return {key: _union(one.get(key, {}), other.get(key, {})) for key in {**one, **other}}


def _controller(obj: Object) -> Object | None:
    owners: list[Object] = obj["metadata"].get("ownerReferences", [])
    return next((o for o in owners if o.get("controller")), None)


def _marked(wanted: Object) -> Object:
    meta = wanted["metadata"]
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    return {**wanted, "metadata": {**meta, "annotations": {**meta.get("annotations", {}), APPLIED: digest}}}


def _bare(kept: Object) -> Object:
    """Live fields of a StatefulSet without what the API server added to them."""
    claims = kept.get("volumeClaimTemplates")
    if claims is None:
        return kept
    bare = [{"metadata": {"name": c["metadata"]["name"]}, "spec": c["spec"]} for c in claims]
    return {**kept, "volumeClaimTemplates": bare}


def _over(live: Any, wanted: Any) -> Any:
    """`live` with everything that `wanted` has, whose lists and selectors take the place of those in `live`."""
    if not isinstance(live, dict) or not isinstance(wanted, dict):
        return wanted
    return {
        **live,
        **{key: value if key == "selector" else _over(live.get(key), value) for key, value in wanted.items()},
    }


def _has(live: Any, wanted: Any, *, quantity: bool = False) -> bool:
    """Whether `live` has everything that `wanted` has. Lists of named things may have further ones."""
    if live == wanted:
        return True  # so it is for most of a settled object
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return not wanted and live is None
        return all(
            _has(live.get(key), value, quantity=key in ("requests", "limits") or quantity)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return _has_list(live if isinstance(live, list) else [], wanted)
    return quantity and _number(live) is not None and _number(live) == _number(wanted)


def _has_list(live: list[Any], wanted: list[Any]) -> bool:
    names = [item["name"] for item in wanted if isinstance(item, dict) and "name" in item]
    if names and len(set(names)) == len(wanted):
        found = {item["name"]: item for item in live if isinstance(item, dict) and "name" in item}
        return all(_has(found.get(item["name"]), item) for item in wanted)
    return len(live) == len(wanted) and all(_has(a, b) for a, b in zip(live, wanted, strict=True))


def _number(text: Any) -> Decimal | None:
    """The value of a quantity: the API server writes 0.5 as 500m."""
    found = _QUANTITY.fullmatch(str(text))
    return None if found is None else Decimal(found[1]) * _FACTORS.get(found[2] or "", Decimal(1))
