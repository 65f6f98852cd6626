"""Settings of pydantic-settings from the keys of a prefix. Needs the extra `settings`.

    class Settings(BaseSettings):
        db: Database                       # /app/db/host, /app/db/port, or JSON in /app/db

        @classmethod
        def settings_customise_sources(cls, settings_cls, init_settings, env_settings, **others):
            here = HoldfastSource(settings_cls, "shop-edge:2379", "/app/", file="/var/cache/app/last-good")
            return init_settings, env_settings, here

It does for keys what pydantic-settings does for environment variables: names without case (unless `case_sensitive`),
nested models by `/`, JSON for lists, dictionaries and models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from pydantic_settings import BaseSettings, EnvSettingsSource
    from pydantic_settings.sources.utils import parse_env_vars
except ImportError as error:
    raise ImportError(f"{error}: holdfast.client.settings needs the extra holdfast[settings]") from error

from holdfast.client.at_start import State, read, texts
from holdfast.client.errors import Unavailable

TIMEOUT = 3.0  # for the start of a program


class HoldfastSource(EnvSettingsSource):
    """Reads once, when it is made, so with each `Settings()`. `state` says how old what was read may be.

    `file` keeps the newest state for a start while no server answers, `max_age` limits its age in seconds (0: any).
    Raises a ClientError if there is neither, unless `required` is False: then there are no values from here. `options`:
    those of `connect_blocking`.
    """

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        endpoints: str | list[str],
        prefix: str,
        *,
        file: str | Path | None = None,
        max_age: float = 0.0,
        required: bool = True,
        timeout: float = TIMEOUT,
        case_sensitive: bool | None = None,
        **options: Any,
    ) -> None:
        self.state: State | None = None  # None: nothing could be read
        self._prefix = prefix
        try:
            self.state = read(endpoints, prefix, file=file, max_age=max_age, timeout=timeout, **options)
        except Unavailable:
            if required:
                raise
        super().__init__(
            settings_cls,
            case_sensitive=case_sensitive,
            env_prefix="",
            env_nested_delimiter="/",
            env_ignore_empty=False,
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        values = self.state.values if self.state is not None else {}
        found: Mapping[str, str | None] = dict(texts(values, self._prefix, fold=not self.case_sensitive))
        return parse_env_vars(found, self.case_sensitive, self.env_ignore_empty, self.env_parse_none_str)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self._prefix!r})"
