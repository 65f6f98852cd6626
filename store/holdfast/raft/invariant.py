"""Invariants stay on in production: peers can repair a stopped member, but nothing repairs a wrong answer."""


class InvariantViolation(BaseException):
    """The member's state contradicts the protocol. Not an `Exception`, so that no handler swallows it."""


def invariant(condition: bool, what: str) -> None:
    """Crash with `what` unless `condition` holds. Checks that run for every entry raise the exception themselves,
    because formatting `what` would cost more than the check."""
    if not condition:
        raise InvariantViolation(what)
