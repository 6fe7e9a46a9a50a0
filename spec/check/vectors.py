"""The frozen vectors of spec 06: every one is accepted as it stands, and refused with a bit flipped.

In: `spec/vectors/06-capsule.json`.  Out: nothing, or `Refused` with the name of the vector.
"""

import random
from collections.abc import Callable
from typing import Any

import proofs
import segments
from capsule import verify_arrived, verify_export
from chains import Keys, certificate, open_erasable, record_keys
from proofs import acknowledgement, heads, verify_fork, verify_proof
from records import Header, Metadata, split
from values import SUITES, Refused, Suite, at, need

MUTATIONS = 1500  # per vector: every byte of most; what is longer is sampled, see `mutate`


def same(found: Any, expected: Any, what: str) -> None:
    need(found == expected, "vectors", f"{what} differs: {shown(found)}, expected {shown(expected)}")


def shown(v: Any) -> str:
    return v.hex() if type(v) is bytes else str(v)


def h(text: str) -> bytes:
    return bytes.fromhex(text)


def mutate(data: bytes, check: Callable[[bytes], Any], most: int = MUTATIONS) -> int:
    """One bit of each byte; of long data a fixed sample: the first 64 bytes, the last, and others in between."""
    check(data)
    chosen = random.Random(len(data))
    offsets: list[int] = list(range(len(data)))
    if len(data) > most:
        offsets = sorted({*offsets[:64], *offsets[-64:], *chosen.sample(offsets, most - 128)})
    for offset in offsets:
        changed = bytearray(data)
        changed[offset] ^= 1 << chosen.randrange(8)
        try:
            check(bytes(changed))
        except Refused:
            continue
        need(False, "vectors", f"passes with byte {offset} of {len(data)} changed to {changed[offset]:#04x}")
    return len(offsets)


def run(v: dict[str, Any]) -> None:
    for suite in v["suites"]:
        with at(f"suite {suite['suite']}"):
            accepted, mutated = run_suite(suite)
        print(f"suite {suite['suite']}: {accepted} vectors accepted, {mutated} mutations refused")
    print(f"broken: {run_broken(v)} refused, and their unbroken twins accepted")
    for one in v["segments"]:
        with at(f"segment: {one['what']}"):
            found = segments.read(h(one["segment"]))
            same(found.end, one["end"], "end")
            same(found.offset, one["offset"], "offset")
            same([payload.hex() for payload in found.payloads], one["payloads"], "payloads")
    print(f"segments: {len(v['segments'])} end as they should")
    need({suite["suite"] for suite in v["suites"]} == set(SUITES), "vectors", "not all suites are there")


def run_broken(v: dict[str, Any]) -> int:
    """Each breaks one rule in its state, where its twin is accepted (suite 1)."""
    suite = next(one for one in v["suites"] if one["suite"] == 1)
    metadata = h(suite["metadata"])
    keys = Keys({one["number"]: h(one["key"]) for one in suite["keys"]["generations"]})
    records = [h(one["header"] + one["signature"] + one["body"]) for one in suite["records"]]
    count = 0
    for group in v["broken"]:

        def check(data: bytes) -> None:
            frames = [metadata, *records[: group["after"]], *map(h, group["before"])]  # noqa: B023
            state = verify_arrived(export_file(frames), None, group["simulated"], keys)  # noqa: B023
            judge_broken(group["of"], data, state, v["suites"][0])  # noqa: B023

        with at(f"twin of {group['bad'][0]['name']!r}"):
            check(h(group["good"]))
        for bad in group["bad"]:
            count += 1
            try:
                check(h(bad["bytes"]))
            except Refused as reason:
                same(reason.clause, bad["clause"], f"the clause that {bad['name']!r} breaks")
                continue
            need(False, "vectors", f"{bad['name']!r} is accepted ({bad['clause']})")
    return count


def judge_broken(of: str, data: bytes, state: Any, suite: dict[str, Any]) -> None:
    name = state.name
    if of in ("record", "body"):
        state.add(data)
    elif of == "metadata":
        Metadata(data)
    elif of == "proof":
        verify_proof(data, name, True)
    elif of == "fork":
        verify_fork(data, name)
    elif of == "acknowledgement":
        acknowledgement(data)
    elif of == "heads":
        proofs.check_fresh(state, [data], h(suite["heads"]["nonce"]))
    else:
        need(of == "export", "vectors", f"{of!r} is unknown")
        verify_export(data, name, True)


