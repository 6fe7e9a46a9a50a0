"""A capsule's state (spec 06 §3 to §6): the configuration, every writer's chain, opened bodies.

In: records, one by one.  Out: a `Capsule` that holds only what is verified.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from records import (
    CERTIFICATE_MAX,
    CONFIG,
    CONFIG_MAX,
    DATA,
    METADATA_MAX,
    NONCE,
    OPEN,
    OPENING_MAX,
    Header,
    Metadata,
    check_signature,
    split,
)
from values import (
    ABSENT_OK,
    Check,
    Refused,
    Suite,
    fields,
    is_bool,
    is_bytes_up_to,
    is_digest,
    is_list_of,
    is_number,
    is_text_up_to,
    is_time,
    need,
    refuse,
    statement,
    value,
)


def ascending(items: list[bytes]) -> bool:
    return all(a < b for a, b in zip(items, items[1:]))


# ── §5: configuration ────────────────────────────────────────────────────────────────────────────────────────────


is_principal = is_digest
is_generation = is_number(1, 2**32 - 1)


def is_head(v: Any) -> bool:
    return type(v) is list and len(v) == 2 and is_number()(v[0]) and is_digest(v[1])


CHANGES: dict[int, tuple[str, list[Check]]] = {
    0: ("certify", [is_principal]),
    1: ("uncertify", [is_principal, is_list_of(is_digest, 1024)]),
    2: ("admit", [is_bytes_up_to(METADATA_MAX)]),
    3: ("revoke", [is_digest, lambda v: v is None or is_head(v)]),
    4: ("generation", [is_generation, is_digest]),
    5: ("erase", [is_generation]),
    6: ("replica", [is_principal, is_text_up_to(256)]),
    7: ("unreplica", [is_principal]),
    8: ("quorum", [is_number(1, 255), is_number(0, 255)]),
    9: ("witness", [is_text_up_to(256)]),
    10: ("unwitness", [is_text_up_to(256)]),
    11: ("quota", [is_number()]),
    12: ("codes", [is_principal, is_list_of(is_bytes_up_to(128), 64)]),
}


CONFIG_RECORDS_MAX, GENERATIONS_MAX, WRITERS_MAX = 65_536, 65_536, 65_536
CERTIFIERS_MAX, FORMER_CERTIFIERS_MAX, REPLICAS_MAX, WITNESSES_MAX = 64, 4096, 64, 64


@dataclass
class Config:
    """What all changes so far say. Each method below is one change; it refuses what contradicts the state."""

    suite: Suite
    owner: bytes
    headers: list[Header] = field(default_factory=list)
    certified: set[bytes] = field(default_factory=set)
    uncertified: dict[bytes, list[bytes]] = field(default_factory=dict)  # principal → the writers that stay
    codes: dict[bytes, list[bytes]] = field(default_factory=dict)  # principal → the only codes of its that count
    admitted: set[bytes] = field(default_factory=set)
    cuts: dict[bytes, bytes | None] = field(default_factory=dict)  # the hash that counts there
    revoked: dict[bytes, int] = field(default_factory=dict)  # the last seq that counts; −1: none does
    generations: list[tuple[int, bytes]] = field(default_factory=list)  # (config seq, commitment), number 1 first
    erased: set[int] = field(default_factory=set)
    replicas: dict[bytes, str] = field(default_factory=dict)
    witnesses: dict[str, str] = field(default_factory=dict)  # name → verifier key
    quorum: tuple[int, int] = (1, 0)
    quota: int | None = None

    def fold(self, header: Header, body: bytes) -> None:
        need(len(self.headers) < CONFIG_RECORDS_MAX, "§5", "too many config records")
        changes = value(body, CONFIG_MAX, "§5", "changes")
        need(type(changes) is list and 1 <= len(changes) <= 256, "§5", "1 to 256 changes")
        need(len(changes) == header.count, "§3", "the count is not the number of changes")
        for change in changes:
            need(
                type(change) is list and len(change) == 2 and type(change[1]) is list,
                "§5",
                "a change is [variant, [fields]]",
            )
            variant, arguments = change
            need(type(variant) is int and variant in CHANGES, "§5", f"change {variant!r} is unknown")
            name, checks = CHANGES[variant]
            fit = len(arguments) == len(checks) and all(check(v) for check, v in zip(checks, arguments))
            need(fit, "§5", f"{name}: fields of another type or size")
            getattr(self, "_" + name)(header.seq, *arguments)
        self.headers.append(header)

    def _certify(self, _: int, principal: bytes) -> None:
        known = principal in self.certified or principal in self.uncertified
        need(not known, "§5", "certify: the principal is certified, or was")
        self.certified.add(principal)
        need(len(self.certified) <= CERTIFIERS_MAX, "§5", "too many certifiers")

    def _uncertify(self, _: int, principal: bytes, keep: list[bytes]) -> None:
        need(principal in self.certified, "§5", "uncertify: the principal is not certified")
        need(ascending(keep), "§5", "uncertify: keep is not ascending, each once")
        self.certified.remove(principal)
        self.uncertified[principal] = keep
        need(len(self.uncertified) <= FORMER_CERTIFIERS_MAX, "§5", "too many former certifiers")
        need(sum(map(len, self.uncertified.values())) <= WRITERS_MAX, "§5", "too many kept writers")

    def _admit(self, _: int, key: bytes) -> None:
        self.suite.check_key(key, "§5")
        writer = self.suite.writer(key)
        known = writer in self.admitted or writer in self.revoked or writer == self.owner
        need(not known, "§5", "admit: the writer is admitted, revoked, or the owner")
        self.admitted.add(writer)
        need(len(self.admitted) <= WRITERS_MAX, "§5", "too many admitted writers")

    def _revoke(self, _: int, writer: bytes, stays: list[Any] | None) -> None:
        last, self.cuts[writer] = (-1, None) if stays is None else stays
        need(writer != self.owner, "§5", "revoke: the owner")
        need(last < self.revoked.get(writer, last + 1), "§5", "revoke: the writer is revoked, and last is not lower")
        self.revoked[writer] = last
        need(len(self.revoked) <= WRITERS_MAX, "§5", "too many revoked writers")

    def _generation(self, seq: int, number: int, commitment: bytes) -> None:
        need(number == len(self.generations) + 1, "§5", f"generation {number} is out of order")
        need(number <= GENERATIONS_MAX, "§5", "too many generations")
        self.generations.append((seq, commitment))

    def _erase(self, _: int, number: int) -> None:
        need(number <= len(self.generations), "§5", f"erase: generation {number} is unknown")
        need(number not in self.erased, "§5", f"erase: generation {number} is erased")
        self.erased.add(number)

    def _replica(self, _: int, principal: bytes, address: str) -> None:
        need(principal not in self.replicas, "§5", "replica: it is one")
        self.replicas[principal] = address
        need(len(self.replicas) <= REPLICAS_MAX, "§5", "too many replicas")

    def _unreplica(self, _: int, principal: bytes) -> None:
        need(self.replicas.pop(principal, None) is not None, "§5", "unreplica: the replica is unknown")

    def _quorum(self, _: int, replicas: int, witnesses: int) -> None:
        self.quorum = (replicas, witnesses)

    def _witness(self, _: int, verifier_key: str) -> None:
        name, _, rest = verifier_key.partition("+")
        digits, _, text = rest.partition("+")
        try:
            key = base64.b64decode(text, validate=True)
        except ValueError:
            key = b""
        need(base64.b64encode(key).decode() == text, "§5", "witness: not of the form name+hash+base64")
        need(len(key) == 33 and key[0] == 4, "§5", "witness: not the key of a cosigner")
        need(name and not any(c.isspace() or c < " " for c in name), "§5", "witness: a name without white space")
        hashed = hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
        need(digits == hashed, "§5", "witness: the hash is not that of name and key")
        need(name not in self.witnesses, "§5", "witness: its name is one")
        self.witnesses[name] = verifier_key
        need(len(self.witnesses) <= WITNESSES_MAX, "§5", "too many witnesses")

    def _unwitness(self, _: int, name: str) -> None:
        need(self.witnesses.pop(name, None) is not None, "§5", "unwitness: the witness is unknown")

    def _quota(self, _: int, most: int) -> None:
        self.quota = most

    def _codes(self, _: int, principal: bytes, codes: list[bytes]) -> None:
        need(principal in self.certified, "§5", "codes: the principal is not certified")
        need(codes and ascending(codes), "§5", "codes: 1 to 64, ascending, each once")
        self.codes[principal] = codes

    def generation_at(self, seq: int) -> int:
        """The newest generation as of a config record; 0: none yet."""
        return sum(since <= seq for since, _ in self.generations)

    def counts(self, chain: "Chain") -> bool:
        """Whether anything of the chain counts."""
        try:
            self.check_writer(chain, chain.headers[0])
        except Refused:
            return False
        return True

    def check_writer(self, chain: "Chain", header: Header) -> None:
        """The chain counts up to here, by all config records there are, not by those when the record was written."""
        if chain.writer not in self.admitted:
            granted = chain.certificate
            need(granted, "§5", "the writer is not admitted: no change names its key, and it has no certificate")
            kept = chain.writer in self.uncertified.get(granted.by, [])
            need(granted.by in self.certified or kept, "§5", "the writer is not admitted: its certifier does not count")
            codes = self.codes.get(granted.by, [granted.code])
            need(granted.code in codes, "§5", "the writer is not admitted: its certificate's code does not count")
        last = self.revoked.get(header.writer)
        other = header.seq == last and header.hash != self.cuts[header.writer]
        need(not other, "§5", "the writer is revoked; another record than this one is the last that counts")
        need(last is None or header.seq <= last, "§5", f"the writer is revoked; the last seq that counts is {last}")


# ── §6: opening ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Certificate:
    by: bytes
    code: bytes | None
    simulated: bool
    not_before: int
    not_after: int


def certificate(data: bytes, name: bytes, writer: bytes) -> Certificate:
    by, v = statement(data, "bield capsule writer certificate v1", CERTIFICATE_MAX, "§6")
    capsule, holder, code, simulated, not_before, not_after = fields(v, "§6", "certificate", {
        0: ("capsule", is_digest), 1: ("writer", is_digest), 2: ("code", is_bytes_up_to(128), ABSENT_OK),
        3: ("simulated", is_bool), 4: ("not before", is_time), 5: ("not after", is_time),
    })  # fmt: skip
    need(capsule == name and holder == writer, "§6", "the certificate is for another capsule or writer")
    need(not_before < not_after, "§6", "the certificate's time is empty")
    return Certificate(by, code, simulated, not_before, not_after)


@dataclass
class Chain:
    """One writer's: what was verified of it, in order."""

    writer: bytes
    key: bytes
    certificate: Certificate | None = None
    headers: list[Header] = field(default_factory=list)


