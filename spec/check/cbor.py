"""CBOR as spec 01 §3 allows it, and nothing else.

In: bytes.  Out: int, bytes, str, list, dict, bool, None, Tag.
Always true: `encode(decode(data)) == data`; every other spelling of a value is refused.
"""

from typing import Any, NamedTuple

DEPTH_MAX = 16


class Malformed(ValueError):
    """The bytes are not the deterministic encoding of a value."""


class Tag(NamedTuple):
    number: int
    value: Any


def decode(data: bytes) -> Any:
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes after the value")
    return value


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument, offset after both. Only the shortest form of an argument passes."""
    if at >= len(data):
        raise Malformed("ends early")
    major, low = data[at] >> 5, data[at] & 31
    if low < 24:
        return major, low, at + 1
    if low > 27 or major == 7:
        raise Malformed("indefinite length, float or reserved value")
    size = 1 << (low - 24)
    argument = data[at + 1 : at + 1 + size]
    if len(argument) != size:
        raise Malformed("ends early")
    number = int.from_bytes(argument, "big")
    if number < (24 if size == 1 else 1 << (4 * size)):
        raise Malformed("not the shortest form of a number")
    return major, number, at + 1 + size


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEPTH_MAX:
        raise Malformed("nested too deeply")
    major, n, at = _head(data, at)
    if major == 0:
        return n, at
    if major == 1:
        return -1 - n, at
    if major in (2, 3):
        piece = data[at : at + n]
        if len(piece) != n:
            raise Malformed("ends early")
        try:
            return (piece if major == 2 else piece.decode("utf-8")), at + n
        except UnicodeDecodeError:
            raise Malformed("text is not UTF-8") from None
    if major == 4:
        items = []
        for _ in range(n):
            item, at = _item(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        pairs: dict[int, Any] = {}
        for _ in range(n):
            key, at = _item(data, at, depth + 1)
            if type(key) is not int or key < 0 or (pairs and key <= next(reversed(pairs))):
                raise Malformed("map keys are not ascending unsigned integers")
            pairs[key], at = _item(data, at, depth + 1)
        return pairs, at
    if major == 6:
        value, at = _item(data, at, depth + 1)
        return Tag(n, value), at
    if n in (20, 21, 22):
        return {20: False, 21: True, 22: None}[n], at
    raise Malformed("unknown simple value")


def encode(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return _lead(0, value) if value >= 0 else _lead(1, -1 - value)
    if isinstance(value, Tag):
        return _lead(6, value.number) + encode(value.value)
    if isinstance(value, (bytes, bytearray)):
        return _lead(2, len(value)) + bytes(value)
    if isinstance(value, str):
        return _lead(3, len(value.encode())) + value.encode()
    if isinstance(value, (list, tuple)):
        return _lead(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        return _lead(5, len(value)) + b"".join(encode(k) + encode(value[k]) for k in sorted(value))
    raise TypeError(type(value))


def _lead(major: int, n: int) -> bytes:
    if n < 24:
        return bytes([major << 5 | n])
    low = 24 + sum(n >= 1 << bits for bits in (8, 16, 32))
    return bytes([major << 5 | low]) + n.to_bytes(1 << (low - 24), "big")
