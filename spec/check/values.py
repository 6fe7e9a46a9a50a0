"""Suites (spec 06 §1), CBOR fields and statements (spec 01 §3, §4).

In: bytes.  Out: values whose encoding, types and sizes are checked, or `Refused` with the clause.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import blake3_tree
import cbor


class Refused(Exception):
    """A rule is broken: the clause and the rule; `at` says where, once somebody who knows has added it."""

    def __init__(self, clause: str, rule: str) -> None:
        super().__init__(clause, rule)
        self.clause, self.rule, self.at = clause, rule, ""

    def __str__(self) -> str:
        return f"{self.at + ': ' if self.at else ''}{self.rule} (spec 06 {self.clause})"


@contextmanager
def at(place: str) -> Iterator[None]:
    """Says where, when a rule is broken inside."""
    try:
        yield
    except Refused as reason:
        reason.at = reason.at or place
        raise


def refuse(clause: str, rule: str) -> NoReturn:
    raise Refused(clause, rule)


def need(condition: object, clause: str, rule: str) -> None:
    if not condition:
        refuse(clause, rule)


# ── Spec 06 §1: suites ───────────────────────────────────────────────────────────────────────────────────────────


def lp(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


@dataclass(frozen=True)
class Suite:
    number: int
    key_bytes: int
    signature_bytes: int

    def hash(self, domain: str, *parts: bytes) -> bytes:
        if self.number == 2:
            return hashlib.sha256(lp(domain.encode(), *parts)).digest()
        return blake3.blake3(lp(*parts), derive_key_context=domain).digest()

    def kdf(self, key: bytes, label: str, *parts: bytes, length: int) -> bytes:
        info = lp(label.encode(), *parts)
        if self.number == 2:
            return HKDF(SHA256(), length, salt=b"bield capsule kdf v1", info=info).derive(key)
        return blake3.blake3(info, key=key).digest(length=length)

    @property
    def piece(self) -> int:
        return 4096 if self.number == 2 else blake3_tree.CHUNK

    def root(self, body: bytes) -> bytes:
        if self.number == 2:
            pieces = (body[at : at + 4096] for at in range(0, len(body), 4096))
            return self.hash("bield capsule body v1", b"".join(hashlib.sha256(piece).digest() for piece in pieces))
        return blake3.blake3(body).digest()

    def writer(self, key: bytes) -> bytes:
        return self.hash("bield capsule writer v1", bytes([self.number]), key)

    def public(self, seed: bytes) -> bytes:
        """The public key of a private one."""
        if self.number == 1:
            return ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        if self.number == 2:
            point = ec.derive_private_key(int.from_bytes(seed, "big"), ec.SECP256R1()).public_key()
            return point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return mldsa.MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()

    def check_key(self, key: Any, clause: str) -> None:
        need(type(key) is bytes and len(key) == self.key_bytes, clause, f"a public key has {self.key_bytes} bytes")
        if self.number == 2:
            try:
                need(key[0] == 4, clause, "a P-256 key is uncompressed")
                ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
            except ValueError:
                refuse(clause, "the public key is not a point of P-256")

    def verify(self, key: bytes, signature: bytes, message: bytes) -> bool:
        return _verify(self.number, key, signature, message)


SUITES = {1: Suite(1, 32, 64), 2: Suite(2, 65, 64), 3: Suite(3, 1312, 2420)}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@functools.lru_cache(maxsize=4096)  # a file and its thousand mutations repeat most signatures
def _verify(suite: int, key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        if suite == 1:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        elif suite == 2:
            r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
            if not (0 < r < P256_ORDER and 0 < s <= (P256_ORDER - 1) // 2):
                return False
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
            point.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        else:
            mldsa.MLDSA44PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# ── Spec 01 §3, §4: values and statements ────────────────────────────────────────────────────────────────────────


Check = Callable[[Any], bool]


def is_bytes(exactly: int) -> Check:
    return lambda v: type(v) is bytes and len(v) == exactly


def is_bytes_up_to(most: int) -> Check:
    return lambda v: type(v) is bytes and len(v) <= most


def is_text_up_to(most: int) -> Check:
    return lambda v: type(v) is str and len(v.encode()) <= most


def is_number(least: int = 0, most: int = 2**64 - 1) -> Check:
    return lambda v: type(v) is int and least <= v <= most


def is_list_of(check: Check, most: int = 1 << 30) -> Check:
    return lambda v: type(v) is list and len(v) <= most and all(map(check, v))


def is_array(*checks: Check) -> Check:
    return lambda v: type(v) is list and len(v) == len(checks) and all(c(item) for c, item in zip(checks, v))


def is_bool(v: Any) -> bool:
    return type(v) is bool


is_digest, is_time = is_bytes(32), is_number()
ABSENT_OK = True


def value(data: bytes, most: int, clause: str, what: str) -> Any:
    need(len(data) <= most, clause, f"{what}: {len(data)} bytes, at most {most}")
    try:
        return cbor.decode(data)
    except cbor.Malformed as reason:
        refuse(clause, f"{what}: {reason} (spec 01 §3)")


def fields(v: Any, clause: str, what: str, table: dict[int, tuple[str, Check] | tuple[str, Check, bool]]) -> list[Any]:
    """The fields of a map in the order of its table; None where an optional one is absent."""
    need(type(v) is dict and set(v) <= set(table), clause, f"{what}: not a map with the known keys")
    for key, (name, check, *optional) in table.items():
        if key in v:
            need(check(v[key]), clause, f"{what}: {name} has another type or size")
        else:
            need(optional, clause, f"{what}: {name} is missing")
    return [v.get(key) for key in table]


def statement(data: bytes, domain: str, most: int, clause: str, principal: bytes | None = None) -> tuple[bytes, Any]:
    """Who says it, and what: the payload's CBOR, yet to be checked."""
    what = f"statement {domain!r}"
    cose = value(data, most + 256, clause, what)  # 256 bytes are room for the structure around a payload
    need(
        isinstance(cose, cbor.Tag) and cose.number == 18 and type(cose.value) is list, clause, f"{what}: not COSE_Sign1"
    )
    need(len(cose.value) == 4 and cose.value[1] == {}, clause, f"{what}: not COSE_Sign1")
    protected, _, payload, signature = cose.value
    need(all(type(v) is bytes for v in (protected, payload, signature)), clause, f"{what}: not COSE_Sign1")
    by = protected[-32:]
    need(len(by) == 32 and protected == cbor.encode({1: -8, 4: by}), clause, f"{what}: protected header")
    need(len(payload) <= most, clause, f"{what}: payload of {len(payload)} bytes, at most {most}")
    need(principal in (None, by), clause, f"{what}: signed by another principal")
    covered = cbor.encode(["Signature1", protected, domain.encode(), payload])
    need(len(signature) == 64 and _verify(1, by, signature, covered), clause, f"{what}: signature")
    return by, value(payload, most, clause, what)
