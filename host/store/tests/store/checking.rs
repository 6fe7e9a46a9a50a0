//! `bield-store fsck` names the first bad record.

use std::path::PathBuf;
use std::process::Command;

use bield_capsule::VerifierPolicy;
use bield_capsule::segment::{FRAME_HEAD_BYTES, SegmentHeader};
use bield_store::fsck::{Checked, check};

use crate::support::*;

/// A stopped store with one capsule of some records.
struct Stopped {
    directory: std::sync::Arc<tempfile::TempDir>,
    capsule: Capsule,
    records: Vec<bield_capsule::Received>,
    segment: PathBuf,
}

fn stopped() -> Stopped {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 8);
    node.client.fill(&capsule, &records);
    node.client
        .get(&format!("/v1/capsules/{}/log/checkpoint", capsule.name()));
    let (directory, _) = node.stop();
    let name = capsule.name().to_string();
    let segment = directory
        .path()
        .join("capsules")
        .join(name)
        .join(format!("{:020}.segment", 0));
    Stopped {
        directory,
        capsule,
        records,
        segment,
    }
}

impl Stopped {
    fn check(&self) -> Checked {
        check(self.directory.path(), VerifierPolicy::default())
            .unwrap()
            .remove(0)
    }

    /// Where the frame of the record at `index` begins.
    fn offset(&self, index: u64) -> usize {
        let bytes = std::fs::read(&self.segment).unwrap();
        let header = SegmentHeader::parse(&bytes).unwrap();
        header
            .frames(&bytes)
            .find(|frame| frame.index == index)
            .unwrap()
            .offset as usize
    }

    /// Changes the file and returns what it was.
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let before = std::fs::read(&self.segment).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        std::fs::write(&self.segment, bytes).unwrap();
        before
    }
}

#[test]
fn a_good_store_is_verified_whole() {
    let stopped = stopped();
    let checked = stopped.check();
    assert_eq!(checked.first_bad, None);
    assert_eq!(
        checked.verified as usize,
        stopped.capsule.config.len() + stopped.records.len()
    );
    let data = stopped.directory.path().to_str().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bield-store"))
        .args(["fsck", "--data", data])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("11 records verified")
    );
}

#[test]
fn a_rotten_byte_is_named_by_segment_offset_writer_and_seq() {
    let stopped = stopped();
    let index = stopped.capsule.config.len() as u64 + 4;
    let offset = stopped.offset(index);
    stopped.change(|bytes| bytes[offset + FRAME_HEAD_BYTES + 300] ^= 4);
    let bad = stopped.check().first_bad.unwrap();
    assert_eq!(
        (bad.segment, bad.offset, bad.index),
        (Some(0), Some(offset as u64), Some(index))
    );
    assert_eq!(
        (bad.writer, bad.seq),
        (Some(stopped.records[0].header().writer), Some(4))
    );
    let data = stopped.directory.path().to_str().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bield-store"))
        .args(["fsck", "--data", data])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains(&format!(
            "BAD: segment 0, offset {offset}, record {index}, writer "
        )),
        "{said}"
    );
}

#[test]
fn a_record_exchanged_with_mended_checksums_is_named_by_its_signature() {
    let stopped = stopped();
    let index = stopped.capsule.config.len() as u64 + 4;
    let offset = stopped.offset(index);
    stopped.change(|bytes| {
        let header = SegmentHeader::parse(bytes).unwrap();
        let frames: Vec<(usize, Vec<u8>)> = header
            .frames(bytes)
            .map(|frame| (frame.offset as usize, frame.payload.to_vec()))
            .collect();
        let record = bield_capsule::Received::decode(frames[index as usize].1.clone()).unwrap();
        let mut payload = record.as_bytes().to_vec();
        payload[record.header_bytes().len() + 9] ^= 1;
        let durable = u32::from_be_bytes(bytes[offset + 8..offset + 12].try_into().unwrap());
        let head = header.frame_head(index as u32, durable, &payload);
        bytes[offset..offset + head.len()].copy_from_slice(&head);
        bytes[offset + head.len()..][..payload.len()].copy_from_slice(&payload);
    });
    let bad = stopped.check().first_bad.unwrap();
    assert_eq!(
        (bad.segment, bad.offset, bad.index),
        (Some(0), Some(offset as u64), Some(index))
    );
    assert_eq!(
        (bad.writer, bad.seq),
        (Some(stopped.records[0].header().writer), Some(4))
    );
    assert!(bad.what.contains("signature"), "{bad}");
}

#[test]
fn records_removed_from_the_end_are_missed_by_the_checkpoint() {
    let stopped = stopped();
    let index = stopped.capsule.config.len() as u64 + 6;
    let offset = stopped.offset(index);
    stopped.change(|bytes| bytes[offset..].fill(0));
    let bad = stopped.check().first_bad.unwrap();
    assert!(bad.what.contains("checkpoint"), "{bad}");
}

#[test]
fn a_directory_that_is_no_store_is_said_to_be_none() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bield-store"))
        .args(["fsck", "--data", data])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
