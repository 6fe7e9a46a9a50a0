//! What is left of a user's request in this process's memory once its answer is out.
//!
//! ```text
//! parent: seals a request, computes what its input, activations and output look like ─▶ files, masked
//! child:  answers the request, as `Isolation` says ─▶ reads all of its own memory ─▶ counts what it finds
//! ```
//!
//! The child never holds what it looks for but by answering: the request comes to it sealed and the needles masked.
//! `shared` is the control: there the traces are found, so that finding none means something.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bield_engine::record_golden;
use bield_package::TOLERANCE_PPM;
use bield_protocol::parts::encode_request;

use super::parts::Reads;
use super::*;

/// Names the directory with the parent's files, in the child.
const PLACE: &str = "BIELD_TRACES";
/// Four numbers: long enough that chance does not make them.
const NEEDLE: usize = 16;
const MASK: u8 = 0xa5;
/// Enough to see what kind of memory keeps them.
const PLACES_SHOWN: usize = 20;
const KINDS: [&str; 4] = ["input", "activations", "output", "weights"];

#[test]
fn control_shared_leaves_traces_of_all_kinds() {
    let Some(found) = scan(
        Isolation::Shared,
        "control_shared_leaves_traces_of_all_kinds",
    ) else {
        return;
    };
    // The engine's threads keep packed activations for their next run, and freed memory what it held.
    for kind in ["activations", "weights"] {
        assert!(found[kind] > 0, "{found:?}");
    }
    assert!(found["input"] + found["output"] > 0, "{found:?}");
}

#[test]
fn wiped_leaves_nothing_of_a_request() {
    let Some(found) = scan(Isolation::Wiped, "wiped_leaves_nothing_of_a_request") else {
        return;
    };
    for kind in ["input", "activations", "output"] {
        assert_eq!(found[kind], 0, "{found:?}");
    }
    assert!(found["weights"] > 0, "the model stays: {found:?}");
}

#[test]
fn wiped_leaves_nothing_of_a_request_that_was_answered_in_parts() {
    let name = "wiped_leaves_nothing_of_a_request_that_was_answered_in_parts";
    let Some(found) = scan_of(prepare_in_parts, Isolation::Wiped, name) else {
        return;
    };
    for kind in ["input", "activations", "output"] {
        assert_eq!(found[kind], 0, "{found:?}");
    }
    assert!(found["weights"] > 0, "the model stays: {found:?}");
}

#[test]
fn dedicated_leaves_nothing_of_a_request_nor_of_the_model() {
    let name = "dedicated_leaves_nothing_of_a_request_nor_of_the_model";
    let Some(found) = scan(Isolation::Dedicated, name) else {
        return;
    };
    for kind in KINDS {
        assert_eq!(found[kind], 0, "{found:?}");
    }
}

/// Weights of a dense layer are what the engine packs into buffers of its threads; a golden pair does so first.
#[test]
fn dedicated_leaves_nothing_that_a_golden_pair_packed() {
    let name = "dedicated_leaves_nothing_that_a_golden_pair_packed";
    let Some(found) = scan_of(prepare_dense, Isolation::Dedicated, name) else {
        return;
    };
    for kind in KINDS {
        assert_eq!(found[kind], 0, "{found:?}");
    }
}

type Found = std::collections::BTreeMap<&'static str, usize>;

/// In the parent: prepares, and runs `test` again as a process of its own. In that: what it finds.
fn scan(isolation: Isolation, test: &str) -> Option<Found> {
    scan_of(prepare, isolation, test)
}

fn scan_of(prepare: fn(&Path), isolation: Isolation, test: &str) -> Option<Found> {
    if let Some(place) = std::env::var_os(PLACE) {
        return Some(answer_and_look(isolation, &PathBuf::from(place)));
    }
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let path = format!("call::tests::traces::{test}");
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &path, "--nocapture", "--test-threads=1"])
        .env(PLACE, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    print!("{said}");
    let complained = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}{complained}");
    assert!(said.contains("looked through"), "it did not run: {said}");
    None
}

fn prepare(place: &Path) {
    prepare_lifting(place, false);
}

