"""A second verifier of capsules, written from spec 06 (and 01) alone.

    capsule.py verify FILE.capsule [--name N] [--keys KEYS.json] [--simulated]
    capsule.py proof FILE --name N [--simulated]
    capsule.py fork FILE [--name N]
    capsule.py segment FILE [--name N]
    capsule.py statement acknowledgement|heads FILE [--name N]
    capsule.py vectors spec/vectors/06-capsule.json

In: bytes, and for bodies the keys of generations: {"generations": {"1": hex}, "entries": {"writer/seq/index": hex}}.
Out: what they prove, and exit code 0; or the first record that breaks a rule, with the rule's clause, and 1; 2: usage.
Always true: whatever is not stated in the specification is refused or listed as not checked.
Not here: replica logs (§11), the code behind a certificate (spec 02), anybody's clock.
"""

import argparse
import json
import sys
from pathlib import Path

import segments
from chains import Capsule, Keys
from proofs import Proven, acknowledgement, heads, verify_fork, verify_proof
from records import Metadata
from values import Refused, at, need

# ── §12: exports ─────────────────────────────────────────────────────────────────────────────────────────────────


def verify_export(data: bytes, name: bytes | None = None, simulated: bool = False, keys: Keys | None = None) -> Capsule:
    """Config records first, then every other record in the file's order."""
    return verify_framed(data, name, simulated, keys, as_arrived=False)


def verify_arrived(data: bytes, name: bytes | None = None, simulated: bool = False, keys: Keys | None = None) -> Capsule:
    """The same frames in the order in which a replica took the records; `refused_since` tells what later config
    records undo. Not a file of §12."""
    return verify_framed(data, name, simulated, keys, as_arrived=True)


def verify_framed(data: bytes, name: bytes | None, simulated: bool, keys: Keys | None, as_arrived: bool) -> Capsule:
    need(data[:5] == b"bldc\x01", "§12", "not an export")
    frames, offset = [], 5
    while offset < len(data) or not frames:
        size = int.from_bytes(data[offset : offset + 4], "big")
        need(offset + 4 + size <= len(data), "§12", f"cut off at offset {offset}")
        frames.append((offset, data[offset + 4 : offset + 4 + size]))
        offset += 4 + size
    metadata = Metadata(frames.pop(0)[1], name)
    capsule = Capsule(metadata, simulated, keys)
    configured = as_arrived
    for number, (offset, record) in enumerate(frames):
        place = f"record {number} at offset {offset}"
        if len(record) >= 80:
            place += f", writer {record[40:72].hex()}, seq {int.from_bytes(record[72:80], 'big')}"
        with at(place):
            config = record[6:7] == b"\x01"
            need(as_arrived or not config or not configured, "§12", "a config record behind another record")
            configured = configured or not config
            capsule.add(record)
    return capsule


# ── Command line ─────────────────────────────────────────────────────────────────────────────────────────────────


def read_keys(text: str) -> Keys:
    v = json.loads(text)
    keys = Keys({int(number): bytes.fromhex(key) for number, key in v.get("generations", {}).items()})
    for place, key in v.get("entries", {}).items():
        writer, seq, index = place.split("/")
        keys.entries[bytes.fromhex(writer), int(seq), int(index)] = bytes.fromhex(key)
    return keys


def show_export(capsule: Capsule) -> None:
    print(f"capsule {capsule.name.hex()}, suite {capsule.suite.number}: every record verifies")
    for header, reason in capsule.refused_since():
        print(f"  refused since, with all after it: {header.names}: {reason}")
    for chain in capsule.chains.values():
        if chain.headers:
            head = chain.headers[-1]
            print(f"  {head.names}, hash {head.hash.hex()}")
    entries = sum(map(len, capsule.opened.values()))
    print(f"  {len(capsule.opened)} bodies opened, {entries} entries")
    for note in capsule.not_checked():
        print(f"  not checked: {note}")


def show_proof(proven: Proven) -> None:
    print(f"capsule {proven.capsule.name.hex()}: the proof holds")
    print(f"  head:   {proven.head.names}\n  target: {proven.target.names}, hash {proven.target.hash.hex()}")
    if proven.entry is not None:
        print(f"  entry:  {proven.entry.hex()}")
    for by, kept in proven.acknowledged.items():
        print(f"  acknowledged by ed25519:{by.hex()}, kept {kept}")
    for note in proven.capsule.not_checked():
        print(f"  not checked: {note}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("verify", "proof", "fork", "statement", "segment", "vectors"):
        sub = commands.add_parser(command)
        if command == "statement":
            sub.add_argument("kind", choices=("acknowledgement", "heads"))
        sub.add_argument("file")
        if command != "vectors":
            sub.add_argument("--name", type=bytes.fromhex, required=command == "proof")
        if command in ("verify", "proof"):
            sub.add_argument("--simulated", action="store_true", help="accept certificates of software TEEs")
        if command == "verify":
            sub.add_argument("--keys", help="JSON file with the keys of generations and entries")
    given = parser.parse_args(arguments)
    try:
        data = Path(given.file).read_bytes()
        if given.command == "verify":
            keys = read_keys(Path(given.keys).read_text()) if given.keys else None
            show_export(verify_export(data, given.name, given.simulated, keys))
        elif given.command == "proof":
            show_proof(verify_proof(data, given.name, given.simulated))
        elif given.command == "fork":
            metadata, first, second = verify_fork(data, given.name)
            print(f"capsule {metadata.name.hex()}: writer {first.writer.hex()} signed two records for seq {first.seq}")
            print(f"  {first.hash.hex()}\n  {second.hash.hex()}")
        elif given.command == "statement":
            by, said = {"acknowledgement": acknowledgement, "heads": heads}[given.kind](data)
            need(given.name in (None, said[0]), "§8", "the statement is about another capsule")
            print(f"ed25519:{by.hex()} says: {json.dumps(said, default=bytes.hex)}")
        elif given.command == "segment":
            segment = segments.read(data, given.name)
            place = f"segment {segment.number} of capsule {segment.capsule.hex()}"
            print(f"{place}: {len(segment.payloads)} records from {segment.first}")
            need(segment.end != "damaged", "§13", f"{place}: damaged at offset {segment.offset}")
            print(f"  {segment.end} at offset {segment.offset}")
        else:
            import vectors

            vectors.run(json.loads(data))
    except Refused as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as reason:
        print(f"cannot run: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
