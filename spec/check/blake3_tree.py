"""BLAKE3's tree, for slices (spec 06 §7): the chaining values that the `blake3` package keeps to itself.

In: a root, a length, the wanted byte ranges, a slice.  Out: the chunks it proves.
Written from the BLAKE3 specification, §2.2 to §2.5. Slow (about 1 ms a chunk); whole hashes use the package.
"""

import struct
from collections.abc import Iterator

CHUNK = 1024
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
MASK = 0xFFFFFFFF


class WrongSlice(ValueError):
    """The slice does not prove bytes under this root."""


def _compress(cv: tuple[int, ...], block: bytes, counter: int, flags: int) -> tuple[int, ...]:
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*cv, *IV[:4], counter & MASK, counter >> 32, len(block), flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXES):
            for word, first, second in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & MASK
                x = v[d] ^ v[a]
                v[d] = (x >> first | x << 32 - first) & MASK
                v[c] = (v[c] + v[d]) & MASK
                x = v[b] ^ v[c]
                v[b] = (x >> second | x << 32 - second) & MASK
        m = tuple(m[p] for p in PERMUTATION)
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def chunk_value(chunk: bytes, index: int, root: bool = False) -> bytes:
    """The chaining value of one chunk; of the only chunk, the hash itself."""
    cv = IV
    starts = range(0, max(len(chunk), 1), 64)
    for at in starts:
        flags = CHUNK_START * (at == 0)
        if at == starts[-1]:
            flags |= CHUNK_END | ROOT * root
        cv = _compress(cv, chunk[at : at + 64], index, flags)
    return struct.pack("<8I", *cv)


def parent_value(left_right: bytes, root: bool = False) -> bytes:
    return struct.pack("<8I", *_compress(IV, left_right, 0, PARENT | ROOT * root))


def nodes(length: int, wanted: set[int]) -> Iterator[tuple[int, int]]:
    """The nodes of the tree that cover wanted chunks, as (first chunk, chunks), in the order of a slice."""

    def below(first: int, count: int) -> Iterator[tuple[int, int]]:
        if not any(first <= chunk < first + count for chunk in wanted):
            return
        yield first, count
        if count > 1:
            left = left_chunks(count)
            yield from below(first, left)
            yield from below(first + left, count - left)

    return below(0, max(1, -(-length // CHUNK)))


def left_chunks(count: int) -> int:
    """The largest power of two that leaves something for the right."""
    return 1 << (count - 1).bit_length() - 1


def open_slice(root: bytes, length: int, wanted: set[int], data: bytes) -> dict[int, bytes]:
    """The wanted chunks; every byte of `data` was needed and is under `root`."""
    expected = {(0, max(1, -(-length // CHUNK))): root}
    chunks, at = {}, 0
    for first, count in nodes(length, wanted):
        size = 64 if count > 1 else min(CHUNK, length - first * CHUNK)
        piece, at = data[at : at + size], at + size
        is_root = at == size  # the first node taken
        value = chunk_value(piece, first, is_root) if count == 1 else parent_value(piece, is_root)
        if len(piece) != size or value != expected[first, count]:
            raise WrongSlice(f"the node over chunks {first} to {first + count - 1} is not the one under the root")
        if count == 1:
            chunks[first] = piece
        else:
            left = left_chunks(count)
            expected[first, left], expected[first + left, count - left] = piece[:32], piece[32:]
    if at != len(data):
        raise WrongSlice("bytes are left over")
    return chunks
