"""What convinces without the whole capsule (spec 06 §7 to §10): proofs, acknowledgements, heads, forks.

In: the bytes of one of them.  Out: what it proves.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import blake3_tree
from chains import Capsule, Chain, check_form, record_keys
from records import (
    ACKNOWLEDGEMENT_MAX,
    CONFIG,
    DATA,
    ENTRIES_MAX,
    FORK_MAX,
    HEADS_MAX,
    METADATA_MAX,
    NONCE,
    OPEN,
    PATH_MAX,
    PROOF_MAX,
    Header,
    Metadata,
    check_signature,
    split,
)
from values import (
    ABSENT_OK,
    Refused,
    Suite,
    at,
    fields,
    is_array,
    is_bool,
    is_bytes,
    is_bytes_up_to,
    is_digest,
    is_list_of,
    is_number,
    is_time,
    need,
    refuse,
    statement,
    value,
)

# ── §7: proofs ───────────────────────────────────────────────────────────────────────────────────────────────────


ACKNOWLEDGEMENTS_MAX = 64


def check_path(head: Header, path: list[Header]) -> None:
    need(len(path) <= PATH_MAX, "§7", f"a path of {len(path)} headers, at most {PATH_MAX}")
    for newer, older in zip([head, *path], path):
        need(older.writer == newer.writer and older.seq < newer.seq, "§7", "a path leads down one chain")
        pointer = newer.prev if older.seq == newer.seq - 1 else newer.skips.get(older.seq)
        need(pointer == older.hash, "§7", f"the header at seq {newer.seq} does not point to the one at seq {older.seq}")
        newer.check_after(older)  # so only the head may be a close


def pieces_of(span: range, piece: int) -> set[int]:
    return set(range(span.start // piece, (span.stop - 1) // piece + 1)) if span else set()


def open_slice(suite: Suite, root: bytes, length: int, wanted: set[int], data: bytes) -> dict[int, bytes]:
    if suite.number != 2:
        try:
            return blake3_tree.open_slice(root, length, wanted, data)
        except blake3_tree.WrongSlice as reason:
            refuse("§7", f"slice: {reason}")
    hashes_end = 32 * -(-length // 4096)
    hashes, found, at = data[:hashes_end], {}, hashes_end
    need(suite.hash("bield capsule body v1", hashes) == root, "§7", "slice: the hashes are not those under the root")
    for piece in sorted(wanted):
        size = min(4096, length - 4096 * piece)
        found[piece], at = data[at : at + size], at + size
        digest = hashlib.sha256(found[piece]).digest()
        need(digest == hashes[32 * piece :][:32], "§7", f"slice: piece {piece} is not the one under the root")
    need(at == len(data), "§7", "slice: bytes are left over")
    return found


def prove_entry(suite: Suite, target: Header, claim: Any) -> bytes:
    index, secret, data, start, end = fields(claim, "§7", "entry", {
        0: ("index", is_number(0, ENTRIES_MAX)), 1: ("secret", is_digest), 2: ("slice", is_bytes_up_to(PROOF_MAX)),
        3: ("start", is_number(0, 2**32 - 1)), 4: ("end", is_number(0, 2**32 - 1)),
    })  # fmt: skip
    need(target.kind == DATA and index < target.count, "§7", f"the record has no entry {index}")
    key = record_keys(suite, secret, target, "§7")
    total = target.body_bytes - 16 - 4 * target.count  # all entries; the ends and the tag follow
    need(start < end <= total, "§7", "the entry does not lie among the entries")
    entry, ends = range(start, end), range(total + 4 * max(index - 1, 0), total + 4 * (index + 1))
    wanted = pieces_of(entry, suite.piece) | pieces_of(ends, suite.piece)
    pieces = open_slice(suite, target.root, target.body_bytes, wanted, data)

    def plain(span: range) -> bytes:
        first = span.start // suite.piece
        joined = b"".join(pieces[piece] for piece in sorted(pieces_of(span, suite.piece)))
        counter = NONCE + (2 + first * suite.piece // 16).to_bytes(4, "big")
        clear = Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor().update(joined)
        return clear[span.start - first * suite.piece :][: len(span)]

    claimed = (start.to_bytes(4, "big") if index else b"") + end.to_bytes(4, "big")
    need(plain(ends) == claimed and (index or start == 0), "§7", "the entry does not start and end where the ends say")
    need(end == total or index < target.count - 1, "§4", "the last entry does not end where the entries do")
    found = plain(entry)
    check_form(found)
    return found


@dataclass
class Proven:
    capsule: Capsule
    head: Header
    target: Header
    entry: bytes | None
    acknowledged: dict[bytes, int]  # replica → kept


def verify_proof(data: bytes, name: bytes, simulated: bool = False) -> Proven:
    v = value(data, PROOF_MAX, "§7", "proof")
    metadata_bytes, configs, opening, head_bytes, path_bytes, entry, signed = fields(v, "§7", "proof", {
        0: ("metadata", is_bytes_up_to(METADATA_MAX)), 1: ("config", is_list_of(is_bytes_up_to(PROOF_MAX))),
        2: ("opening", is_bytes_up_to(PROOF_MAX), ABSENT_OK), 3: ("head", is_bytes_up_to(PROOF_MAX)),
        4: ("path", is_list_of(is_bytes_up_to(PROOF_MAX))), 5: ("entry", lambda v: type(v) is dict, ABSENT_OK),
        6: ("acknowledgements", is_list_of(is_bytes_up_to(1024), ACKNOWLEDGEMENTS_MAX)),
    })  # fmt: skip
    metadata = Metadata(metadata_bytes, name)
    suite, capsule = metadata.suite, Capsule(metadata, simulated)
    for number, record in enumerate(configs):
        with at(f"config record {number}"):
            need(capsule.add(record).kind == CONFIG, "§7", "not a config record")
    if opening is not None:
        with at("opening"):
            need(capsule.add(opening).kind == OPEN, "§7", "not an open record")

    with at("head"):
        head, signature, _ = split(head_bytes, metadata, whole=False)
        chain = capsule.chains.get(head.writer)
        need(chain and chain.headers, "§7", "the opening is not that of the head's writer")
        need((opening is None) == (head.kind == CONFIG), "§7", "an opening belongs to every writer but the owner")
        check_signature(suite, chain.key, head, signature)
    path = []
    for number, raw in enumerate(path_bytes):
        with at(f"path header {number}"):
            path.append(Header(raw, metadata))
    check_path(head, path)
    target = path[-1] if path else head
    if opening is not None and target.seq:
        target.check_after(chain.headers[0])
    for header in (head, target):
        with at(header.names):
            check_in_proof(capsule, chain, header)

    found = None
    if entry is not None:
        with at("entry"):
            found = prove_entry(suite, target, entry)
    acknowledged: dict[bytes, int] = {}
    for number, one in enumerate(signed):
        with at(f"acknowledgement {number}"):
            by, kept = acknowledgement_of(one, head)
            need(by in capsule.config.replicas, "§7", "not signed by a replica of the configuration")
            need(by > max(acknowledged, default=b""), "§7", "acknowledgements are not ascending by signer, each once")
            acknowledged[by] = kept
    return Proven(capsule, head, target, found, acknowledged)


def check_in_proof(capsule: Capsule, chain: Chain, header: Header) -> None:
    """A header of a proof is what the whole chain would have let pass, as far as one header tells."""
    if header.seq < len(chain.headers):  # the opening, or the owner's whole chain
        same = header.hash == chain.headers[header.seq].hash
        need(same, "§7", "this is not the record that the proof carries for this seq")
    elif header.kind == CONFIG:
        refuse("§7", "the config records end before this one")
    if header.kind != CONFIG:
        capsule.check_authority(chain, header)


# ── §8, §9: what replicas say ────────────────────────────────────────────────────────────────────────────────────


def acknowledgement(data: bytes) -> tuple[bytes, list[Any]]:
    """The replica; capsule, writer, seq, hash, kept, at."""
    by, v = statement(data, "bield capsule acknowledgement v1", ACKNOWLEDGEMENT_MAX, "§8")
    return by, fields(v, "§8", "acknowledgement", {
        0: ("capsule", is_digest), 1: ("writer", is_digest), 2: ("seq", is_number()), 3: ("hash", is_digest),
        4: ("kept", is_number(0, 2)), 5: ("at", is_time),
    })  # fmt: skip


def acknowledgement_of(data: bytes, head: Header) -> tuple[bytes, int]:
    by, (capsule, writer, seq, digest, kept, _) = acknowledgement(data)
    same = (capsule, writer, seq, digest) == (head.capsule, head.writer, head.seq, head.hash)
    need(same, "§8", "it acknowledges something else than the head")
    return by, kept


def heads(data: bytes) -> tuple[bytes, list[Any]]:
    """The replica; capsule, nonce, at, heads, config head, after, more."""
    by, v = statement(data, "bield capsule heads v1", HEADS_MAX, "§9")
    is_head = is_array(is_digest, is_number(), is_digest)
    said = fields(v, "§9", "heads", {
        0: ("capsule", is_digest), 1: ("nonce", is_bytes(16)), 2: ("at", is_time),
        3: ("heads", is_list_of(is_head, 8192)), 4: ("config head", is_array(is_number(), is_digest), ABSENT_OK),
        5: ("after", is_digest, ABSENT_OK), 6: ("more", is_bool),
    })  # fmt: skip
    ids = [said[5] or b"", *(head[0] for head in said[3])]
    need(all(a < b for a, b in zip(ids, ids[1:])), "§9", "the heads are not in ascending order, after the page's start")
    need(said[3] or not said[6], "§9", "an empty page that says more")
    return by, said


def check_fresh(capsule: Capsule, statements: list[bytes], nonce: bytes) -> None:
    """The state has all that `n − q + 1` replicas of its configuration name, in answer to this nonce.

    What breaks a rule does not count. What `at` says is for the caller to compare with its clock.
    """
    config = capsule.config
    pages: dict[bytes, dict[bytes | None, list[Any]]] = {by: {} for by in config.replicas}
    why = []
    for one in statements:
        try:
            by, said = heads(one)
            need(by in pages, "§9", "not by a replica of the configuration")
            need((said[0], said[1]) == (capsule.name, nonce), "§9", "a statement is for another capsule or nonce")
            pages[by][said[5]] = said
        except Refused as reason:
            why.append(str(reason))
    complete = 0
    for answer in pages.values():
        try:
            _check_answer(capsule, answer)
            complete += 1
        except Refused as reason:
            why.append(str(reason))
    quorum = config.quorum[0]
    need(quorum <= len(config.replicas), "§9", "the quorum is larger than the number of replicas")
    needed = len(config.replicas) - quorum + 1
    need(complete >= needed, "§9", f"{complete} replicas answered, {needed} are needed; {'; '.join(why)}")


def _check_answer(capsule: Capsule, pages: dict[bytes | None, list[Any]]) -> None:
    """One replica's pages lead from the first to one without more, and the state holds what they name."""
    owner, after, more = capsule.metadata.owner, None, True
    while more:
        need(after in pages, "§9", "a page does not follow the one before it, or is missing")
        _, _, _, named, config_head, _, more = pages[after]
        need(owner not in [writer for writer, _, _ in named], "§9", "the owner's head stands with the others")
        for writer, seq, digest in named + ([[owner, *config_head]] if config_head else []):
            _check_held(capsule, writer, seq, digest)
        after = named[-1][0] if named else None


