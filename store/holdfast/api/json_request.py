"""Decodes JSON requests to protobuf messages by protobuf's JSON mapping, as strictly as Go's protojson, which etcd's
gateway uses. The decoder of protobuf's Python library accepts `user:42x` as base64, `[]` as a message and `1_0` as a
number, so it would execute an invalid request as a different one.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
T = TypeVar("T")

MAX_PARTS = 50_000  # objects and numbers in a body; the largest transaction needs far fewer
MAX_MARKS = 2 * MAX_PARTS  # commas and opening brackets in a body; base64 contains none
MAX_SHOWN = 80  # characters of an invalid value that the error repeats
_DIGITS = 20  # decimal digits of the largest 64-bit number

_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


class BadJson(ValueError):
    """The text is not a valid request; the message says why."""


_TOO_MANY = f"more than {MAX_PARTS} objects, numbers or elements of a list"


class _Number(str):
    """A number as text. It is converted only where a field needs an integer, so its length costs nothing before."""


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object in their order; names may repeat."""


def decode(text: str, type: type[M]) -> M:
    """Decode the JSON object in `text` to a message. Raises BadJson."""
    message = type()
    try:
        _fill(message, _parsed(text))
    except RecursionError:
        raise BadJson("the body is nested too deeply") from None
    except BadJson:
        raise
    except ValueError as error:
        raise BadJson(str(error)) from None
    return message


def _parsed(text: str) -> Any:
    """Parse JSON, with objects as _Object and numbers as _Number. Raises ValueError."""
    if sum(map(text.count, ",[{")) > MAX_MARKS:  # checked before any Python object is made of them
        raise BadJson(_TOO_MANY)
    room = MAX_PARTS

    def counted(part: T) -> T:
        nonlocal room
        room -= 1
        if room < 0:
            raise BadJson(_TOO_MANY)
        return part

    decoder = json.JSONDecoder(
        object_pairs_hook=lambda pairs: counted(_Object(pairs)),
        parse_int=lambda word: counted(_Number(word)),
        parse_float=lambda word: counted(_Number(word)),
        parse_constant=_no_constant,
    )
    return decoder.decode(text)


def _no_constant(word: str) -> Any:
    raise BadJson(f"{word} is not JSON")


def _fill(message: Message, value: Any) -> None:
    descriptor = message.DESCRIPTOR
    if not isinstance(value, _Object):
        raise BadJson(f"{_shown(value)} is not an object, which {descriptor.full_name} is")
    seen: set[int] = set()
    oneofs: set[str] = set()
    for name, given in value:
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        if field is None:
            continue  # ignored as in etcd: it may be of a newer version
        if field.number in seen:
            raise BadJson(f"duplicate field {name!r}")
        seen.add(field.number)
        if given is None:
            continue
        if field.containing_oneof is not None:
            if field.containing_oneof.name in oneofs:
                raise BadJson(f"{name!r}: another of {field.containing_oneof.full_name} is already set")
            oneofs.add(field.containing_oneof.name)
        _set(message, cast("FieldDescriptor", field), given)


def _set(message: Message, field: FieldDescriptor, given: Any) -> None:
    if field.is_repeated:
        if type(given) is not list:
            raise _invalid(field, given)
        if len(given) > MAX_PARTS:
            raise BadJson(_TOO_MANY)
        repeated = getattr(message, field.name)
        if field.message_type is not None:
            for element in given:
                _fill(repeated.add(), element)
        else:
            repeated.extend(found for element in given if (found := _scalar(field, element)) is not None)
    elif field.message_type is not None:
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(part, given)
    else:
        found = _scalar(field, given)
        if found is not None:
            setattr(message, field.name, found)


def _scalar(field: FieldDescriptor, given: Any) -> Any:
    """The value of a field; None: leave it unset."""
    try:
        return _SCALARS[field.cpp_type](field, given)
    except ValueError:
        raise _invalid(field, given) from None


def _integer(field: FieldDescriptor, given: Any) -> int:
    if not isinstance(given, str):
        raise ValueError
    low, high = _BOUNDS[field.cpp_type]
    value = _whole(given)
    if not low <= value <= high:
        raise ValueError
    return value


def _whole(text: str) -> int:
    """The integer value of a JSON number such as 1, 1.0 or 10e-1. Raises ValueError if it is not an integer or has more
    than _DIGITS digits."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError
    sign, digits, fraction, exponent = match.groups()
    fraction = (fraction or "").rstrip("0")
    significant = (digits + fraction).lstrip("0")
    if not significant:
        return 0
    if len(exponent or "") > len("+00000000"):
        raise ValueError
    power = int(exponent or "0") - len(fraction)
    if power < 0:
        kept, dropped = significant[:power], significant[power:]
        if not kept or dropped.strip("0"):
            raise ValueError
        significant, power = kept, 0
    if len(significant) + power > _DIGITS:
        raise ValueError
    return int(sign + significant + "0" * power)


def _enum(field: FieldDescriptor, given: Any) -> int | None:
    if isinstance(given, _Number):
        value = _whole(given)
        if not -(1 << 31) <= value < 1 << 31:
            raise ValueError
        return value
    if not isinstance(given, str):
        raise ValueError
    assert field.enum_type is not None
    named = field.enum_type.values_by_name.get(given)
    return None if named is None else named.number  # an unknown name is ignored, as in etcd


def _bool(field: FieldDescriptor, given: Any) -> bool:
    if not isinstance(given, bool):
        raise ValueError
    return given


def _text_or_bytes(field: FieldDescriptor, given: Any) -> str | bytes:
    if not isinstance(given, str) or isinstance(given, _Number):
        raise ValueError
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64_bytes(given)
    given.encode()  # raises ValueError for a lone surrogate
    return given


def base64_bytes(text: str) -> bytes:
    """Decode base64 in the standard or the URL alphabet, padded or not. Raises ValueError."""
    encoded = text.encode("ascii")
    padded = len(encoded) % 4 == 0
    if b"-" in encoded or b"_" in encoded:
        if b"+" in encoded or b"/" in encoded:
            raise ValueError("two alphabets of base64 in one text")
        encoded = encoded.translate(bytes.maketrans(b"-_", b"+/"))
    encoded = encoded.translate(None, b"\r\n")  # ignored as by Go's decoder
    if not padded:
        if b"=" in encoded:
            raise ValueError("padding of base64 that is not whole")
        encoded += b"=" * (-len(encoded) % 4)
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


_SCALARS: dict[int, Callable[[FieldDescriptor, Any], Any]] = {
    **dict.fromkeys(_BOUNDS, _integer),
    FieldDescriptor.CPPTYPE_ENUM: _enum,
    FieldDescriptor.CPPTYPE_BOOL: _bool,
    FieldDescriptor.CPPTYPE_STRING: _text_or_bytes,
}


def _invalid(field: FieldDescriptor, given: Any) -> BadJson:
    kind = "bytes" if field.type == FieldDescriptor.TYPE_BYTES else _KINDS[field.cpp_type]
    plural = "repeated " if field.is_repeated else ""
    return BadJson(f"invalid value for {plural}{kind} field {field.name}: {_shown(given)}")


_KINDS = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
    FieldDescriptor.CPPTYPE_ENUM: "enum",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_MESSAGE: "message",
}


def _shown(value: Any) -> str:
    if isinstance(value, _Object):
        return "{…}"
    if isinstance(value, list):
        return "[…]"
    text = value if isinstance(value, _Number) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
