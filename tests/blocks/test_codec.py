"""A8: messages are msgspec types, dataclasses, pydantic models; what cannot be read says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
from pydantic import BaseModel

from atoll.blocks.codec import FORMAT_HEADER, Codec, Undecodable
from atoll.errors import ConfigurationError


@dataclass
class Plain:
    id: int
    note: str | None = None


class Struct(msgspec.Struct):
    id: int
    note: str | None = None


class Model(BaseModel):
    id: int
    note: str | None = None


class Typed(TypedDict):
    id: int


class Unreadable:
    def __init__(self, id: int) -> None:
        self.id = id


@pytest.mark.parametrize("kind", [Plain, Struct, Model])
def test_what_was_encoded_is_read_back_equal(kind: Any) -> None:
    codec = Codec(kind)
    value = kind(id=7, note="ö")
    assert codec.decode(codec.encode(value), {}) == value


@pytest.mark.parametrize("kind", [Plain, Struct, Model])
def test_a_field_of_a_newer_program_is_passed_over(kind: Any) -> None:
    assert Codec(kind).decode(b'{"id": 7, "later": 1}', {}) == kind(id=7)


@pytest.mark.parametrize(("kind", "value"), [(int, 3), (str, "x"), (list, [1, 2]), (bytes, b"\x00\xff")])
def test_builtins_travel_too(kind: Any, value: Any) -> None:
    assert Codec(kind).decode(Codec(kind).encode(value), {}) == value


def test_a_typed_dict_travels() -> None:
    codec: Codec[Any] = Codec(Typed)
    assert codec.decode(b'{"id": 1}', {}) == {"id": 1}


@pytest.mark.parametrize("kind", [Plain, Struct, Model])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"id": "x"}', b"\xff\xfe", b"{}"])
def test_what_is_not_the_type_is_undecodable(kind: Any, body: bytes) -> None:
    with pytest.raises(Undecodable):
        Codec(kind).decode(body, {})


@pytest.mark.parametrize("edition", ["2", "99", "x", ""])
def test_an_envelope_of_the_future_is_refused(edition: str) -> None:
    with pytest.raises(Undecodable, match="envelope format"):
        Codec(int).decode(b"1", {FORMAT_HEADER: edition})


def test_a_value_of_another_type_is_refused_at_the_put() -> None:
    with pytest.raises(ConfigurationError, match="this queue carries Plain"):
        Codec(Plain).encode(Struct(1))  # type: ignore[arg-type]


def test_a_type_no_codec_can_carry_is_refused_when_the_queue_is_declared() -> None:
    with pytest.raises(ConfigurationError, match="cannot be carried"):
        Codec(type(lambda: 0))