def _check_held(capsule: Capsule, writer: bytes, seq: int, digest: bytes) -> None:
    chain = capsule.chains.get(writer)
    if chain and writer != capsule.metadata.owner and not capsule.config.counts(chain):
        return
    have = chain.headers if chain else []
    last = capsule.config.revoked.get(writer, seq)
    held = last < len(have) if seq > last else seq < len(have) and have[seq].hash == digest
    need(held, "§9", f"the state is without writer {writer.hex()}, seq {seq}")


# ── §10: forks ───────────────────────────────────────────────────────────────────────────────────────────────────


def verify_fork(data: bytes, name: bytes | None = None) -> tuple[Metadata, Header, Header]:
    metadata_bytes, key, *signed = fields(value(data, FORK_MAX, "§10", "fork proof"), "§10", "fork proof", {
        0: ("metadata", is_bytes_up_to(METADATA_MAX)), 1: ("public key", is_bytes_up_to(FORK_MAX)),
        2: ("first header", is_bytes_up_to(FORK_MAX)), 3: ("second header", is_bytes_up_to(FORK_MAX)),
    })  # fmt: skip
    metadata = Metadata(metadata_bytes, name)
    metadata.suite.check_key(key, "§10")
    both = []
    for one in signed:
        header, signature, _ = split(one, metadata, whole=False)
        need(header.writer == metadata.suite.writer(key), "§10", "a header is not of the writer whose key is given")
        check_signature(metadata.suite, key, header, signature)
        both.append(header)
    need(both[0].seq == both[1].seq, "§10", "the headers are of different seq")
    need(both[0].hash < both[1].hash, "§10", "the hashes are equal, or the larger one is first")
    return metadata, *both
