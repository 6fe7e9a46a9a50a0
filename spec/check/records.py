"""Metadata and records (spec 06 §2, §3): the rules that concern one record alone.

In: bytes.  Out: `Metadata` and `Header`, which obey these rules; who may write what is in `chains`.
"""

from values import (
    ABSENT_OK,
    SUITES,
    Suite,
    fields,
    is_bytes,
    is_bytes_up_to,
    is_number,
    is_text_up_to,
    is_time,
    need,
    value,
)

CONFIG, OPEN, DATA, JOIN, CLOSE = 1, 2, 3, 4, 5
KINDS = {CONFIG: "config", OPEN: "open", DATA: "data", JOIN: "join", CLOSE: "close"}
BODY_MAX, ENTRIES_MAX, PARENTS_MAX = 1_048_576, 65_535, 1024
METADATA_MAX, CONFIG_MAX, OPENING_MAX = 2048, 65_536, 8192
CERTIFICATE_MAX, ACKNOWLEDGEMENT_MAX, HEADS_MAX = 512, 256, 1 << 20
PROOF_MAX, FORK_MAX, PATH_MAX = 16 << 20, 200_000, 128
ZERO = bytes(32)
NONCE = bytes(12)


class Metadata:
    def __init__(self, data: bytes, name: bytes | None = None) -> None:
        v = value(data, METADATA_MAX, "§2", "metadata")
        _, number, self.owner_key, self.created, _, self.label = fields(v, "§2", "metadata", {
            0: ("version", is_number(1, 1)), 1: ("suite", is_number(1, 3)), 2: ("owner", is_bytes_up_to(METADATA_MAX)),
            3: ("created", is_time), 4: ("nonce", is_bytes(16)), 5: ("label", is_text_up_to(64), ABSENT_OK),
        })  # fmt: skip
        self.suite = SUITES[number]
        self.suite.check_key(self.owner_key, "§2")
        self.name = self.suite.hash("bield capsule name v1", data)
        self.owner = self.suite.writer(self.owner_key)
        need(name in (None, self.name), "§2", f"the metadata is that of {self.name.hex()}, another capsule")


