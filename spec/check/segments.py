"""Segment files of a replica (spec 06 §13): which records one holds, and how it ends.

In: the bytes of one segment.  Out: its payloads and one of `clean`, `preallocated`, `sealed`, `damaged`, `torn`.
Not here: what a replica does about it with its other segments.
"""

from collections.abc import Callable
from dataclasses import dataclass

from values import need

HEADER_BYTES, HEAD_BYTES, FRAME_BYTES = 65, 16, 20
PAYLOAD_MAX, FRAMES_MAX = 1_200_000, 1 << 20
SEAL = 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0x82F63B78 * (byte & 1)
        table.append(byte)
    return table


TABLE = _table()


def crc(value: int, data: bytes) -> int:
    """CRC-32C, continued from `value`."""
    value ^= 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


@dataclass
class Head:
    length: int
    ordinal: int
    durable: int
    crc: int
    intact: bool


@dataclass
class Segment:
    capsule: bytes
    number: int
    first: int
    payloads: list[bytes]
    end: str
    offset: int  # where the end begins


def read(data: bytes, name: bytes | None = None) -> Segment:
    header = data[:HEADER_BYTES]
    need(len(header) == HEADER_BYTES and header[:5] == b"bldS\x01", "§13", "not a segment")
    header_crc = crc(0, header[:61])
    need(header_crc == int.from_bytes(header[61:], "big"), "§13", "the segment's header crc")
    capsule, number, first = header[5:37], int.from_bytes(header[37:45], "big"), int.from_bytes(header[45:53], "big")
    need(name in (None, capsule), "§13", "the segment is of another capsule")

    def head_at(at: int) -> Head | None:
        raw = data[at : at + HEAD_BYTES]
        if len(raw) < HEAD_BYTES:
            return None
        length, ordinal, durable, check = (int.from_bytes(raw[i : i + 4], "big") for i in (0, 4, 8, 12))
        return Head(length, ordinal, durable, check, crc(header_crc, raw[:12]) == check)

    offsets: list[int] = []
    payloads: list[bytes] = []
    at = HEADER_BYTES

    def segment(end: str) -> Segment:
        return Segment(capsule, number, first, payloads, end, at)

    while at < len(data):
        if not any(data[at:]):
            return segment("preallocated")
        head = head_at(at)
        if not (head and head.intact and _in_bounds(head, at) and head.ordinal == len(offsets)):
            return segment(_damaged_or_torn(data, at, at + FRAME_BYTES, len(offsets), head_at))
        behind = at + FRAME_BYTES + head.length
        payload = data[at + FRAME_BYTES : behind]
        whole = len(payload) == head.length and crc(head.crc, payload) == int.from_bytes(data[at + HEAD_BYTES :][:4], "big")
        if whole and head.durable == SEAL:
            if payload == b"".join(offset.to_bytes(4, "big") for offset in [*offsets, at]):
                if not any(data[behind:]):
                    return segment("sealed")
                at = behind
                return segment("damaged")
            whole = False
        if not whole:
            return segment(_damaged_or_torn(data, at, behind, len(offsets), head_at))
        offsets.append(at)
        payloads.append(payload)
        at = behind
    return segment("clean")


def _in_bounds(head: Head, at: int) -> bool:
    if head.durable == SEAL:
        return head.ordinal <= FRAMES_MAX and head.length == 4 * (head.ordinal + 1)
    return 1 <= head.length <= PAYLOAD_MAX and head.ordinal < FRAMES_MAX and head.durable <= at


def _damaged_or_torn(
    data: bytes, bad: int, search_from: int, expected: int, head_at: Callable[[int], Head | None]
) -> str:
    """Damaged, when something later proves that the bad place had been synced."""
    for at in range(search_from, len(data) - HEAD_BYTES + 1):
        ordinal, durable = (int.from_bytes(data[at + i : at + i + 4], "big") for i in (4, 8))
        if ordinal >= expected and durable > bad:
            head = head_at(at)
            if head.intact and _in_bounds(head, at):
                return "damaged"
    return "torn"
