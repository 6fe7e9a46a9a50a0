"""Capsules built here by the text of spec 06, accepted; and the same with one rule broken, refused for that rule.

The builder knows nothing of the verifier's state: it signs whatever it is told to, so that every rule is reached
behind valid signatures and hashes. Run: `python -m unittest` in this folder, or `./run`.
"""

import base64
import hashlib
import os
import unittest
from collections.abc import Callable
from typing import Any

import blake3
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import blake3_tree
import cbor
import proofs
import segments
from capsule import verify_arrived, verify_export
from chains import Keys
from proofs import check_fresh, pieces_of, verify_fork, verify_proof
from values import P256_ORDER, SUITES, Refused, Suite

T0 = 1_800_000_000_000
CONFIG, OPEN, DATA, JOIN, CLOSE = 1, 2, 3, 4, 5


class Key:
    """A writer's key in one of the suites."""

    def __init__(self, suite: Suite, seed: bytes) -> None:
        self.suite = suite
        if suite.number == 1:
            self.private: Any = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
            self.public = self.private.public_key().public_bytes_raw()
        elif suite.number == 2:
            self.private = ec.derive_private_key(int.from_bytes(seed, "big"), ec.SECP256R1())
            self.public = self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        else:
            self.private = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
            self.public = self.private.public_key().public_bytes_raw()
        self.id = suite.hash("bield capsule writer v1", bytes([suite.number]), self.public)

    def sign(self, message: bytes, high: bool = False) -> bytes:
        if self.suite.number != 2:
            return self.private.sign(message)
        r, s = utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(SHA256())))
        if (s > P256_ORDER // 2) != high:
            s = P256_ORDER - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Principal:
    def __init__(self, seed: int) -> None:
        self.key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.id = self.key.public_key().public_bytes_raw()

    def state(self, domain: str, payload: dict[int, Any]) -> bytes:
        protected, inner = cbor.encode({1: -8, 4: self.id}), cbor.encode(payload)
        signature = self.key.sign(cbor.encode(["Signature1", protected, domain.encode(), inner]))
        return cbor.encode(cbor.Tag(18, [protected, {}, inner, signature]))


class Record:
    """The fields of a record; `bytes` signs whatever they say."""

    def __init__(self, key: Key, fields: dict[str, Any], body: bytes) -> None:
        self.key, self.fields, self.body = key, fields, body
        self.high = False

    def header(self) -> bytes:
        f = self.fields
        n = lambda name, size: f[name].to_bytes(size, "big")  # noqa: E731
        parents = b"".join(writer + seq.to_bytes(8, "big") + digest for writer, seq, digest in f["parents"])
        return b"".join([
            b"bldr", n("version", 1), n("suite", 1), n("kind", 1), n("k", 1), f["capsule"], f["writer"], n("seq", 8),
            n("epoch", 8), n("clock", 8), n("config", 8), n("generation", 4), n("count", 4), n("length", 4),
            len(f["parents"]).to_bytes(2, "big"), n("zero", 2), f["prev"], f["salt"], f["commitment"], f["root"],
            parents, *f["skips"],
        ])  # fmt: skip

    def hash(self) -> bytes:
        return self.key.suite.hash("bield capsule header v1", self.header())

    def head(self) -> bytes:
        return self.header() + self.key.sign(b"bield capsule record v1\0" + self.hash(), self.high)

    def bytes(self) -> bytes:
        return self.head() + self.body


class Chain:
    def __init__(self, capsule: "Built", key: Key) -> None:
        self.capsule, self.key, self.records = capsule, key, []

    def add(self, kind: int, body: bytes = b"", parents: Any = (), count: int = 0, **overrides: Any) -> Record:
        seq, capsule = len(self.records), self.capsule
        k = (seq & -seq).bit_length() - 1 if seq else 0
        f = {
            "version": 1, "suite": capsule.suite.number, "kind": kind, "k": k, "capsule": capsule.name,
            "writer": self.key.id, "seq": seq, "epoch": 0, "clock": (T0 << 16) + 10 * seq, "generation": 0,
            "config": len(capsule.owner.records) - (kind != CONFIG), "count": count, "length": len(body),
            "parents": list(parents), "zero": 0, "prev": self.records[-1].hash() if seq else bytes(32),
            "salt": bytes(16), "commitment": bytes(32), "root": capsule.suite.root(body),
            "skips": [self.records[seq - 2**j].hash() for j in range(1, k + 1)],
        }  # fmt: skip
        record = Record(self.key, f | overrides, body)
        self.records.append(record)
        capsule.order.append(record)
        return record

    def open(self, certificate: bytes | None = None, **overrides: Any) -> Record:
        config = self.capsule.owner.records[-1]
        opening = {0: self.key.public} | ({1: certificate} if certificate is not None else {})
        parents = [(config.key.id, config.fields["seq"], config.hash())]
        return self.add(OPEN, cbor.encode(opening), **({"parents": parents} | overrides))

    def data(self, entries: list[bytes], ends: list[int] | None = None, **overrides: Any) -> Record:
        """Sealed by the text of §4, under the newest generation unless told otherwise."""
        capsule, suite = self.capsule, self.capsule.suite
        generation = overrides.pop("generation", len(capsule.generations))
        if ends is None:
            ends = [sum(map(len, entries[: i + 1])) for i in range(len(entries))]
        plaintext = b"".join(entries) + b"".join(end.to_bytes(4, "big") for end in ends)
        record = self.add(DATA, **({"count": len(ends), "generation": generation, "salt": os.urandom(16)} | overrides))
        record.fields["length"] = overrides.get("length", len(plaintext) + 16)
        seed = capsule.generations.get(generation, bytes(32))
        record.secret = suite.kdf(seed, "bield capsule record v1", record.header()[:168], length=32)
        both = suite.kdf(record.secret, "bield capsule open v1", length=64)
        record.fields["commitment"] = overrides.get("commitment", both[32:])
        header = record.header()
        record.body = AESGCM(both[:32]).encrypt(bytes(12), plaintext, header[:200] + header[232:])
        record.fields["root"] = overrides.get("root", suite.root(record.body))
        record.ends = ends
        return record


class Built:
    """A capsule with an owner, two generations' keys, and writers as tests need them."""

    def __init__(self, number: int, label: str | None = "a test") -> None:
        self.suite = SUITES[number]
        self.owner_key = Key(self.suite, b"\x01" * 32)
        fields = {0: 1, 1: number, 2: self.owner_key.public, 3: T0, 4: bytes(range(16))}
        self.metadata = cbor.encode(fields | ({5: label} if label is not None else {}))
        self.name = self.suite.hash("bield capsule name v1", self.metadata)
        self.order: list[Record] = []
        self.generations: dict[int, bytes] = {}
        self.certifier, self.replicas = Principal(10), [Principal(20), Principal(21), Principal(22)]
        self.owner = Chain(self, self.owner_key)
        self.writers = {n: Key(self.suite, bytes([n]) * 32) for n in (2, 3, 4)}

    def configure(self, *changes: Any, **overrides: Any) -> Record:
        body = cbor.encode([self.named(change) for change in changes])
        return self.owner.add(CONFIG, body, **({"count": len(changes)} | overrides))

    def named(self, change: Any) -> Any:
        """A revocation names a record: a number is replaced by the head there, if the writer has one."""
        if type(change) is not list or change[:1] != [3] or type(change[1][1]) is not int:
            return change
        writer, seq = change[1]
        there = [r.hash() for r in self.order if (r.key.id, r.fields["seq"]) == (writer, seq)]
        return [3, [writer, [seq, there[-1] if there else bytes(32)]]]

    def generation(self, number: int) -> list[Any]:
        key = self.generations[number] = bytes([100 + number]) * 32
        return [4, [number, self.suite.hash("bield capsule generation v1", self.name, number.to_bytes(4, "big"), key)]]

    def certificate(self, writer: bytes, by: Principal | None = None, **overrides: Any) -> bytes:
        f = {"capsule": self.name, "writer": writer, "code": cbor.encode([1, b"\x07" * 32]), "simulated": False,
             "from": T0, "until": T0 + 3_600_000} | overrides  # fmt: skip
        payload = {key: v for key, v in enumerate(f.values()) if v is not None}
        return (by or self.certifier).state("bield capsule writer certificate v1", payload)

    def begin(self) -> None:
        admit = [2, [self.writers[2].public]]
        replicas = [[6, [replica.id, f"https://replica-{i}.example"]] for i, replica in enumerate(self.replicas)]
        self.configure([0, [self.certifier.id]], admit, self.generation(1), [8, [2, 0]], *replicas)

    def kept_replicas(self) -> list[Principal]:
        gone = [change[1][0] for r in self.owner.records for change in cbor.decode(r.body) if change[0] == 7]
        return sorted((r for r in self.replicas if r.id not in gone), key=lambda r: r.id)

    def export(self) -> bytes:
        frames = [self.metadata, *(record.bytes() for record in self.order)]
        return b"bldc\x01" + b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)

    def keys(self) -> Keys:
        return Keys(dict(self.generations))

    def verify(self, **options: Any) -> Any:
        return verify_arrived(self.export(), self.name, **({"keys": self.keys()} | options))


