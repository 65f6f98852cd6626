"""What the conditions of a HoldfastCluster tell the user."""

from __future__ import annotations

import pytest
from holdfast_operator.cluster_status import cluster_status
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.observe import Observation
from holdfast_operator.plan.actions import Wait
from holdfast_operator.plan.facts import Desired, Observed

SEEN = Observation(Observed({}, {}, None), {}, {}, None, [], None)
CLUSTER = {"metadata": {"name": "shop", "generation": 1}}
REFUSED = "the Service shop-client exists and is not ours"


@pytest.mark.parametrize(
    ("reason", "troubles", "message"),
    [
        ("ForeignVolume", [], "empty it"),
        ("ForeignVolume", [REFUSED], f"{REFUSED}; empty it"),
        ("AsWanted", [REFUSED], REFUSED),
    ],
)
def test_what_is_refused_does_not_hide_what_is_waited_for(reason: str, troubles: list[str], message: str) -> None:
    """Both may need the user."""
    wait = Wait(reason, "empty it" if reason != "AsWanted" else "all as wanted", progressing=False)
    told = cluster_status(CLUSTER, ClusterSpec(), SEEN, Desired(3, "t"), wait, troubles, 0)
    ready = next(c for c in told["conditions"] if c["type"] == "Ready")
    assert ready["message"] == message
    assert ready["reason"] == ("Refused" if troubles else reason)
    assert ready["status"] == "False"