# ── §4: bodies ───────────────────────────────────────────────────────────────────────────────────────────────────


def record_keys(suite: Suite, secret: bytes, header: Header, clause: str) -> bytes:
    both = suite.kdf(secret, "bield capsule open v1", length=64)
    need(both[32:] == header.commitment, clause, "the key does not open the record's commitment (§4)")
    return both[:32]


def layout(plaintext: bytes, count: int) -> list[bytes]:
    need(len(plaintext) >= 4 * count, "§4", "the body is too short for its ends")
    total = len(plaintext) - 4 * count
    ends = [int.from_bytes(plaintext[total + 4 * i :][:4], "big") for i in range(count)]
    starts = [0, *ends[:-1]]
    need(all(a <= b for a, b in zip(starts, ends)) and ends[-1] == total, "§4", "the ends do not partition the entries")
    entries = [plaintext[a:b] for a, b in zip(starts, ends)]
    for entry in entries:
        check_form(entry)
    return entries


def check_form(entry: bytes) -> None:
    need(entry and entry[0] in (0, 1), "§4", "an entry's form is 0 or 1")
    need(entry[0] == 0 or len(entry) >= 1 + 32 + 16, "§4", "an erasable entry is too short")


def open_erasable(suite: Suite, name: bytes, key: bytes, entry: bytes) -> bytes:
    both = suite.kdf(key, "bield capsule entry v1", name, length=64)
    need(both[32:] == entry[1:33], "§4", "the entry key does not open the entry's commitment")
    try:
        return AESGCM(both[:32]).decrypt(NONCE, entry[33:], name)
    except InvalidTag:
        refuse("§4", "the entry does not open")


