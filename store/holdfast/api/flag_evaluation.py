"""Evaluates flags for OFREP: flagd's rules by the library of OpenFeature's own providers, with a bound on the work.

Whoever may write a flag writes a program: a rule can nest loops over lists of the context, double a string a thousand
times, or square a number. So each operation, each pass over a list and each value that an operation takes or returns
is charged to a budget, and an evaluation that has used it up is an error of that flag.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from holdfast.flags.flag_set import Definitions

FLAG_UNITS = 100_000  # of work for one flag: operations, elements, and 64 characters each
REQUEST_UNITS = 1_000_000  # of work for all flags of one request
MAX_NESTING = 128  # of a rule, with the shared rules in it
LIBRARY_LOGGERS = ("openfeature", "json_logic")


class NotInstalled(Exception):
    """The library is not there: it comes with the extra `flags`."""


class _TooMuch(Exception):
    """The budget is used up."""


class _Meter:
    """Counts down."""

    def __init__(self) -> None:
        self.request = 0
        self._left = 0

    def begin_flag(self) -> None:
        self._left = min(FLAG_UNITS, self.request)

    def charge(self, units: int) -> None:
        self._left -= units
        self.request -= units
        if self._left < 0:
            raise _TooMuch

    def weigh(self, value: object) -> None:
        """Charge a value with all that is in it, as often as it is in it."""
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                self.charge(1 + (len(item) >> 6))
            elif isinstance(item, dict | list):
                self.charge(1 + len(item))
                waiting.extend(dict.values(item) if isinstance(item, dict) else list.__iter__(item))
            else:
                self.charge(1)


class _Object(dict[str, Any]):
    """An object of a rule: looking its operation up is charged."""

    meter: _Meter

    def __getitem__(self, key: str) -> Any:
        self.meter.charge(1)
        return super().__getitem__(key)


class _List(list[Any]):
    """A list of a rule: a pass over it is charged."""

    meter: _Meter

    def __iter__(self) -> Iterator[Any]:
        self.meter.charge(len(self))
        return super().__iter__()


class Evaluator:
    """Evaluates flags, one request at a time: use it from one thread. Raises NotInstalled when it is made."""

    def __init__(self) -> None:
        try:
            from json_logic import jsonLogic  # noqa: PLC0415
            from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise NotInstalled(
                f"{error.name} is not installed on this server; OFREP needs it: pip install 'holdfast[flags]'"
            ) from error
        _silence_library()
        self._apply = jsonLogic
        self._meter = _Meter()
        self._operations = {name: self._metered(operation) for name, operation in OPERATORS.items()}
        self._operations["log"] = lambda data=None, value=None, *_: value  # it would print

    def _metered(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        meter = self._meter

        def metered(data: Any, *arguments: Any) -> Any:
            meter.charge(1)
            for argument in arguments:
                meter.weigh(argument)
            result = _number(operation(data, *map(_number, arguments)))
            meter.weigh(result)
            return result

        return metered

    @property
    def spent(self) -> int:
        """Units that the last request took."""
        return REQUEST_UNITS - self._meter.request

    def one(self, known: Definitions, name: str, context: dict[str, Any]) -> dict[str, Any]:
        """The answer for one flag, which is there: a success or a failure."""
        self._meter.request = REQUEST_UNITS
        return self._evaluate(known, name, context)

    def all(self, known: Definitions, context: dict[str, Any]) -> list[dict[str, Any]]:
        self._meter.request = REQUEST_UNITS
        return [self._evaluate(known, name, context) for name in sorted(known.flags)]

    def _evaluate(self, known: Definitions, name: str, context: dict[str, Any]) -> dict[str, Any]:
        definition = _parsed(known.flags[name])
        self._meter.begin_flag()
        answer: dict[str, Any] = {"key": name}
        try:
            if definition["state"] == "DISABLED":
                answer["reason"] = "DISABLED"  # without a value the application's default counts
            else:
                variant, answer["reason"] = self._variant(known, name, definition, context)
                if variant:
                    answer["value"], answer["variant"] = definition["variants"][variant], variant
        except _TooMuch:
            return _failure(name, "GENERAL", "the evaluation takes too much work")
        except KeyError as error:
            return _failure(name, "GENERAL", f"the rule chose the variant {str(error)[:100]}, which the flag has not")
        except ReferenceError as error:
            return _failure(name, "PARSE_ERROR", str(error)[:200])
        except RecursionError:
            return _failure(name, "PARSE_ERROR", "the rule is nested too deeply")
        except Exception as error:  # whatever an operation makes of a value that it does not expect
            return _failure(name, "PARSE_ERROR", f"the rule cannot be evaluated: {type(error).__name__}")
        metadata = {**known.metadata, **definition.get("metadata", {})}
        if metadata:
            answer["metadata"] = metadata
        return answer

    def _variant(
        self, known: Definitions, name: str, definition: dict[str, Any], context: dict[str, Any]
    ) -> tuple[str, str]:
        """(name of the variant, reason). The name is empty if the application's default counts."""
        default = definition.get("defaultVariant") or ""
        targeting = definition.get("targeting")
        if not targeting:
            return default, "STATIC" if default else "DEFAULT"
        data = {**context, "$flagd": {"flagKey": name, "timestamp": int(time.time())}}
        data.setdefault("targetingKey", None)
        chosen = self._apply(self._rule(targeting, known.rules, MAX_NESTING), data, self._operations)
        if chosen is None:
            return default, "DEFAULT"
        if isinstance(chosen, bool):
            return str(chosen).lower(), "TARGETING_MATCH"
        if not isinstance(chosen, str | int | float):
            raise KeyError("that is no name")
        return str(chosen), "TARGETING_MATCH"

    def _rule(self, found: Any, rules: Mapping[str, bytes], nesting: int) -> Any:
        """A rule with the shared rules that it refers to, metered."""
        self._meter.charge(1)
        if nesting == 0:
            raise RecursionError
        if isinstance(found, list):
            taken = _List(self._rule(item, rules, nesting - 1) for item in found)
            taken.meter = self._meter
            return taken
        if not isinstance(found, dict):
            return found
        reference = found.get("$ref") if len(found) == 1 else None
        if isinstance(reference, str) and reference in rules:
            self._meter.charge(len(rules[reference]) >> 6)
            return self._rule(_parsed(rules[reference]), rules, nesting - 1)
        made = _Object({key: self._rule(value, rules, nesting - 1) for key, value in found.items()})
        made.meter = self._meter
        return made


def _silence_library() -> None:
    """The library logs what a rule got from the context, some of it with a traceback. That is data of users, which this
    server never logs; and whoever sends requests could fill the log."""
    for name in LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # also that of the loggers below it


def _parsed(text: bytes) -> dict[str, Any]:
    """The definition in `"name":{...}`."""
    (definition,) = json.loads(b"{" + text + b"}").values()
    taken: dict[str, Any] = definition
    return taken


def _number(value: Any) -> Any:
    """Numbers as other languages have them: beyond 64 bits a double, or multiplying would take ever longer."""
    return float(value) if type(value) is int and value.bit_length() > 64 else value


def _failure(name: str, code: str, details: str) -> dict[str, Any]:
    return {"key": name, "errorCode": code, "errorDetails": details}
