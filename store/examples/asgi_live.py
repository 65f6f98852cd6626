"""An ASGI application whose settings follow the store while it runs, without a restart.

    HOLDFAST_ENDPOINTS=shop-edge:2379 uvicorn asgi_live:app
    holdfast put /app/settings '{"greeting": "hello", "limit": 10}'

With FastAPI or Starlette, `lifespan` is all that is needed: `app = FastAPI(lifespan=lifespan)`, and in a handler
`request.state.config.value`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pydantic
from holdfast import client

Message = dict[str, Any]


class Settings(pydantic.BaseModel):
    greeting: str
    limit: int = pydantic.Field(10, ge=1)


@asynccontextmanager
async def lifespan(_app: object = None) -> AsyncIterator[dict[str, Any]]:
    """A value that is not valid changes nothing. The file is for a start while no server answers."""
    file = os.environ.get("LAST_GOOD", "/var/cache/app/last-good")
    async with (
        client.connect(os.environ["HOLDFAST_ENDPOINTS"]) as hf,
        await hf.config("/app/settings", Settings, file=file) as config,
    ):
        yield {"config": config}


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await follow(scope, receive, send)
        return
    config = scope["state"]["config"]
    settings: Settings = config.value  # from memory, the newest valid one
    body = {"greeting": settings.greeting, "limit": settings.limit, "age": config.age, "error": config.error}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def follow(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    await receive()  # lifespan.startup
    try:
        async with lifespan() as state:
            scope["state"].update(state)
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
    except client.ClientError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.shutdown.complete"})
