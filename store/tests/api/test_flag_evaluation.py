"""Flags are evaluated as flagd's providers do it, and whatever a rule says, the work is bounded."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from holdfast.api.flag_evaluation import FLAG_UNITS, REQUEST_UNITS, Evaluator
from holdfast.flags.flag_set import Definitions, FlagSet
from holdfast.flags.selector import Selector
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

SIZES = {"state": "ENABLED", "variants": {"s": "small", "l": "large"}, "defaultVariant": "s"}


def definitions(flags: dict[str, Any], rules: dict[str, Any] | None = None) -> Definitions:
    made = FlagSet(Selector(b"/flags"))
    for _ in made.take(b"/flags", json.dumps({"flags": flags, "$evaluators": rules or {}}).encode()):
        pass
    assert not made.left_out
    return made.definitions()


def evaluate(targeting: Any, context: dict[str, Any], rules: dict[str, Any] | None = None) -> dict[str, Any]:
    return Evaluator().one(definitions({"f": {**SIZES, "targeting": targeting}}, rules), "f", context)


def test_answers_of_all_kinds() -> None:
    flags = {
        "static": SIZES,
        "off": {**SIZES, "state": "DISABLED"},
        "none": {"state": "ENABLED", "variants": {"a": 1}, "metadata": {"team": "x"}},
        "rule": {**SIZES, "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "l", None]}},
        "bool": {
            "state": "ENABLED",
            "variants": {"true": 1, "false": 0},
            "targeting": {"==": [{"var": "plan"}, "pro"]},
        },
        "wrong": {**SIZES, "targeting": {"if": [True, "xl"]}},
        "unknown": {**SIZES, "targeting": {"launch": [1]}},
    }
    answers = {a["key"]: a for a in Evaluator().all(definitions(flags), {"plan": "pro"})}
    assert answers["static"] == {"key": "static", "value": "small", "variant": "s", "reason": "STATIC"}
    assert answers["off"] == {"key": "off", "reason": "DISABLED"}
    assert answers["none"] == {"key": "none", "reason": "DEFAULT", "metadata": {"team": "x"}}
    assert answers["rule"] == {"key": "rule", "value": "large", "variant": "l", "reason": "TARGETING_MATCH"}
    assert answers["bool"] == {"key": "bool", "value": 1, "variant": "true", "reason": "TARGETING_MATCH"}
    assert (answers["wrong"]["errorCode"], answers["unknown"]["errorCode"]) == ("GENERAL", "PARSE_ERROR")
    assert list(answers) == sorted(flags)


@pytest.mark.parametrize(
    ("targeting", "context"),
    [
        ({"if": [{"$ref": "staff"}, "l", "s"]}, {"email": "eve@holdfast.example"}),
        ({"if": [{"and": [{"$ref": "staff"}, {">": [{"var": "age"}, 17]}]}, "l", "s"]}, {"age": 18}),
        ({"fractional": [["s", 50], ["l", 50]]}, {"targetingKey": "user-1"}),
        ({"fractional": [["s", 50], ["l", 50]]}, {"targetingKey": "user-2"}),
        ({"fractional": [{"var": "team"}, ["s", 1], ["l", 9]]}, {"team": "blue"}),
        ({"if": [{"sem_ver": [{"var": "v"}, ">=", "1.2.0"]}, "l", "s"]}, {"v": "1.10.0"}),
        ({"if": [{"some": [{"var": "roles"}, {"==": [{"var": ""}, "admin"]}]}, "l", "s"]}, {"roles": ["x", "admin"]}),
        ({"if": [{"==": [{"reduce": [{"var": "n"}, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 0]}, 6]}, "l"]},
            {"n": [1, 2, 3]}),
        ({"if": [{"in": ["b", {"map": [{"var": "x"}, {"cat": [{"var": ""}]}]}]}, "l", "s"]}, {"x": ["a", "b"]}),
        ({"if": [{">": [{"var": "$flagd.timestamp"}, 1000]}, "l", "s"]}, {}),
        ({"if": [{"==": [{"var": "$flagd.flagKey"}, "f"]}, "l", "s"]}, {}),
    ],
)  # fmt: skip
def test_the_answer_is_that_of_the_provider(targeting: Any, context: dict[str, Any]) -> None:
    rules = {"staff": {"ends_with": [{"var": "email"}, "@holdfast.example"]}}
    core = FlagdCore()
    core.set_flags({"flags": {"f": {**SIZES, "targeting": json.loads(json.dumps(targeting))}}, "$evaluators": rules})
    attributes = dict(context)
    meant = core.resolve_string_value("f", "?", EvaluationContext(attributes.pop("targetingKey", None), attributes))
    answer = evaluate(targeting, context, rules)
    assert (answer["value"], answer["variant"], answer["reason"]) == (meant.value, meant.variant, meant.reason)


def var(name: str) -> dict[str, str]:
    return {"var": name}


ACC = var("accumulator")
LIST = {"n": list(range(3000))}
HUGE: list[tuple[str, Any]] = [
    ("nested loops", {"map": [var("n"), {"map": [[*range(3000)], {"map": [[*range(3000)], 1]}]}]}),
    ("a loop over a literal", {"map": [var("n"), [*range(3000)]]}),
    ("a string that doubles", {"reduce": [var("n"), {"cat": [ACC, ACC]}, "x"]}),
    ("a list that doubles", {"reduce": [var("n"), {"merge": [ACC, ACC]}, [1]]}),
    ("a list that contains itself twice", {"cat": [{"reduce": [var("n"), [ACC, ACC], [1]]}]}),
    ("a list that is gone over again and again", {"reduce": [var("n"), {"map": [ACC, 1]}, [*range(3000)]]}),
    ("a shared rule again and again", {"and": [{"$ref": "big"}] * 2000}),
    ("a rule that refers to itself", {"$ref": "self"}),
    ("a rule that doubles", {"$ref": "double"}),
    ("ifs in loops", {"map": [var("n"), {"map": [[*range(3000)], {"if": [False, 1, False, 2, 3]}]}]}),
]


@pytest.mark.parametrize(("name", "targeting"), HUGE)
def test_work_is_bounded(name: str, targeting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {
        "big": {"if": [False, [1] * 5000, True]},
        "self": {"and": [{"$ref": "self"}, True]},
        "double": {"and": [{"$ref": "double"}, {"$ref": "double"}]},
    }
    known = definitions({"f": {**SIZES, "targeting": targeting}, "g": SIZES}, rules)
    evaluator = Evaluator()
    answer = evaluator.one(known, "f", LIST)
    assert answer["errorCode"] in ("GENERAL", "PARSE_ERROR"), answer
    assert evaluator.spent <= FLAG_UNITS + 10_000, "it was noticed late"
    first, second = evaluator.all(known, LIST)
    assert "errorCode" in first
    assert second["value"] == "small", "another flag of the request suffered"


def test_numbers_do_not_grow_without_end() -> None:
    square = {"reduce": [var("n"), {"*": [ACC, ACC]}, 3]}
    assert evaluate({"if": [{">": [square, 0]}, "l", "s"]}, LIST).get("variant") in ("l", "s", None)
    assert evaluate({"*": [var("x")] * 6000}, {"x": 10**300})["errorCode"] == "GENERAL"


def test_a_request_for_many_flags_is_bounded() -> None:
    costly = {**SIZES, "targeting": {"if": [{"some": [var("n"), {"==": [var(""), -1]}]}, "l", "s"]}}
    known = definitions({f"f{n:03}": costly for n in range(200)})
    evaluator = Evaluator()
    answers = evaluator.all(known, LIST)
    assert answers[0]["value"] == "small"
    assert answers[-1]["errorDetails"] == "the evaluation takes too much work"
    assert evaluator.spent < REQUEST_UNITS + 200 * 10_000


@pytest.mark.parametrize(
    "targeting",
    [
        {"sem_ver": [var("secret"), "=", "1.0.0"]},
        {"sem_ver": ["1.0.0", var("secret"), "1.0.0"]},
        {"starts_with": [var("list"), "x"]},
        {"ends_with": ["x", var("list")]},
        {"fractional": [var("secret")]},
        {"fractional": [var("list"), ["s", var("secret")]]},
        {"+": [var("secret"), 1]},
        {"missing_some": [var("secret"), var("list")]},
    ],
)
def test_nothing_of_the_context_is_logged(targeting: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The library logs what it cannot use, some of it with a traceback."""
    caplog.set_level(logging.DEBUG)
    evaluate(targeting, {"secret": "hunter2", "list": ["hunter2"]})
    assert not caplog.records


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate({"log": "l"}, {})["variant"] == "l"
    assert capsys.readouterr() == ("", "")
