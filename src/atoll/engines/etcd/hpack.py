"""HPACK, as much of it as a client needs that forbids its server to remember: header blocks, in and out.

Shorthand with the dictionary left at home. Since neither side keeps a table, a block means the same each time
it comes, so what was read once is looked up the next time.

Source: RFC 7541, sections 5 and 6, appendices A and B.
Departure: the dynamic table has size 0 on both sides; of the static table only what an answer is read for.
"""

from __future__ import annotations

from functools import lru_cache

# The length of each symbol's code, A for 0, a for 26; the codes are numbered by length, then by symbol.
_LENGTHS = (
    "NXcccccccYecceccccccccecccccccccGKKMNGILKKILIGGGFFFGGGGGGGHIPGMKNGHHHHHHHHHHHHHHHHHHHHHHIH"
    "INTNOGPFGFGFGGGFHHGGGFGHGFFGHHHHHPLONcUWUUWWWXWXXXXXYXYYWXYXXXXVWXWXXYWVUWWXXVXWWYVWXXVVWV"
    "XWXXUWWWXWWXaaUTWXWZaaabbaYZTVabbabYVVaacbbbUYUVWVVXWWZZYYaXabaabbbbbcbbbbbae"
)
_STATUS = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
_STATIC_LAST = 61


class BadBlock(ValueError):
    """A header block that cannot be read."""


def _codes() -> dict[tuple[int, int], int]:
    """(length, code) -> symbol."""
    lengths = [ord(c) - 65 if c < "a" else ord(c) - 71 for c in _LENGTHS]
    found: dict[tuple[int, int], int] = {}
    code = length = 0
    for symbol in sorted(range(len(lengths)), key=lambda s: (lengths[s], s)):
        code <<= lengths[symbol] - length
        length = lengths[symbol]
        found[length, code] = symbol
        code += 1
    return found


_CODES = _codes()


def literal(name: str, value: str) -> bytes:
    """One header, said in full and not to be remembered."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    return _integer(len(data), 7, 0) + data


def _integer(value: int, bits: int, first: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out, value = bytearray((first | most,)), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=256)
def headers(block: bytes) -> dict[str, str]:
    """What a block says. Not to be changed: the next like it is answered with the same."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _read_integer(block, at, 7)
                if index in _STATUS:
                    found[":status"] = _STATUS[index]
                elif not 0 < index <= _STATIC_LAST:
                    raise BadBlock(f"an entry {index} of a table that is empty")
            elif first & 0xE0 == 0x20:
                _, at = _read_integer(block, at, 5)
            else:
                index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
                if index:
                    name = ":status" if index in _STATUS else f"static {index}"
                else:
                    name, at = _read_text(block, at)
                found[name], at = _read_text(block, at)
    except IndexError:
        raise BadBlock("it ends in the middle") from None
    return found


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value, at = block[at] & most, at + 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte, at = block[at], at + 1
        value += (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return value, at
        if shift > 35:
            raise BadBlock("a number without end")


def _read_text(block: bytes, at: int) -> tuple[str, int]:
    packed = block[at] & 0x80
    length, at = _read_integer(block, at, 7)
    data = block[at : at + length]
    if len(data) != length:
        raise BadBlock("it ends in the middle")
    return (unpacked(data) if packed else data).decode(errors="replace"), at + length


def unpacked(data: bytes) -> bytes:
    """Text in Huffman code, as plain text."""
    out = bytearray()
    code = length = 0
    for byte in data:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                if symbol == 256:
                    raise BadBlock("an end in the middle of a text")
                out.append(symbol)
                code = length = 0
    if length > 7 or code != (1 << length) - 1:
        raise BadBlock("a text that ends in half a letter")
    return bytes(out)
