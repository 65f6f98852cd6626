"""A loader of dynaconf for the keys of a prefix. Needs the extra `dynaconf`.

    settings = Dynaconf(
        LOADERS_FOR_DYNACONF=["holdfast.client.dynaconf_loader", "dynaconf.loaders.env_loader"],
        HOLDFAST_FOR_DYNACONF={"endpoints": "shop-edge:2379", "prefix": "/app/", "file": "/var/cache/app/last-good"},
    )

`HOLDFAST_FOR_DYNACONF` may have each argument of `holdfast.client.at_start.read`. Below the prefix, keys nest by `/`,
and values are cast as dynaconf casts environment variables (`1`, `true`, `@json {…}`). With `environments=True` the
first part of a name is the environment: `/app/default/debug`, `/app/production/debug`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

try:
    from dynaconf.loaders.base import SourceMetadata
    from dynaconf.utils import build_env_list
    from dynaconf.utils.parse_conf import parse_conf_data, unparse_conf_data
except ImportError as error:
    raise ImportError(f"{error}: holdfast.client.dynaconf_loader needs the extra holdfast[dynaconf]") from error

from holdfast.client.at_start import NotSettings, read, texts, tree
from holdfast.client.blocking import connect_blocking
from holdfast.client.errors import ClientError

IDENTIFIER = "holdfast"
TIMEOUT = 3.0
log = logging.getLogger("holdfast.client")


def load(
    obj: Any,
    env: str | None = None,
    silent: bool = True,
    key: str | None = None,
    filename: str | None = None,
    validate: bool = False,
) -> None:
    """Put the values, or with `key` only that one, into the settings `obj`. If it fails and `silent` is set, the error
    is logged."""
    try:
        options = _options(obj)
        found = read(**options).values
        for name, prefix in _environments(obj, options["prefix"], env):
            below = {k: v for k, v in found.items() if k.startswith(prefix.encode())}
            _load(obj, name, texts(below, prefix, fold=True), key, validate)
    except (ClientError, NotSettings) as error:
        if not silent:
            raise
        log.error("no settings from holdfast: %s", error)


def _load(obj: Any, env: str, values: Mapping[str, str], key: str | None, validate: bool) -> None:
    cast = {name: parse_conf_data(value, tomlfy=True, box_settings=obj) for name, value in values.items()}
    data = tree(cast)
    if key is not None:
        data = {name: value for name, value in data.items() if name.casefold() == key.casefold()}
    if data:
        source = SourceMetadata(IDENTIFIER, "unique", env.lower())
        obj.update(data, loader_identifier=source, validate=validate)


def write(obj: Any, data: Mapping[str, Any] | None = None, **more: Any) -> None:
    """Write these settings, in one transaction; nested ones by `/`, with dynaconf's
    marks of types (`@int 1`). Keys that are there keep how they are spelled,
    others are in lower case. The settings `obj` then have them."""
    options = _options(obj)
    prefix = options.pop("prefix")
    if obj.get("ENVIRONMENTS_FOR_DYNACONF"):
        prefix = _below(prefix, str(obj.current_env))
    for own in ("file", "max_age", "first_seconds"):
        options.pop(own, None)
    values = dict(_flat({**(data or {}), **more}))
    if not values:
        raise ValueError("no settings are given")
    with connect_blocking(**options) as hf:
        there = {kv.key.decode(errors="replace").casefold(): kv.key for kv in hf.range(prefix, prefix=True).kvs}
        keys = {
            there.get((prefix + name).casefold(), (prefix + name.lower()).encode()): v for name, v in values.items()
        }
        hf.txn().then(*(hf.op.put(key, value) for key, value in keys.items())).commit()
    load(obj, silent=False)


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}/")
        else:
            yield above + name, str(unparse_conf_data(value))


def _options(obj: Any) -> dict[str, Any]:
    given = obj.get("HOLDFAST_FOR_DYNACONF")
    if not isinstance(given, Mapping) or not {"endpoints", "prefix"} <= {str(name).lower() for name in given}:
        raise NotSettings("HOLDFAST_FOR_DYNACONF has to be a dictionary with at least `endpoints` and `prefix`")
    options = {"timeout": TIMEOUT, **{str(name).lower(): value for name, value in given.items()}}
    if not isinstance(options["endpoints"], str):
        options["endpoints"] = list(options["endpoints"])
    return options


def _environments(obj: Any, prefix: str, env: str | None) -> list[tuple[str, str]]:
    """(environment, prefix of its keys), the one that counts most last."""
    if not obj.get("ENVIRONMENTS_FOR_DYNACONF"):
        return [("", prefix)]
    names = [str(name).lower() for name in build_env_list(obj, env or obj.current_env)]
    return [(name, _below(prefix, name)) for name in names]


def _below(prefix: str, environment: str) -> str:
    return f"{prefix.removesuffix('/')}/{environment.lower()}/"
