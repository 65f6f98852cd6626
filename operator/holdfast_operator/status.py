"""Conditions and statuses, which are written only when they changed.

Ready, Reconciling and Stalled are what kstatus reads, and so `kubectl wait`, Flux and Argo CD. A condition is Unknown
when what it tells of could not be observed; nothing of an earlier pass is shown as if it were so now.
"""

from __future__ import annotations

import time
from typing import Any

from holdfast_operator.kube import ApiError, Kube, Object


def condition(obj: Object, type_: str, holds: bool | None, reason: str, message: str) -> Object:
    """A condition; `holds` None: unknown. Its transition time changes only when its status changes."""
    status = {True: "True", False: "False", None: "Unknown"}[holds]
    before = next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == type_), None)
    same = before is not None and before["status"] == status
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": before["lastTransitionTime"] if same and before else now,
        "observedGeneration": obj["metadata"]["generation"],
    }


def ready(
    obj: Object, holds: bool | None, reason: str, message: str, *, progressing: bool, stalled: bool
) -> list[Object]:
    """The conditions of kstatus. `progressing`: the operator goes on by itself. `stalled`: the user has to act."""
    return [
        condition(obj, "Ready", holds, reason, message),
        condition(obj, "Reconciling", progressing and not stalled, reason, message if progressing else ""),
        condition(obj, "Stalled", stalled, reason, message if stalled else ""),
    ]


def with_conditions(obj: Object, new: list[Object]) -> Object:
    """The object's status with these conditions; those of other types stay."""
    before = obj.get("status", {})
    types = {c["type"] for c in new}
    return {**before, "conditions": [*new, *(c for c in before.get("conditions", []) if c["type"] not in types)]}


async def write(kube: Kube, obj: Object, status: dict[str, Any]) -> None:
    """Write `status` if it differs from what the object has. Raises ApiError: Conflict if the object has changed."""
    wanted = {key: value for key, value in status.items() if value is not None}
    if wanted == obj.get("status", {}):
        return
    answer = await kube.update_status(obj, wanted)
    obj["status"] = wanted
    obj["metadata"]["resourceVersion"] = answer["metadata"]["resourceVersion"]


async def tell(kube: Kube, obj: Object, status: dict[str, Any]) -> bool:
    """Write `status`. False: the object has changed or is gone, and the next pass writes it."""
    try:
        await write(kube, obj, {"observedGeneration": obj["metadata"]["generation"], **status})
    except ApiError as error:
        if error.reason not in ("Conflict", "NotFound"):
            raise
        return False
    return True
