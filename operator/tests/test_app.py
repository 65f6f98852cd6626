"""What the operator asks the API server to send, by kopf's settings; the simulated world sends the same."""

from __future__ import annotations

import kopf
from holdfast_operator.app import CHILDREN, WORKERS, configure
from holdfast_operator.kube import Kube
from holdfast_operator.resources.common import CELLS_LABEL, CLUSTER_LABEL
from holdfast_operator.sim import operators
from kopf._cogs.structs.references import Resource


def test_only_children_with_our_label_are_watched() -> None:
    settings = kopf.OperatorSettings()
    configure(settings)
    for group, version, plural in CHILDREN:
        selectors = settings.watching.label_selectors.collect(Resource(group, version, plural))
        assert list(selectors) == [CLUSTER_LABEL], plural
    assert list(settings.watching.label_selectors.collect(Resource(*WORKERS))) == [CELLS_LABEL]
    nodes = Resource("", "v1", "nodes")
    assert list(settings.watching.label_selectors.collect(nodes)) == []


def test_the_simulated_world_watches_the_same_children() -> None:
    simulated = {Kube.path(kind) for kind in operators.CHILDREN}
    assert simulated == {
        f"{'apis/' + group if group else 'api'}/{version}/{plural}" for group, version, plural in CHILDREN
    }
