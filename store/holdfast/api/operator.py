"""The operator's own identity: a client certificate with one certain URI, given by --operator-cert-uri.

The operator changes the members of clusters whose users it does not know, and must be able to do so also after auth is
enabled. So its certificate counts as the user root, who exists whenever auth is on, but only for what the operator
does: it cannot read or change users and roles.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.front.calls import Call

_SERVICES = frozenset(
    (
        "/holdfast.v1.Node",
        "/holdfast.v1.Membership",
        "/holdfast.v1.Session",
        "/etcdserverpb.KV",
        "/etcdserverpb.Watch",
        "/etcdserverpb.Lease",
    )
)
_METHODS = frozenset(
    (
        "/etcdserverpb.Maintenance/MoveLeader",
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.Maintenance/Alarm",
    )
)


@dataclass(frozen=True, slots=True)
class Operator:
    """Recognizes the operator's calls. Without a URI there is no operator."""

    uri: str = ""

    def calls(self, call: Call) -> bool:
        """Whether the operator makes this call, and may make it as root. Its certificate has this URI and no other, so
        that a certificate for several roles is never the operator's."""
        if not self.uri or call.peer.uris != (self.uri,):
            return False
        return call.method in _METHODS or call.method.rpartition("/")[0] in _SERVICES
