"""A settings module of Django that reads from the store when it is imported. Needs holdfast[settings].

    DJANGO_SETTINGS_MODULE=django_settings HOLDFAST_ENDPOINTS=shop-edge:2379 gunicorn --preload shop.wsgi
    holdfast put /app/secret_key …
    holdfast put /app/allowed_hosts '["shop.example"]'
    holdfast put /app/databases/default/host db

Environment variables override the store. No connection stays open, so workers may be forked.
"""

from __future__ import annotations

import os
from typing import Any

import pydantic
from holdfast.client.settings import HoldfastSource
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class Database(pydantic.BaseModel):
    engine: str = "django.db.backends.sqlite3"
    name: str = ":memory:"
    host: str = ""
    port: str = ""


class Stored(BaseSettings):
    secret_key: str
    debug: bool = False
    allowed_hosts: list[str] = []
    databases: dict[str, Database] = {"default": Database()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get("LAST_GOOD", "/var/cache/app/last-good")
        return env_settings, HoldfastSource(settings_cls, os.environ["HOLDFAST_ENDPOINTS"], "/app/", file=file)


stored = Stored()  # type: ignore[call-arg]  # the source gives what is required

SECRET_KEY = stored.secret_key
DEBUG = stored.debug
ALLOWED_HOSTS = stored.allowed_hosts
DATABASES: dict[str, dict[str, Any]] = {
    name: {key.upper(): value for key, value in database} for name, database in stored.databases.items()
}
INSTALLED_APPS: list[str] = []
USE_TZ = True
