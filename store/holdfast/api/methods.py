"""Methods that replicas serve, or call at the servers that they follow, beside those of etcd."""

from __future__ import annotations

WHO_AM_I = "/holdfast.v1.Identity/WhoAmI"
REPORT = "/holdfast.v1.Reported/Report"
DELIVER = "/holdfast.v1.Reported/Deliver"