@dataclass
class Keys:
    generations: dict[int, bytes] = field(default_factory=dict)
    entries: dict[tuple[bytes, int, int], bytes] = field(default_factory=dict)


# ── §3 to §6 together ────────────────────────────────────────────────────────────────────────────────────────────


class Capsule:
    """What is known of one capsule: config and chains, each record verified before it is here."""

    def __init__(self, metadata: Metadata, simulated: bool = False, keys: Keys | None = None) -> None:
        self.metadata, self.suite, self.name = metadata, metadata.suite, metadata.name
        self.simulated, self.keys = simulated, keys or Keys()
        self.config = Config(self.suite, metadata.owner)
        self.chains = {metadata.owner: Chain(metadata.owner, metadata.owner_key)}
        self.opened: dict[tuple[bytes, int], list[bytes]] = {}
        self.unread: set[int] = set()
        self.loose_parents: list[tuple[bytes, int, bytes]] = []

    def add(self, data: bytes) -> Header:
        header, signature, body = split(data, self.metadata, whole=True)
        chain = self.chains.get(header.writer) or self._begin(header, body)
        self._check_place(chain, header, signature)
        need(self.suite.root(body) == header.root, "§3", "the body is not the one under the root")
        check_signature(self.suite, chain.key, header, signature)
        if header.kind == CONFIG:
            self.config.fold(header, body)
        else:
            self.check_authority(chain, header)
        if header.kind == DATA:
            self._open(header, body)
        chain.headers.append(header)
        self.chains[header.writer] = chain
        self.loose_parents += header.parents
        return header

    def _begin(self, header: Header, body: bytes) -> Chain:
        need(header.kind == OPEN, "§3", f"the chain has no record yet, and seq {header.seq} comes")
        v = value(body, OPENING_MAX, "§6", "opening")
        key, signed = fields(v, "§6", "opening", {
            0: ("public key", is_bytes_up_to(OPENING_MAX)), 1: ("certificate", is_bytes_up_to(OPENING_MAX), ABSENT_OK),
        })  # fmt: skip
        self.suite.check_key(key, "§6")
        need(self.suite.writer(key) == header.writer, "§6", "the writer id is not that of the key")
        return Chain(header.writer, key, certificate(signed, self.name, header.writer) if signed is not None else None)

    def _check_place(self, chain: Chain, header: Header, signature: bytes) -> None:
        """The record is the next of its chain, and points where it says."""
        have = len(chain.headers)
        if header.seq < have:
            need(header.hash != chain.headers[header.seq].hash, "§12", "the record is here already")
            check_signature(self.suite, chain.key, header, signature)
            refuse("§10", "a fork: the writer signed another record for this seq")
        need(header.seq == have, "§3", f"a gap: the chain has {have} records, and seq {header.seq} comes")
        if have:
            need(header.prev == chain.headers[-1].hash, "§3", "prev is not the predecessor's hash")
            header.check_after(chain.headers[-1])
        for seq, digest in header.skips.items():
            need(digest == chain.headers[seq].hash, "§3", f"the skip pointer to seq {seq} is not that record's hash")

    def check_authority(self, chain: Chain, header: Header) -> None:
        """The writer may write this, by all config records known so far (§5) and its certificate (§6)."""
        known = len(self.config.headers)
        need(header.config < known, "§5", f"config {header.config} has not arrived; {known} config records have")
        if header.kind == OPEN:
            need(
                header.parents[0][2] == self.config.headers[header.config].hash,
                "§3",
                "the parent is not that config record",
            )
        self.config.check_writer(chain, header)
        if (granted := chain.certificate) and chain.writer not in self.config.admitted:
            in_time = granted.not_before <= header.time < granted.not_after
            need(in_time, "§6", "the clock is outside the certificate's time")
            need(self.simulated or not granted.simulated, "§6", "a simulated certificate is not allowed here")
        if header.kind == DATA:
            newest = self.config.generation_at(header.config)
            need(
                header.generation == newest,
                "§5",
                f"generation {header.generation}; the newest as of config is {newest}",
            )

    def _open(self, header: Header, body: bytes) -> None:
        key = self.keys.generations.get(header.generation)
        if key is None:
            self.unread.add(header.generation)
            return
        commitment = self.suite.hash(
            "bield capsule generation v1", self.name, header.generation.to_bytes(4, "big"), key
        )
        _, expected = self.config.generations[header.generation - 1]
        need(commitment == expected, "§5", f"the key is not the one committed to for generation {header.generation}")
        secret = self.suite.kdf(key, "bield capsule record v1", header.data[:168], length=32)
        key = record_keys(self.suite, secret, header, "§4")
        try:
            plaintext = AESGCM(key).decrypt(NONCE, body, header.data[:200] + header.data[232:])
        except InvalidTag:
            refuse("§4", "the body does not open")
        entries = layout(plaintext, header.count)
        for index, entry in enumerate(entries):
            if entry_key := self.keys.entries.get((header.writer, header.seq, index)):
                need(entry[0] == 1, "§4", "an entry key is given for an entry that is not erasable")
                entries[index] = b"\0" + open_erasable(self.suite, self.name, entry_key, entry)
        self.opened[header.writer, header.seq] = entries

    def refused_since(self) -> list[tuple[Header, Refused]]:
        """Of each chain the first record that counts no more: revocations count backwards (§5)."""
        found = []
        for chain in self.chains.values():
            for header in chain.headers if chain.writer != self.metadata.owner else []:
                try:
                    self.config.check_writer(chain, header)
                except Refused as reason:
                    found.append((header, reason))
                    break
        return found

    def not_checked(self) -> list[str]:
        """What the bytes alone do not tell, and what nobody could find in them."""
        notes = []
        if any(chain.certificate for chain in self.chains.values()):
            notes.append("whether a certificate's time was the replica's, too (§6); the code it names (spec 02)")
        if self.unread:
            notes.append(f"bodies of generations {sorted(self.unread)}: no key")
        heads = {w: c.headers for w, c in self.chains.items()}
        missing = [p for p in self.loose_parents if len(heads.get(p[0], [])) <= p[1]]
        if missing:
            notes.append(f"{len(missing)} parents name records that are not here")
        return notes
