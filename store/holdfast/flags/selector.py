"""Where flags are: a provider's selector names a key or a prefix."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.flags.definition import shown
from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.status import Code, Refusal, RequestError

MAX_BYTES = 4096
EVALUATORS = "$evaluators/"


@dataclass(frozen=True, slots=True)
class Selector:
    """A key that holds a whole document, or a prefix, ending in `/`, with one definition in each key below it."""

    key: bytes

    @classmethod
    def parse(cls, text: str, default: str) -> Selector:
        """The selector of a request; the `default` if it names none. Raises RequestError."""
        try:
            key = (text or default).encode()
        except UnicodeEncodeError:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: the selector is not valid UTF-8")) from None
        if len(key) > MAX_BYTES:
            raise RequestError(
                Refusal(Code.INVALID_ARGUMENT, f"holdfast: a selector has at most {MAX_BYTES} bytes, not {len(key)}")
            )
        return cls(key)

    @property
    def whole(self) -> bool:
        """Whether one key holds the whole document."""
        return not self.key.endswith(b"/")

    @property
    def range_end(self) -> bytes:
        """As in a Range request."""
        return b"" if self.whole else prefix_end(self.key)

    @property
    def bounds(self) -> Range:
        return bounds(self.key, self.range_end)

    def __str__(self) -> str:
        return shown(self.key.decode(errors="replace"))
