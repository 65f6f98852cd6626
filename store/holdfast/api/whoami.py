"""holdfast.v1.Identity: tells a caller who it is to the cluster. Edge replicas ask it on behalf of their callers, whose
tokens they cannot check themselves."""

from __future__ import annotations

from holdfast.api.base import Service, Serving
from holdfast.api.identity import token_of
from holdfast.api.methods import WHO_AM_I
from holdfast.front.calls import Call
from holdfast.proto import holdfast_pb2


class IdentityService(Service):
    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.router.unary(WHO_AM_I, self.who_am_i)

    def who_am_i(self, call: Call, body: bytes) -> None:
        holdfast_pb2.WhoAmIRequest.FromString(body)
        member = self.member(call)

        def current() -> None:
            auth = member.state.auth
            who = self.principal(call, member)
            user = auth.users.get(who.user)
            token = token_of(call) if auth.enabled else ""
            response = holdfast_pb2.WhoAmIResponse(
                user=who.user,
                roles=user.roles if user is not None else (),
                auth_enabled=auth.enabled,
                auth_revision=auth.revision,
                token_ends_ms=self.serving.identities.tokens.ends_ms(token) if token else 0,
            )
            self.answer(call, member, response)

        self.when_current(call, member, current)
