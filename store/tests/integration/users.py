"""A cluster with users for tests: root may everything, eve reads and writes below /eve/, mat nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from holdfast import client
from holdfast.proto import auth_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster

PASSWORDS = {"root": "secret", "eve": "pw", "mat": "pw"}
_AUTH = "/etcdserverpb.Auth/"
_ODD = {"AuthEnable": "AuthEnable", "AuthDisable": "AuthDisable"}


async def ask(hf: client.Client, method: str, request: Message) -> Message:
    """A call of the Auth service by the name that requests and answers have there."""
    name = _ODD.get(method, f"Auth{method}")
    response: type[Message] = getattr(rpc_pb2, f"{name}Response")
    return await hf.connection.call(_AUTH + method, request, response, idempotent=True)


async def grant_role(hf: client.Client, user: str, role: str) -> None:
    await ask(hf, "UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role))


async def revoke_role(hf: client.Client, user: str, role: str) -> None:
    await ask(hf, "UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest(name=user, role=role))


async def change_password(hf: client.Client, user: str, password: str) -> None:
    await ask(hf, "UserChangePassword", rpc_pb2.AuthUserChangePasswordRequest(name=user, password=password))


async def enable(hf: client.Client) -> None:
    await ask(hf, "AuthEnable", rpc_pb2.AuthEnableRequest())


async def set_up(cluster: LocalCluster) -> None:
    """Wait until the cluster is ready and make the users; auth is still off."""
    await cluster.wait_ready()
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        await set_up_users(hf)


async def set_up_users(hf: client.Client) -> None:
    """Make the users; auth is still off."""
    for name, password in PASSWORDS.items():
        await ask(hf, "UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password=password))
    await grant_role(hf, "root", "root")
    await ask(hf, "RoleAdd", rpc_pb2.AuthRoleAddRequest(name="r"))
    mine = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"/eve/", range_end=b"/eve0")
    await ask(hf, "RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name="r", perm=mine))
    await grant_role(hf, "eve", "r")


def connector(cluster: LocalCluster) -> Callable[[str], client.Client]:
    def connect(user: str, **options: Any) -> client.Client:
        return client.connect(cluster.endpoints, timeout=20, user=user, password=PASSWORDS[user], **options)

    return connect
