"""Codec: turns a user's type into bytes and back, chosen once from the type.

A letter and its envelope: the type says how the letter is written, the envelope says which edition of
the rules was used, and a reader that meets a newer edition says so instead of guessing.

Promise: what `encode` wrote, `decode` of the same type reads back equal; unknown fields pass; what
    cannot be read raises `Undecodable` with the reason, never a half-read value.
What can break it: renaming or removing a field without a default; a type whose parts JSON cannot carry.
Proved by: tests/blocks/test_codec.py (msgspec, dataclasses, pydantic; round trips and refusals).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from atoll.errors import ConfigurationError

T = TypeVar("T")

FORMAT = 1
FORMAT_HEADER = "atoll-format"


class Undecodable(ValueError):
    """The bytes are not what the type expects, or are of a newer format."""


class Codec(Generic[T]):
    """JSON by msgspec for its types, dataclasses, TypedDicts and builtins; by the model for pydantic."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._encode, self._decode = _pydantic(kind) if _is_model(kind) else _msgspec(kind)

    def encode(self, value: T) -> bytes:
        """The value as JSON bytes. ConfigurationError when it is not of the codec's type."""
        if isinstance(self._kind, type) and not isinstance(value, self._kind):
            raise ConfigurationError(
                f"found a {type(value).__qualname__}; this queue carries {self._kind.__qualname__}. "
                "Put what the queue was declared with."
            )
        return self._encode(value)

    def decode(self, body: bytes, headers: Mapping[str, str]) -> T:
        """The value again. Raises Undecodable."""
        edition = headers.get(FORMAT_HEADER, "1")
        if not edition.isdigit() or int(edition) > FORMAT:
            raise Undecodable(
                f"found envelope format {edition[:20]!r}; this Atoll reads {FORMAT}. "
                "Upgrade the worker, then revive it."
            )
        try:
            return cast("T", self._decode(body))
        except Exception as error:  # a decoder of the user's type may raise anything
            raise Undecodable(f"not a {getattr(self._kind, '__name__', self._kind)}: {error}") from error


def _is_model(kind: Any) -> bool:
    return hasattr(kind, "model_validate_json") and hasattr(kind, "model_dump_json")


def _pydantic(kind: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    return lambda value: value.model_dump_json().encode(), kind.model_validate_json


def _msgspec(kind: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import msgspec

    refusal = "Use a dataclass, a msgspec Struct, a pydantic model or builtins."
    try:
        decoder = msgspec.json.Decoder(kind)
        if isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.CustomType):
            raise TypeError("nothing says what its fields are")
    except TypeError as error:
        raise ConfigurationError(f"{kind!r} cannot be carried by a queue: {error}. {refusal}") from None
    encoder = msgspec.json.Encoder()

    def encode(value: Any) -> bytes:
        try:
            return encoder.encode(value)
        except TypeError as error:
            raise ConfigurationError(
                f"a part of {value!r:.200} cannot be carried: {error}. {refusal}"
            ) from None

    return encode, decoder.decode