fn prepare_in_parts(place: &Path) {
    prepare_lifting(place, true);
}

fn prepare_lifting(place: &Path, in_parts: bool) {
    let model = bield_fixtures::lifting_model();
    let mut random = Seeded::new(77);
    // Between 1 and 2, every bit of the fraction drawn.
    let image: Vec<f32> = (0..4 * 32 * 32)
        .map(|_| f32::from_bits(0x3f80_0000 | (random.next_u32() >> 9)))
        .collect();
    let lifted: Vec<f32> = image.iter().map(|x| x + 1.0).collect();
    let input = Tensor::from_f32("image", &[1, 4, 32, 32], &image).unwrap();
    let engine = Rten::new(1);
    let loaded = engine.load(model.clone(), ModelFormat::Onnx).unwrap();
    let output = loaded.run(std::slice::from_ref(&input), &[]).unwrap();
    let lifted = Tensor::from_f32("lifted", &[1, 4, 32, 32], &lifted).unwrap();
    let weights = weights(&model);
    let needles = [input.data(), lifted.data(), output[0].data(), &weights];
    hide(place, needles);
    // As most packages have one: it runs before the user's request does.
    let other = Tensor::from_f32("image", &[1, 4, 32, 32], &[0.5; 4 * 32 * 32]).unwrap();
    let golden = record_golden(&*loaded, vec![other], TOLERANCE_PPM).unwrap();
    stock(place, Shelf::packed(model, vec![golden]), input, in_parts);
}

fn prepare_dense(place: &Path) {
    let model = bield_fixtures::dense_model();
    let mut random = Seeded::new(78);
    let mut drawn = || {
        let numbers = (0..128 * 64).map(|_| f32::from_bits(0x3f80_0000 | (random.next_u32() >> 9)));
        Tensor::from_f32("x", &[128, 64], &numbers.collect::<Vec<_>>()).unwrap()
    };
    let (input, other) = (drawn(), drawn());
    let engine = Rten::new(1);
    let loaded = engine.load(model.clone(), ModelFormat::Onnx).unwrap();
    let output = loaded.run(std::slice::from_ref(&input), &[]).unwrap();
    let golden = record_golden(&*loaded, vec![other], TOLERANCE_PPM).unwrap();
    let weights = &model[model.len() - 64 * 64 * 4..];
    // It has no activations but its output.
    let output = output[0].data();
    hide(place, [input.data(), output, output, weights]);
    stock(place, Shelf::packed(model, vec![golden]), input, false);
}

/// Writes what is looked for, so that the child does not have it by reading it.
fn hide(place: &Path, needles: [&[u8]; 4]) {
    for (kind, bytes) in KINDS.into_iter().zip(needles) {
        let masked: Vec<u8> = bytes.iter().map(|byte| byte ^ MASK).collect();
        fs::write(place.join(kind), masked).unwrap();
    }
}

/// Writes the package and a request for it.
fn stock(place: &Path, shelf: Shelf, input: Tensor, in_parts: bool) {
    let stage = Stage::new(shelf);
    let body = inference::Request {
        inputs: vec![input],
        outputs: Vec::new(),
    };
    let user = &stage.cast.user;
    let body = match in_parts {
        true => encode_request(&body),
        false => body.encode(),
    };
    let (sealed, _) = stage.cast.seal(user, stage.package, 1, &body);
    fs::write(place.join("request"), sealed).unwrap();
    fs::write(place.join("package"), &lock(&stage.shelf).bytes).unwrap();
    fs::write(place.join("digest"), stage.package.as_bytes()).unwrap();
}

/// Numbers of the convolution.
fn weights(model: &[u8]) -> Vec<u8> {
    // 8 × 4 × 3 × 3 numbers; they end with the file but for the 8 of its bias and their headers.
    let bytes = 8 * 4 * 3 * 3 * 4;
    let middle = model.len() - bytes;
    // Wherever in the file a number begins, in memory it is aligned.
    (0..4)
        .flat_map(|shift| &model[middle + shift..][..bytes / 2])
        .copied()
        .collect()
}