class Header:
    """A header that obeys every rule of §3 that concerns it alone."""

    def __init__(self, data: bytes, metadata: Metadata) -> None:
        def number(at: int, size: int) -> int:
            return int.from_bytes(data[at : at + size], "big")

        def rule(condition: object, text: str) -> None:
            need(condition, "§3", text)

        suite = metadata.suite
        rule(len(data) >= 232 and data[:4] == b"bldr", "not a record header")
        rule(data[4] == 1, f"version {data[4]} is unknown")
        rule(data[5] == suite.number, f"suite {data[5]} is not the capsule's")
        self.kind, k = data[6], data[7]
        rule(self.kind in KINDS, f"kind {self.kind} is unknown")
        self.capsule, self.writer = data[8:40], data[40:72]
        rule(self.capsule == metadata.name, "the record is of another capsule")
        self.seq, self.epoch, self.clock, self.config = (number(at, 8) for at in (72, 80, 88, 96))
        self.generation, self.count, self.body_bytes = (number(at, 4) for at in (104, 108, 112))
        parents = number(116, 2)
        rule(k == ((self.seq & -self.seq).bit_length() - 1 if self.seq else 0), f"{k} skip pointers at seq {self.seq}")
        rule(len(data) == 232 + 72 * parents + 32 * k, "the header is cut off")
        rule(data[118:120] == b"\0\0", "the reserved bytes are not zero")
        self.prev, self.salt, self.commitment, self.root = data[120:152], data[152:168], data[168:200], data[200:232]
        rule(self.seq > 0 or self.prev == ZERO, "a predecessor at seq 0")
        rule(self.body_bytes <= BODY_MAX, f"a body of {self.body_bytes} bytes, at most {BODY_MAX}")
        rule(self.count <= ENTRIES_MAX, f"{self.count} entries, at most {ENTRIES_MAX}")
        rule(parents <= PARENTS_MAX, f"{parents} parents, at most {PARENTS_MAX}")
        at = range(232, 232 + 72 * parents, 72)
        self.parents = [(data[a : a + 32], number(a + 32, 8), data[a + 40 : a + 72]) for a in at]
        ids = [writer for writer, _, _ in self.parents]
        rule(all(a < b for a, b in zip(ids, ids[1:])), "parents are not in ascending order of writer, each once")
        rule(self.writer not in ids, "a record is its own writer's parent")
        skips = 232 + 72 * parents
        self.skips = {self.seq - 2**j: data[skips + 32 * (j - 1) :][:32] for j in range(1, k + 1)}
        self.data, self.hash = data, suite.hash("bield capsule header v1", data)
        self.names = f"{KINDS[self.kind]} record, writer {self.writer.hex()}, seq {self.seq}"

        rule((self.kind == CONFIG) == (self.writer == metadata.owner), "config records, and no others, are the owner's")
        if self.kind == CONFIG:
            rule(self.config == self.seq, "a config record names itself as its config")
            rule(self.count >= 1 and not parents, "a config record has changes and no parents")
            rule(self.body_bytes <= CONFIG_MAX, f"a config body of {self.body_bytes} bytes, at most {CONFIG_MAX}")
        else:
            rule((self.kind == OPEN) == (self.seq == 0), "a chain begins with its open record, and has no other")
        if self.kind == OPEN:
            rule(
                [p[:2] for p in self.parents] == [(metadata.owner, self.config)],
                "the parent of an open record is its config",
            )
            rule(self.body_bytes <= OPENING_MAX, f"an opening of {self.body_bytes} bytes, at most {OPENING_MAX}")
        if self.kind == DATA:
            rule(self.generation >= 1 and self.count >= 1, "a data record has a generation and entries")
            rule(self.body_bytes >= 16 + 5 * self.count, "the body is too short for its entries")
        else:
            rule(self.generation == 0, f"a {KINDS[self.kind]} record is in clear: generation 0")
            rule(self.salt == bytes(16) and self.commitment == ZERO, "salt and commitment of a body in clear are zero")
            rule(self.kind == CONFIG or self.count == 0, f"a {KINDS[self.kind]} record counts no entries")
        if self.kind in (JOIN, CLOSE):
            rule(
                self.body_bytes == 0 and self.root == suite.root(b""),
                f"the body of a {KINDS[self.kind]} record is empty",
            )
            rule(bool(parents) == (self.kind == JOIN), "a join has parents, a close has none")

    @property
    def time(self) -> int:
        return self.clock >> 16

    def check_after(self, older: "Header") -> None:
        """What every later record of a chain keeps."""
        need(self.epoch >= older.epoch, "§3", "the epoch went back")
        need(self.clock >= older.clock, "§3", "the clock went back")
        need(self.config >= older.config, "§3", "the config went back")
        need(older.kind != CLOSE, "§3", "a record after the chain's close")


def split(data: bytes, metadata: Metadata, whole: bool) -> tuple[Header, bytes, bytes]:
    """Header, signature, body. `whole`: a record, else a signed head."""
    need(len(data) >= 232, "§3", "shorter than a header")
    header_bytes = 232 + 72 * int.from_bytes(data[116:118], "big") + 32 * data[7]
    signature_end = header_bytes + metadata.suite.signature_bytes
    header = Header(data[:header_bytes], metadata)
    signature, body = data[header_bytes:signature_end], data[signature_end:]
    need(len(signature) == metadata.suite.signature_bytes, "§3", "the signature is cut off")
    need(
        len(body) == (header.body_bytes if whole else 0), "§3" if whole else "§7", "the length is not that of the body"
    )
    return header, signature, body


def check_signature(suite: Suite, key: bytes, header: Header, signature: bytes) -> None:
    message = b"bield capsule record v1\0" + header.hash
    need(suite.verify(key, signature, message), "§3", f"the signature is not the writer's (suite {suite.number}, §1)")