def run_suite(v: dict[str, Any]) -> tuple[int, int]:
    suite, name, metadata = SUITES[v["suite"]], h(v["name"]), Metadata(h(v["metadata"]))
    same(metadata.name, name, "name")
    keys = Keys({one["number"]: h(one["key"]) for one in v["keys"]["generations"]})
    check_keys(v, metadata)
    mutated = [mutate(h(v["metadata"]), lambda data: Metadata(data, name))]
    accepted = 3

    export = export_of(v)
    with at("export"):
        state = verify_arrived(export, name, True, keys)
        mutated.append(mutate(export, lambda data: verify_arrived(data, name, True), 700))
    for number, one in enumerate(v["records"]):
        with at(f"record {number} ({one['what']})"):
            check_record(one, metadata, state, h(v["keys"]["entry"]))
    accepted += 1 + len(v["records"])

    for number, one in enumerate(v["proofs"]):
        with at(f"proof {number}"):
            data = h(one["proof"])
            proven = verify_proof(data, name, True)
            same(proven.target.seq, one["seq"], "seq")
            if one["entry"] is not None:
                check_entry(proven.entry or b"", one["entry"], suite, name, h(v["keys"]["entry"]))
            mutated.append(mutate(data, lambda data: verify_proof(data, name, True), 500))
    with at("fork"):
        mutated.append(mutate(h(v["fork"]), lambda data: verify_fork(data, name)))
    accepted += 1 + len(v["proofs"])

    headers = {header.hash: header for chain in state.chains.values() for header in chain.headers}
    with at("path"):
        path = [Header(h(one), metadata) for one in v["path"]["headers"]]
        proofs.check_path(headers[h(v["path"]["from"])], path)
        same(path[-1].hash, h(v["path"]["to"]), "target")
    for one in v["acknowledgements"]:
        with at("acknowledgement"):
            mutated.append(mutate(h(one["signed"]), lambda data: acknowledgement(data)))
            by, (capsule, writer, seq, digest, _, _) = acknowledgement(h(one["signed"]))
            same(by, h(one["signer"]), "signer")
            same((capsule, headers[digest].writer, headers[digest].seq), (name, writer, seq), "head")
    with at("heads"):
        mutated.append(mutate(h(v["heads"]["signed"]), lambda data: heads(data)))
        by, said = heads(h(v["heads"]["signed"]))
        same((by, said[0], said[1]), (h(v["heads"]["signer"]), name, h(v["heads"]["nonce"])), "signer, capsule, nonce")
    with at("certificate"):
        signed, holder = h(v["certificate"]["signed"]), h(v["keys"]["alice"]["id"])
        mutated.append(mutate(signed, lambda data: certificate(data, name, holder)))
        found, expected = certificate(signed, name, holder), v["certificate"]
        same(found.code, h(expected["code"]), "code")
        same(found.simulated, expected["simulated"], "simulated")
        same((found.not_before, found.not_after), (expected["not_before"], expected["not_after"]), "time")
    accepted += 3 + len(v["acknowledgements"])

    for one in v.get("slices", []):
        with at(f"slice of {one['ranges']} of {one['body_bytes']} bytes"):
            mutated.append(check_slice(one, suite))
    return accepted + len(v.get("slices", [])), sum(mutated)


def export_of(v: dict[str, Any]) -> bytes:
    frames = [h(v["metadata"]), *(h(one["header"] + one["signature"] + one["body"]) for one in v["records"])]
    return export_file(frames)


def export_file(frames: list[bytes]) -> bytes:
    return b"bldc\x01" + b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def check_keys(v: dict[str, Any], metadata: Metadata) -> None:
    suite = metadata.suite
    for who in ("owner", "alice", "bob"):
        key = v["keys"][who]
        same(suite.writer(h(key["public"])), h(key["id"]), f"id of {who}")
        same(suite.public(h(key["seed"])), h(key["public"]), f"public key of {who}")
    same(metadata.owner, h(v["keys"]["owner"]["id"]), "owner")
    for one in v["keys"]["generations"]:
        number = one["number"].to_bytes(4, "big")
        found = suite.hash("bield capsule generation v1", metadata.name, number, h(one["key"]))
        same(found, h(one["commitment"]), "commitment of a generation")


def check_record(one: dict[str, Any], metadata: Metadata, state: Any, entry_key: bytes) -> None:
    header, _, _ = split(h(one["header"] + one["signature"] + one["body"]), metadata, whole=True)
    same(header.hash, h(one["hash"]), "hash")
    same((header.writer, header.seq), (h(one["writer"]), one["seq"]), "place")
    if "secret" in one:
        record_keys(metadata.suite, h(one["secret"]), header, "vectors")
    entries = state.opened.get((header.writer, header.seq), [])
    same(len(entries), len(one.get("entries", [])), "number of entries")
    for found, expected in zip(entries, one.get("entries", [])):
        check_entry(found, expected, metadata.suite, metadata.name, entry_key)


def check_entry(found: bytes, expected: dict[str, Any], suite: Suite, name: bytes, entry_key: bytes) -> None:
    same(found[0], expected["form"], "form")
    if found[0] == 1:
        found = b"\1" + open_erasable(suite, name, entry_key, found)
    if "payload" in expected:
        same(found[1:], h(expected["payload"]), "payload")


def check_slice(one: dict[str, Any], suite: Suite) -> int:
    length, data = one["body_bytes"], h(one["slice"])
    body = bytes((7 * i + i // 256) % 256 for i in range(length))
    same(suite.root(body), h(one["root"]), "root")
    wanted = {piece for start, end in one["ranges"] for piece in proofs.pieces_of(range(start, end), suite.piece)}
    found = proofs.open_slice(suite, h(one["root"]), length, wanted, data)
    for piece, part in found.items():
        same(part, body[piece * suite.piece :][: suite.piece], f"piece {piece}")
    return mutate(data, lambda data: proofs.open_slice(suite, h(one["root"]), length, wanted, data), 150)