def story(number: int) -> tuple[Built, Chain, Chain]:
    """An admitted and a certified writer, a change of generation, a join, a close: 20 records."""
    capsule = Built(number)
    capsule.begin()
    a, b = Chain(capsule, capsule.writers[2]), Chain(capsule, capsule.writers[3])
    a.open()
    b.open(capsule.certificate(b.key.id))
    for i in range(6):
        a.data([b"\0entry %d" % i, b"\0", erasable(capsule, b"\x33" * 32, b"gone one day")])
    capsule.configure(capsule.generation(2), [11, [1 << 30]], witness("witness.example", b"\x04" + bytes(32)))
    b.add(JOIN, parents=[(a.key.id, 6, a.records[6].hash())], epoch=1)
    b.data([b"\0" + bytes(20_000), b"\0" + b"small", b"\0" + bytes(9000)], epoch=1)
    for i in range(4):
        a.data([b"\0later %d" % i])
    b.data([b"\0x"] * 300, epoch=2, parents=[(a.key.id, 8, a.records[8].hash())])
    capsule.configure([3, [a.key.id, 12]], [5, [1]], [7, [capsule.replicas[2].id]], [10, ["witness.example"]])
    b.add(CLOSE, epoch=2)
    return capsule, a, b


def erasable(capsule: Built, key: bytes, payload: bytes) -> bytes:
    both = capsule.suite.kdf(key, "bield capsule entry v1", capsule.name, length=64)
    return b"\x01" + both[32:] + AESGCM(both[:32]).encrypt(bytes(12), payload, capsule.name)


