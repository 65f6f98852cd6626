"""Connects to the API server that a kubeconfig names, as kubectl does.

Contexts, client certificates, tokens, OIDC and credential plugins are those of the `kubernetes` package. The operator
itself does not need it, so its image does not have it.
"""

from __future__ import annotations

import ssl

from kubernetes.aio import client, config


class NoCluster(Exception):
    """The kubeconfig names no API server that can be used. The message says why."""


async def connect(path: str | None, context: str | None) -> tuple[str, ssl.SSLContext | None, str]:
    """The address of the API server, the TLS to use, and the bearer token ("" for none). `path` and `context`: None for
    those that kubectl would use. Raises NoCluster."""
    found = client.Configuration()
    try:
        await config.load_kube_config(path, context, client_configuration=found, persist_config=False)
    except (config.ConfigException, OSError, ValueError) as error:
        raise NoCluster(f"the kubeconfig cannot be used: {error}") from None
    token = await found.get_api_key_with_prefix("BearerToken") or ""
    return found.host, _tls(found), token.removeprefix("Bearer ")


def _tls(found: client.Configuration) -> ssl.SSLContext | None:
    if not found.host.startswith("https:"):
        return None
    try:
        tls = ssl.create_default_context(cafile=found.ssl_ca_cert)
        if found.cert_file:
            tls.load_cert_chain(found.cert_file, found.key_file)
    except (OSError, ssl.SSLError) as error:
        raise NoCluster(f"the certificates of the kubeconfig cannot be used: {error}") from None
    if not found.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls
