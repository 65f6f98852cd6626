"""The spec of HoldfastCells: what cannot be is refused in words. The API server says the same (e2e/test_cells.py)."""

from __future__ import annotations

from typing import Any

import pytest
from holdfast_operator.model.cells import CellsSpec
from holdfast_operator.model.parse import InvalidSpec, parse

EU = {"name": "eu", "cluster": "eu"}
US = {"name": "us", "endpoints": ["us.example.com:2379", "[2001:db8::1]:2379"], "tls": {"secretName": "us-client"}}
Object = dict[str, Any]


def parsed(**spec: Any) -> CellsSpec:
    return parse(CellsSpec, {"spec": spec}).spec


def test_a_spec_with_everything() -> None:
    replicate = [{"prefix": "/global/", "from": "eu"}, {"prefix": "/us/", "from": "us", "to": ["eu"]}]
    spec = parsed(cells=[EU, US], queues=[{"from": "eu", "to": "us"}], replicate=replicate)
    assert [spec.destinations(each) for each in spec.replicate or ()] == [["us"], ["eu"]]
    assert spec.replicas == 1


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        ("at least 1 item", {"cells": []}),
        ("at most 7 items", {"cells": [{"name": f"c{n}", "cluster": "x"} for n in range(8)]}),
        ("eu is given twice", {"cells": [EU, EU]}),
        ("either cluster or endpoints", {"cells": [{"name": "eu"}]}),
        ("either cluster or endpoints", {"cells": [{**US, "cluster": "us"}]}),
        ("tls belongs to endpoints", {"cells": [{**EU, "tls": {"secretName": "x"}}]}),
        ("should match pattern", {"cells": [{"name": "eu/1", "cluster": "eu"}]}),
        ("should match pattern", {"cells": [{"name": "a--b", "cluster": "eu"}]}),
        ("should match pattern", {"cells": [{"name": "us", "endpoints": ["https://us:2379"]}]}),
        ("is not HOST:PORT", {"cells": [{"name": "us", "endpoints": ["us:99999"]}]}),
        ("should match pattern", {"cells": [{**EU, "readmit": "xyz"}]}),
        ("mars is none of the cells eu, us", {"cells": [EU, US], "queues": [{"from": "mars", "to": "us"}]}),
        ("from and to are the same cell", {"cells": [EU, US], "queues": [{"from": "us", "to": "us"}]}),
        ("eu to us is given twice", {"cells": [EU, US], "queues": [{"from": "eu", "to": "us"}] * 2}),
        ("there is no cell beside eu", {"cells": [EU], "replicate": [{"prefix": "/a/", "from": "eu"}]}),
        ("us is given twice", {"cells": [EU, US], "replicate": [{"prefix": "/a/", "from": "eu", "to": ["us", "us"]}]}),
        ("should match pattern", {"cells": [EU, US], "replicate": [{"prefix": "a/", "from": "eu"}]}),
        ("keys below /cells/", {"cells": [EU, US], "replicate": [{"prefix": "/cells/x/", "from": "eu"}]}),
        ("keys below /cells/", {"cells": [EU, US], "replicate": [{"prefix": "/", "from": "eu"}]}),
        (
            "another prefix begins with /a/",
            {"cells": [EU, US], "replicate": [{"prefix": "/a/b/", "from": "eu"}, {"prefix": "/a/", "from": "us"}]},
        ),
    ],
)
def test_what_cannot_be_is_refused(words: str, spec: Object) -> None:
    with pytest.raises(InvalidSpec, match=words):
        parsed(**spec)