KEY = b"\x04" + bytes(32)  # of a cosigner


def witness(name: str, key: bytes) -> list[Any]:
    digest = hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    return [9, [f"{name}+{digest}+{base64.b64encode(key).decode()}"]]


def path(chain: Chain, head: int, target: int) -> list[bytes]:
    found = []
    while head > target:
        k = chain.records[head].fields["k"]
        head -= next((2**j for j in range(k, 0, -1) if head - 2**j >= target), 1)
        found.append(chain.records[head].header())
    return found


def slice_of(suite: Suite, body: bytes, wanted: set[int]) -> bytes:
    size = suite.piece
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    if suite.number == 2:
        return b"".join(hashlib.sha256(p).digest() for p in pieces) + b"".join(pieces[i] for i in sorted(wanted))

    def value(first: int, count: int) -> bytes:
        if count == 1:
            return blake3_tree.chunk_value(pieces[first], first)
        left = 1 << (count - 1).bit_length() - 1
        return blake3_tree.parent_value(value(first, left) + value(first + left, count - left))

    def walk(first: int, count: int) -> bytes:
        if not any(first <= i < first + count for i in wanted):
            return b""
        if count == 1:
            return pieces[first]
        left = 1 << (count - 1).bit_length() - 1
        sides = value(first, left) + value(first + left, count - left)
        return sides + walk(first, left) + walk(first + left, count - left)

    return walk(0, len(pieces))


def entry_claim(suite: Suite, record: Record, index: int) -> dict[int, Any]:
    total = record.ends[-1]
    start, end = record.ends[index - 1] if index else 0, record.ends[index]
    ends = range(total + 4 * max(index - 1, 0), total + 4 * (index + 1))
    wanted = pieces_of(range(start, end), suite.piece) | pieces_of(ends, suite.piece)
    return {0: index, 1: record.secret, 2: slice_of(suite, record.body, wanted), 3: start, 4: end}


def acknowledge(replica: Principal, record: Record, **overrides: Any) -> bytes:
    f = {"capsule": record.fields["capsule"], "writer": record.key.id, "seq": record.fields["seq"],
         "hash": record.hash(), "kept": 2, "at": T0} | overrides  # fmt: skip
    return replica.state("bield capsule acknowledgement v1", dict(enumerate(f.values())))


def proof_of(capsule: Built, chain: Chain, head: int, target: int, index: int | None = None) -> dict[int, Any]:
    proof = {
        0: capsule.metadata, 1: [record.bytes() for record in capsule.owner.records],
        2: chain.records[0].bytes(), 3: chain.records[head].head(), 4: path(chain, head, target),
        6: [acknowledge(replica, chain.records[head]) for replica in capsule.kept_replicas()],
    }  # fmt: skip
    if chain.key is capsule.owner_key:
        del proof[2]
    if index is not None:
        proof[5] = entry_claim(capsule.suite, chain.records[target], index)
    return proof