fn answer_and_look(isolation: Isolation, place: &Path) -> Found {
    let digest = fs::read(place.join("digest")).unwrap();
    let stage = Stage::new(Shelf {
        package: Digest::from_bytes(digest.try_into().unwrap()),
        bytes: fs::read(place.join("package")).unwrap(),
    });
    stage.service.mind().grants = Some(vec![stage.cast.grant(stage.package, isolation)]);
    let runtime = stage.runtime(Rten::new(2), 64 * MIB);
    let request = fs::read(place.join("request")).unwrap();
    let (reads, parts) = Reads::all();
    let reply = match runtime.answer_to(&request, &reads) {
        Answer::Whole(reply) => reply,
        Answer::Rest(rest) => {
            drop(reads);
            let sealed: Vec<u8> = parts.iter().chain(rest).flatten().collect();
            Reply::decode(&sealed).unwrap()
        }
    };
    let (Reply::Sealed(told, answer) | Reply::Streamed(told, answer)) = &reply else {
        panic!("{reply:?}");
    };
    assert!(told.run_us > 0, "it ran: {told:?}");
    // 8 maps of 32 × 32 numbers; a refusal would be shorter.
    assert!(answer.len() > 8 * 32 * 32 * 4);
    look(place)
}

/// Counts needles, unmasked only as single bytes, in all memory of this process.
fn look(place: &Path) -> Found {
    let read = |kind: &&str| {
        let masked = fs::read(place.join(kind)).unwrap();
        // In steps of four numbers, so that one trace is not counted four times.
        let needles = masked.as_chunks::<NEEDLE>().0.iter().copied();
        needles.filter(is_telling).collect()
    };
    let needles: Vec<HashSet<[u8; NEEDLE]>> = KINDS.iter().map(read).collect();
    let mut starts = vec![false; 1 << 16];
    for needle in needles.iter().flatten() {
        starts[usize::from(u16::from_le_bytes([needle[0], needle[1]]))] = true;
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut found: Found = KINDS.map(|kind| (kind, 0)).into();
    let mut block = vec![0_u8; 1 << 20];
    let own = block.as_ptr_range();
    let own = own.start as u64..own.end as u64;
    let (mut looked, mut at_places) = (0_u64, Vec::new());
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let mut at = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(end, 16).unwrap();
        while at < end {
            let length = block.len().min((end - at) as usize);
            let Ok(length) = memory.read_at(&mut block[..length], at) else {
                break;
            };
            if length == 0 {
                break;
            }
            looked += length as u64;
            let read = &block[..length];
            // Numbers are aligned in memory.
            let mut offset = 0;
            while offset + NEEDLE <= length {
                let start = u16::from_le_bytes([read[offset] ^ MASK, read[offset + 1] ^ MASK]);
                let place = at + offset as u64;
                // Most of memory is zero; numbers of a needle differ.
                let repeats = read[offset..offset + 4] == read[offset + 4..offset + 8];
                if !repeats && starts[usize::from(start)] && !own.contains(&place) {
                    let mut masked = [0; NEEDLE];
                    for (to, from) in masked.iter_mut().zip(&read[offset..]) {
                        *to = from ^ MASK;
                    }
                    for (kind, needles) in KINDS.iter().zip(&needles) {
                        if needles.contains(&masked) {
                            *found.get_mut(kind).unwrap() += 1;
                            at_places.push(format!("{kind} at {place:x} in {line}"));
                        }
                    }
                }
                offset += 4;
            }
            // Blocks overlap, so that no window is missed.
            at += (length as u64).saturating_sub(if at + length as u64 == end { 0 } else { 12 });
        }
    }
    at_places.truncate(PLACES_SHOWN);
    println!("{}", at_places.join("\n"));
    println!("looked through {} MiB: {found:?}", looked >> 20);
    found
}

/// Not zeroes or one number again and again, which memory is full of.
fn is_telling(masked: &[u8; NEEDLE]) -> bool {
    let words = masked.as_chunks::<4>().0;
    words.iter().collect::<HashSet<_>>().len() == words.len()
}
