"""Invariants stay on in production: a stopped member is repaired by its peers, a wrong answer by nobody."""


class InvariantViolation(BaseException):
    """The member's state contradicts the protocol. Not an `Exception`, so that no handler swallows it."""


def invariant(condition: bool, what: str) -> None:
    """Crash with `what` unless `condition` holds. What is checked for every entry raises the exception itself: there it
    costs more to make up `what` than to check."""
    if not condition:
        raise InvariantViolation(what)