def refused_bits(data: bytes, check: Callable[[bytes], Any], stride: int = 1) -> list[int]:
    """The offsets at which one flipped bit goes through."""
    accepted = []
    for offset in range(0, len(data), stride):
        changed = bytearray(data)
        changed[offset] ^= 1 << (offset // stride % 8)
        try:
            check(bytes(changed))
            accepted.append(offset)
        except Refused:
            pass
    return accepted


class TestCapsule(unittest.TestCase):
    def refuses(self, clause: str, rule: str, action: Callable[[], Any]) -> None:
        with self.assertRaises(Refused) as caught:
            action()
        self.assertIn(rule, str(caught.exception))
        self.assertEqual(clause, caught.exception.clause)

    def test_a_whole_capsule_verifies_and_opens_in_every_suite(self) -> None:
        for number in SUITES:
            capsule, a, b = story(number)
            keys = Keys(dict(capsule.generations), {(a.key.id, 1, 2): b"\x33" * 32})
            state = verify_arrived(capsule.export(), capsule.name, keys=keys)
            self.assertEqual(state.opened[a.key.id, 1], [b"\0entry 0", b"\0", b"\0gone one day"])
            self.assertEqual(len(state.opened[b.key.id, 3]), 300)
            self.assertEqual([len(c.headers) for c in state.chains.values()], [3, 11, 5])
            self.assertEqual(state.config.quorum, (2, 0))
            self.assertEqual(len(verify_arrived(capsule.export()).unread), 2)

    def test_every_flipped_bit_of_an_export_is_refused(self) -> None:
        for number, stride in ((1, 23), (2, 43), (3, 211)):
            capsule, _, _ = story(number)
            self.assertEqual([], refused_bits(capsule.export(), lambda d: verify_arrived(d, capsule.name), stride))  # noqa: B023

    def test_a_cut_export_is_refused_unless_between_records(self) -> None:
        data = story(1)[0].export()
        whole, offset = set(), 5
        while offset < len(data):
            offset += 4 + int.from_bytes(data[offset : offset + 4], "big")
            whole.add(offset)
        for end in range(0, len(data), 7):
            if end not in whole:
                with self.assertRaises(Refused):
                    verify_arrived(data[:end])

    def test_each_rule_of_a_record_is_refused_behind_a_valid_signature(self) -> None:
        one = [(b"\x05" * 32, 0, b"\x06" * 32)]
        two = [(b"\x07" * 32, 0, b"\x06" * 32), *one]
        cases: list[tuple[str, str, dict[str, Any]]] = [
            ("§3", "version", {"version": 2}),
            ("§3", "suite", {"suite": 9}),
            ("§3", "skip pointers", {"k": 0, "skips": []}),
            ("§3", "skip pointer to seq 2", {"skips": [b"\x01" * 32, b"\x01" * 32]}),
            ("§3", "another capsule", {"capsule": b"\x01" * 32}),
            ("§3", "a gap", {"seq": 12}),
            ("§3", "epoch", {"epoch": 0}),
            ("§3", "clock", {"clock": T0 << 16}),
            ("§3", "config went back", {"config": 0}),
            ("§5", "not arrived", {"config": 9}),
            ("§5", "generation 1", {"generation": 1}),
            ("§3", "generation and entries", {"generation": 0}),
            ("§3", "too short", {"count": 65_000}),
            ("§3", "at most 65535", {"count": 65_536}),
            ("§3", "at most 1048576", {"length": 1_048_577}),
            ("§3", "length", {"length": 40}),
            ("§3", "reserved", {"zero": 1}),
            ("§3", "prev", {"prev": b"\x01" * 32}),
            ("§4", "commitment", {"commitment": b"\x01" * 32}),
            ("§3", "root", {"root": b"\x01" * 32}),
            ("§3", "ascending", {"parents": two}),
            ("§3", "ascending", {"parents": one + one}),
            ("§3", "own writer's", {"parents": [(Key(SUITES[1], b"\x02" * 32).id, 0, bytes(32))]}),
            ("§4", "partition", {"ends": [3, 1]}),
            ("§4", "partition", {"ends": [3, 3]}),
            ("§4", "partition", {"ends": [3, 9]}),
            ("§4", "form", {"entries": [b"\0ab", b"\x02b"]}),
            ("§4", "form", {"entries": [b"\0abcde", b""]}),
            ("§4", "erasable", {"entries": [b"\0ab", b"\x01" + bytes(47)]}),
        ]
        for clause, rule, broken in cases:
            capsule, chain = Built(1), None
            capsule.begin()
            chain = Chain(capsule, capsule.writers[2])
            chain.open(epoch=1)
            capsule.configure(capsule.generation(2))
            for _ in range(3):
                chain.data([b"\0ab", b"\0b"], epoch=1)
            chain.data(**({"entries": [b"\0ab", b"\0b"], "epoch": 1} | broken))
            with self.subTest(broken=broken):
                self.refuses(clause, rule, capsule.verify)

    def test_each_kind_keeps_its_place_and_shape(self) -> None:
        parent = [(b"\x05" * 32, 0, b"\x06" * 32)]
        empty = cbor.encode({})
        cases: list[tuple[str, str, Callable[[Built, Chain], Any]]] = [
            ("§3", "no record yet", lambda c, w: Chain(c, c.writers[3]).data([b"\0"], seq=1)),
            ("§3", "begins with", lambda c, w: Chain(c, c.writers[3]).add(JOIN, parents=parent)),
            ("§3", "a predecessor", lambda c, w: Chain(c, c.writers[3]).open(prev=b"\x01" * 32)),
            ("§3", "kind 6", lambda c, w: w.add(6)),
            ("§3", "kind 0", lambda c, w: w.add(0)),
            ("§3", "has no other", lambda c, w: w.open()),
            ("§3", "has parents", lambda c, w: w.add(JOIN)),
            ("§3", "is empty", lambda c, w: w.add(JOIN, b"x", parent)),
            ("§3", "counts no", lambda c, w: w.add(JOIN, parents=parent, count=1)),
            ("§3", "generation 0", lambda c, w: w.add(JOIN, parents=parent, generation=1)),
            ("§3", "salt", lambda c, w: w.add(JOIN, parents=parent, salt=b"\x01" * 16)),
            ("§3", "salt", lambda c, w: w.add(CLOSE, commitment=b"\x01" * 32)),
            ("§3", "has none", lambda c, w: w.add(CLOSE, parents=parent)),
            ("§3", "after the chain's close", lambda c, w: (w.add(CLOSE), w.data([b"\0"]))),
            ("§3", "config records, and no others", lambda c, w: c.owner.add(CLOSE, config=1)),
            ("§3", "config records, and no others", lambda c, w: w.add(CONFIG, b"\x80", count=1)),
            ("§3", "itself", lambda c, w: c.configure([11, [1]], config=0)),
            ("§3", "changes and no parents", lambda c, w: c.configure([11, [1]], parents=parent)),
            ("§3", "changes and no parents", lambda c, w: c.configure(count=0)),
            ("§3", "number of changes", lambda c, w: c.configure([11, [1]], count=2)),
            ("§5", "after the value", lambda c, w: c.owner.add(CONFIG, b"\x81\x82\x0b\x81\x01\x00", count=1)),
            ("§5", "shortest", lambda c, w: c.owner.add(CONFIG, b"\x81\x82\x0b\x81\x18\x01", count=1)),
            ("§5", "1 to 256", lambda c, w: c.configure(*[[11, [1]]] * 257)),
            ("§5", "unknown", lambda c, w: c.configure([13, [1]])),
            ("§5", "quota: fields", lambda c, w: c.configure([11, [1, 2]])),
            ("§5", "quorum: fields", lambda c, w: c.configure([8, [0, 0]])),
            ("§5", "out of order", lambda c, w: c.configure([4, [3, bytes(32)]])),
            ("§5", "is unknown", lambda c, w: c.configure([5, [2]])),
            ("§5", "unreplica", lambda c, w: c.configure([7, [b"\x01" * 32]])),
            ("§5", "uncertify", lambda c, w: c.configure([1, [b"\x01" * 32, []]])),
            ("§5", "unwitness", lambda c, w: c.configure([10, ["nobody"]])),
            ("§5", "form", lambda c, w: c.configure([9, ["name+00000000+AAA"]])),
            ("§5", "cosigner", lambda c, w: c.configure(witness("a", b"\x01" + bytes(32)))),
            ("§5", "hash", lambda c, w: c.configure([9, ["b" + witness("a", KEY)[1][0][1:]]])),
            ("§5", "white space", lambda c, w: c.configure(witness("na me", KEY))),
            ("§5", "its name is one", lambda c, w: c.configure(witness("a", KEY), witness("a", KEY[:-1] + b"a"))),
            ("§5", "certify: the principal", lambda c, w: c.configure([0, [c.certifier.id]])),
            (
                "§5",
                "certify: the principal",
                lambda c, w: c.configure([1, [c.certifier.id, []]], [0, [c.certifier.id]]),
            ),
            ("§5", "keep", lambda c, w: c.configure([1, [c.certifier.id, [bytes(32), bytes(32)]]])),
            ("§5", "admit", lambda c, w: c.configure([2, [c.writers[2].public]])),
            ("§5", "admit", lambda c, w: c.configure([2, [c.owner_key.public]])),
            ("§5", "admit", lambda c, w: c.configure([3, [c.writers[3].id, 7]], [2, [c.writers[3].public]])),
            ("§5", "revoke: the owner", lambda c, w: c.configure([3, [c.owner_key.id, 7]])),
            ("§5", "not lower", lambda c, w: c.configure([3, [bytes(32), 7]], [3, [bytes(32), 7]])),
            ("§5", "not lower", lambda c, w: c.configure([3, [bytes(32), None]], [3, [bytes(32), None]])),
            ("§5", "is erased", lambda c, w: c.configure([5, [1]], [5, [1]])),
            ("§5", "it is one", lambda c, w: c.configure([6, [c.replicas[0].id, ""]])),
            ("§5", "too many replicas", lambda c, w: c.configure(*[[6, [bytes([n]) * 32, ""]] for n in range(62)])),
            ("§5", "too many cert", lambda c, w: c.configure(*[[0, [bytes([n]) * 32]] for n in range(64)])),
            ("§5", "codes: the principal", lambda c, w: c.configure([12, [bytes(32), [b"x"]]])),
            ("§5", "32 bytes", lambda c, w: c.configure([2, [b"\x01" * 31]])),
            ("§5", "ascending", lambda c, w: c.configure([12, [c.certifier.id, [b"x", b"x"]]])),
            ("§6", "is missing", lambda c, w: Chain(c, c.writers[3]).add(OPEN, empty, w.records[0].fields["parents"])),
        ]
        for clause, rule, break_it in cases:
            capsule = Built(1)
            capsule.begin()
            writer = Chain(capsule, capsule.writers[2])
            writer.open()
            break_it(capsule, writer)
            with self.subTest(clause=clause, rule=rule):
                self.refuses(clause, rule, capsule.verify)

    def test_openings_say_who_and_by_whose_leave(self) -> None:
        stranger, other = Principal(11), b"\x09" * 32
        cases: list[tuple[str, str, dict[str, Any]]] = [
            ("§5", "not admitted", {"certificate": None}),
            ("§5", "not admitted", {"by": stranger}),
            ("§6", "another capsule or writer", {"capsule": other}),
            ("§6", "another capsule or writer", {"writer": other}),
            ("§6", "another type or size", {"code": bytes(129)}),
            ("§6", "simulated", {"simulated": True}),
            ("§6", "outside", {"from": T0 + 1}),
            ("§6", "time is empty", {"until": T0}),
            ("§3", "not that config record", {"parents": [(Built(1).owner_key.id, 0, other)]}),
            ("§3", "its config", {"parents": [(Built(1).owner_key.id, 1, other)]}),
            ("§6", "not that of the key", {"writer_id": other}),
        ]
        for clause, rule, broken in cases:
            capsule = Built(1)
            capsule.begin()
            chain = Chain(capsule, capsule.writers[3])
            overrides = {"parents": broken.pop("parents")} if "parents" in broken else {}
            if "writer_id" in broken:
                overrides["writer"] = broken.pop("writer_id")
            given = {"writer": chain.key.id} | broken
            chain.open(None if "certificate" in broken else capsule.certificate(**given), **overrides)
            with self.subTest(broken=broken):
                self.refuses(clause, rule, capsule.verify)
        capsule = Built(1)
        capsule.begin()
        chain = Chain(capsule, capsule.writers[3])
        chain.open(capsule.certificate(chain.key.id, simulated=True))
        capsule.verify(simulated=True)

    def test_revocation_counts_backwards(self) -> None:
        def late(*changes: Any) -> Built:
            capsule = Built(1)
            capsule.begin()
            chain = Chain(capsule, capsule.writers[3])
            chain.open(capsule.certificate(chain.key.id))
            chain.data([b"\0"])
            chain.data([b"\0"])
            capsule.configure(*changes)
            capsule.chain = chain
            return capsule

        def undone(*changes: Any) -> list[tuple[int, str]]:
            return [(header.seq, reason.rule[:25]) for header, reason in late(*changes).verify().refused_since()]

        writer, certifier = Built(1).writers[3].id, Principal(10).id
        code = [cbor.encode([1, bytes([n]) * 32]) for n in (7, 8)]
        self.assertEqual(undone([3, [writer, 1]]), [(2, "the writer is revoked; th")])
        self.assertEqual(undone([3, [writer, 2]], [3, [writer, 0]]), [(1, "the writer is revoked; th")])
        self.assertEqual(undone([3, [writer, None]]), [(0, "the writer is revoked; th")])
        self.assertEqual(undone([1, [certifier, []]]), [(0, "the writer is not admitte")])
        self.assertEqual(undone([12, [certifier, code[1:]]]), [(0, "the writer is not admitte")])
        self.assertEqual(undone([3, [writer, 2]]), [])
        self.assertEqual(undone([1, [certifier, [writer]]]), [])
        self.assertEqual(undone([12, [certifier, code]]), [])

        capsule = late([3, [writer, 2]])
        capsule.chain.data([b"\0"])
        self.refuses("§5", "revoked", capsule.verify)
        capsule = late([3, [writer, 2]])
        capsule.chain.data([b"\0"], config=0)  # as if written before
        self.refuses("§5", "revoked", capsule.verify)
        self.refuses(
            "§5", "revoked", lambda: verify_proof(cbor.encode(proof_of(capsule, capsule.chain, 3, 1)), capsule.name)
        )

    def test_an_export_keeps_its_order(self) -> None:
        capsule, _, _ = story(1)
        capsule.order[0], capsule.order[1] = capsule.order[1], capsule.order[0]
        self.refuses("§5", "config 0 has not arrived", capsule.verify)

    def test_config_records_come_first_in_a_file(self) -> None:
        capsule, _, _ = story(1)
        kinds = [record.bytes()[6] for record in capsule.order]
        self.assertIn(1, kinds[kinds.index(2) :])
        capsule.verify()
        self.refuses("§12", "behind another", lambda: verify_export(capsule.export(), capsule.name))
        end = kinds.index(1, kinds.index(2))
        capsule.order = capsule.order[:end]
        verify_export(capsule.export(), capsule.name)

    def test_two_records_for_one_place_are_a_fork(self) -> None:
        capsule = Built(1)
        capsule.begin()
        chain = Chain(capsule, capsule.writers[2])
        chain.open()
        first = chain.data([b"\0one"])
        chain.records.pop()
        chain.data([b"\0two"])
        self.refuses("§10", "fork", capsule.verify)
        capsule.order[-1] = first
        self.refuses("§12", "already", capsule.verify)

    def test_a_high_s_is_refused(self) -> None:
        capsule, a, _ = story(2)
        a.records[3].high = True
        self.refuses("§3", "signature", capsule.verify)

    def test_a_wrong_generation_key_is_refused(self) -> None:
        capsule, _, _ = story(1)
        self.refuses("§5", "committed", lambda: capsule.verify(keys=Keys({1: bytes(32)})))

    def test_metadata_has_one_form(self) -> None:
        for number in SUITES:
            good = cbor.decode(Built(number).metadata)
            for broken in ({0: 2}, {1: 4}, {1: 0}, {2: b"\x04" * 31}, {3: -1}, {4: bytes(15)}, {5: "x" * 65}, {6: 0}):
                data = cbor.encode(good | broken)
                with self.assertRaises(Refused):
                    verify_arrived(b"bldc\x01" + len(data).to_bytes(4, "big") + data)
        off_curve = cbor.encode(cbor.decode(Built(2).metadata) | {2: b"\x04" + b"\x01" * 64})
        self.refuses("§2", "point", lambda: verify_arrived(b"bldc\x01" + len(off_curve).to_bytes(4, "big") + off_curve))


class TestProofs(unittest.TestCase):
    refuses = TestCapsule.refuses

    def test_proofs_hold_and_every_flipped_bit_is_refused(self) -> None:
        for number, stride in ((1, 3), (2, 5), (3, 53)):
            capsule, a, b = story(number)
            for chain, head, target, index in ((b, 4, 2, 1), (a, 9, 3, 0), (b, 3, 3, 299), (capsule.owner, 2, 1, None)):
                data = cbor.encode(proof_of(capsule, chain, head, target, index))
                proven = verify_proof(data, capsule.name)
                self.assertEqual(proven.target.hash, chain.records[target].hash())
                self.assertEqual(list(proven.acknowledged.values()), [2, 2])
                wide = stride * 11 if len(data) > 8000 else stride * 3
                self.assertEqual([], refused_bits(data, lambda d: verify_proof(d, capsule.name), wide))  # noqa: B023

    def test_an_entry_is_proven_wherever_its_pieces_lie(self) -> None:
        for number in (1, 2):
            capsule = Built(number)
            capsule.begin()
            chain = Chain(capsule, capsule.writers[2])
            chain.open()
            for sizes in ([1], [1024], [1025, 1], [9000, 1, 5000], [3, 1020, 1, 1, 4070], [7] * 700, [30_000, 40_000]):
                chain.data([b"\0" + os.urandom(size - 1) for size in sizes])
            for record in chain.records[1:]:
                for index in {0, len(record.ends) // 2, len(record.ends) - 1}:
                    seq = record.fields["seq"]
                    data = cbor.encode(proof_of(capsule, chain, 7, seq, index))
                    entry = verify_proof(data, capsule.name).entry
                    opened = capsule.verify().opened[chain.key.id, seq][index]
                    self.assertEqual(entry, opened)

    def test_a_claim_beside_the_ends_is_refused(self) -> None:
        capsule, a, _ = story(1)
        good = proof_of(capsule, a, 10, 6, 1)
        for broken in (
            {3: good[5][3] - 1},
            {4: good[5][4] + 1},
            {0: 2},
            {0: 3},
            {1: bytes(32)},
            {2: good[5][2] + b"\0"},
        ):
            self.refuses("§7", "", lambda: verify_proof(cbor.encode(good | {5: good[5] | broken}), capsule.name))  # noqa: B023

    def test_a_path_leads_down_one_chain(self) -> None:
        capsule, a, b = story(1)
        good = proof_of(capsule, a, 9, 3)
        short = len(good[4])
        cases = [
            ("does not point", {4: good[4][1:]}),
            ("does not point", {4: [a.records[2].header()]}),
            ("one chain", {4: [b.records[2].header()]}),
            ("one chain", {4: [a.records[9].header()]}),
            ("at most 128", {4: good[4] * (128 // short + 1)}),
            ("the opening is not", {2: b.records[0].bytes()}),
            ("no record yet", {2: a.records[1].bytes()}),
            ("not a config record", {1: [*good[1], a.records[0].bytes()]}),
            ("not arrived", {1: good[1][:1]}),
        ]
        for rule, broken in cases:
            with self.subTest(rule=rule), self.assertRaises(Refused) as caught:
                verify_proof(cbor.encode(good | broken), capsule.name)
            self.assertIn(rule, str(caught.exception))

    def test_acknowledgements_are_of_the_head(self) -> None:
        capsule, a, _ = story(1)
        good = proof_of(capsule, a, 9, 3)
        for broken in ({"seq": 8}, {"hash": bytes(32)}, {"capsule": bytes(32)}, {"kept": 3}):
            signed = acknowledge(capsule.replicas[0], a.records[9], **broken)
            self.refuses("§8", "", lambda: verify_proof(cbor.encode(good | {6: [signed]}), capsule.name))  # noqa: B023
        stranger = acknowledge(capsule.replicas[2], a.records[9])
        self.refuses(
            "§7", "not signed by a replica", lambda: verify_proof(cbor.encode(good | {6: [stranger]}), capsule.name)
        )
        twice = [good[6][0]] * 2
        self.refuses("§7", "each once", lambda: verify_proof(cbor.encode(good | {6: twice}), capsule.name))
        many = [good[6][0]] * 65
        self.refuses("§7", "acknowledgements has", lambda: verify_proof(cbor.encode(good | {6: many}), capsule.name))

    def test_forks(self) -> None:
        for number in SUITES:
            capsule, a, _ = story(number)
            other = Record(a.key, a.records[4].fields | {"epoch": 5}, b"")
            first, second = sorted((a.records[4], other), key=Record.hash)
            good = {0: capsule.metadata, 1: a.key.public, 2: first.head(), 3: second.head()}
            data = cbor.encode(good)
            verify_fork(data, capsule.name)
            stride = 61 if number == 3 else 2
            self.assertEqual([], refused_bits(data, lambda d: verify_fork(d, capsule.name), stride))  # noqa: B023
            for rule, broken in (
                ("larger one is first", {2: second.head(), 3: first.head()}),
                ("equal", {3: first.head()}),
                ("different seq", {3: a.records[5].head()}),
                ("not of the writer", {1: capsule.writers[3].public}),
            ):
                self.refuses("§10", rule, lambda: verify_fork(cbor.encode(good | broken), capsule.name))  # noqa: B023

    def test_a_state_is_fresh_by_enough_replicas(self) -> None:
        capsule, a, b = story(1)
        nonce = b"n" * 16

        def says(replica: Principal, chain: Chain, seq: int, **overrides: Any) -> bytes:
            config = capsule.owner.records[-1]
            f = {0: capsule.name, 1: nonce, 2: T0, 3: [[chain.key.id, seq, chain.records[seq].hash()]],
                 4: [2, config.hash()], 6: False} | overrides.get("f", {})  # fmt: skip
            return replica.state("bield capsule heads v1", f)

        state = capsule.verify()
        r = capsule.replicas
        check_fresh(state, [says(r[0], a, 10)], nonce)  # two replicas are left, quorum 2: one answer is enough
        self.refuses("§9", "0 replicas", lambda: check_fresh(state, [says(r[2], a, 10)], nonce))
        self.refuses("§9", "nonce", lambda: check_fresh(state, [says(r[0], a, 10)], bytes(16)))
        ahead = says(r[0], a, 10, f={3: [[a.key.id, 11, bytes(32)]]})
        self.refuses("§9", "the state is without", lambda: check_fresh(state, [ahead], nonce))
        low, high = sorted((a, b), key=lambda chain: chain.key.id)
        pages = [says(r[0], low, 3, f={6: True}), says(r[0], high, 4, f={5: low.key.id})]
        check_fresh(state, pages, nonce)
        self.refuses("§9", "0 replicas", lambda: check_fresh(state, pages[:1], nonce))
        check_fresh(state, pages[::-1], nonce)  # pages say themselves where they belong
        self.refuses("§9", "does not follow", lambda: check_fresh(state, [pages[0], pages[0]], nonce))
        self.refuses("§9", "does not follow", lambda: check_fresh(state, pages[1:], nonce))
        twice = says(r[0], a, 10, f={3: [[a.key.id, 1, bytes(32)]] * 2})
        self.refuses("§9", "ascending", lambda: proofs.heads(twice))


class TestSegments(unittest.TestCase):
    def segment(self, payloads: list[bytes], durable: list[int], seal: bool = False) -> bytes:
        header = b"bldS\x01" + b"\x07" * 32 + (3).to_bytes(8, "big") + (40).to_bytes(8, "big") + b"saltsalt"
        header_crc = segments.crc(0, header)
        data, offsets = header + header_crc.to_bytes(4, "big"), []
        if seal:
            payloads, durable = [*payloads, b""], [*durable, segments.SEAL]
        for ordinal, payload in enumerate(payloads):
            offsets.append(len(data))
            if durable[ordinal] == segments.SEAL:
                payload = b"".join(offset.to_bytes(4, "big") for offset in offsets)
            head = b"".join(n.to_bytes(4, "big") for n in (len(payload), ordinal, durable[ordinal]))
            head_crc = segments.crc(header_crc, head)
            frame_crc = segments.crc(head_crc, payload)
            data += head + head_crc.to_bytes(4, "big") + frame_crc.to_bytes(4, "big") + payload
        return data

    def end(self, data: bytes) -> tuple[str, int]:
        segment = segments.read(data)
        return segment.end, len(segment.payloads)

    def test_the_checksum_is_that_of_rfc_3720(self) -> None:
        self.assertEqual(segments.crc(0, b"123456789"), 0xE3069283)
        self.assertEqual(segments.crc(0, bytes(32)), 0x8A9136AA)
        self.assertEqual(segments.crc(segments.crc(0, b"1234"), b"56789"), 0xE3069283)

    def test_each_end_is_told_from_the_others(self) -> None:
        payloads = [b"one", b"two", b"three" * 10]
        plain = self.segment(payloads, [0, 0, 0])
        later = self.segment(payloads, [0, 65, 88])
        sealed = self.segment(payloads, [0, 65, 88], seal=True)
        self.assertEqual(self.end(plain), ("clean", 3))
        self.assertEqual(self.end(plain + bytes(100)), ("preallocated", 3))
        self.assertEqual(self.end(sealed), ("sealed", 3))
        self.assertEqual(self.end(sealed + bytes(100)), ("sealed", 3))
        self.assertEqual(self.end(sealed + bytes(100) + b"x"), ("damaged", 3))
        for cut in range(len(plain) - 69, len(plain)):  # the frame's first three bytes are zero
            self.assertEqual(self.end(plain[:cut]), ("torn" if cut > len(plain) - 67 else "preallocated", 2))
        self.assertEqual(self.end(plain[:65]), ("clean", 0))
        for offset in range(65, 88):  # the first frame, which later frames knew to be synced
            for data, expected in ((plain, "torn"), (later, "damaged"), (sealed, "damaged")):
                changed = bytearray(data)
                changed[offset] ^= 4
                self.assertEqual(self.end(bytes(changed)), (expected, 0), offset)
        for offset in range(65):
            changed = bytearray(sealed)
            changed[offset] ^= 1
            with self.assertRaises(Refused):
                segments.read(bytes(changed))


class TestParts(unittest.TestCase):
    def test_the_tree_is_that_of_the_library(self) -> None:
        for length in (0, 1, 64, 65, 1023, 1024, 1025, 2048, 3000, 5000, 31_744):
            body = os.urandom(length)
            chunks = max(1, -(-length // 1024))
            data = slice_of(SUITES[1], body, set(range(chunks))) if body else b""
            found = blake3_tree.open_slice(blake3.blake3(body).digest(), length, set(range(chunks)), data)
            self.assertEqual(b"".join(found[i] for i in range(chunks)), body)

    def test_cbor_has_one_form_for_each_value(self) -> None:
        refused = "1800 1817 190017 1a0000ffff 1b00000000ffffffff 5801aa 9f01ff 5f41aaff a2010000 a20100 a201000100 \
            a202000100 a16161ff a12000 f90000 f7 f820 fb 61ff 0000 81 42aa 820181 1c \
            81818181818181818181818181818181818100"
        for text in refused.split():
            with self.subTest(text=text), self.assertRaises(cbor.Malformed):
                cbor.decode(bytes.fromhex(text))
        for value in (
            0,
            23,
            24,
            255,
            256,
            65_536,
            2**32,
            2**64 - 1,
            -8,
            b"",
            "ü",
            [],
            {0: [True, None]},
            cbor.Tag(18, []),
        ):
            self.assertEqual(cbor.decode(cbor.encode(value)), value)


if __name__ == "__main__":
    unittest.main()
