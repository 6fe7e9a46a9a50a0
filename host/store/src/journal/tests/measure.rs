//! Ratios against the bare device. Not tests: `cargo nextest run -p bield-store --release
//! --run-ignored only measure --no-capture`.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::*;

const ROUNDS: usize = 400;

const JOURNAL_BYTES: u64 = 512 << 20;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

#[test]
#[ignore = "a measurement, not a test"]
fn measure_append_and_sync_against_the_device() {
    let home = tempfile::tempdir_in(".").unwrap();
    let (mut journal, _) = open(Files::own(&home.path().join("journal")).unwrap(), LARGE).unwrap();
    let zeros = |name: &str, bytes: usize| {
        let mut file = File::create(home.path().join(name)).unwrap();
        file.write_all(&vec![0; bytes]).unwrap();
        file.sync_all().unwrap();
        file
    };
    let group: Records = (0..16).map(|_| vec![5; 236]).collect();
    let group = borrowed(&group);
    journal.append(&group).unwrap();
    journal.sync().unwrap();
    let (bare, growing) = (zeros("bare", 16 << 20), zeros("growing", 0));
    let page = [5; 4096];
    let (mut device, mut grown, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that a throttled device is throttled for all.
    for round in 0..ROUNDS as u64 {
        let start = Instant::now();
        bare.write_all_at(&page, round * 4096).unwrap();
        bare.sync_data().unwrap();
        device.push(start.elapsed());
        let start = Instant::now();
        growing.write_all_at(&page, round * 4096).unwrap();
        growing.sync_data().unwrap();
        grown.push(start.elapsed());
        let start = Instant::now();
        journal.append(&group).unwrap();
        journal.sync().unwrap();
        ours.push(start.elapsed());
    }
    let (device, grown, ours) = (median(device), median(grown), median(ours));
    println!(
        "16 records, 4 KiB: append + sync ÷ preallocated write + fdatasync: {:.2}",
        ours / device
    );
    println!("growing file ÷ preallocated: {:.2}", grown / device);
}

#[test]
#[ignore = "a measurement, not a test"]
fn measure_recovery_against_a_plain_read() {
    for (record_bytes, name) in [(16 << 10, "16 KiB"), (256, "256 B")] {
        let home = tempfile::tempdir_in(".").unwrap();
        let path = home.path().join("journal");
        let (mut journal, _) = open(Files::own(&path).unwrap(), LARGE).unwrap();
        let group: Records = (0..64)
            .map(|n| vec![n as u8 + 1; record_bytes as usize])
            .collect();
        let groups = JOURNAL_BYTES / 64 / record_bytes;
        for _ in 0..groups {
            journal.append(&borrowed(&group)).unwrap();
        }
        journal.sync().unwrap();
        drop(journal);
        for (cold, state) in [(true, "cold"), (false, "warm")] {
            let (mut plain, mut recovered) = (0.0_f64, 0.0_f64);
            for _ in 0..5 {
                let rate =
                    |start: Instant| JOURNAL_BYTES as f64 / 1e6 / start.elapsed().as_secs_f64();
                let prepare = || {
                    for entry in std::fs::read_dir(&path).unwrap() {
                        let mut file = File::open(entry.unwrap().path()).unwrap();
                        match cold {
                            true => crate::disk::DiskFile::forget_cached(&file),
                            false => drop(io::copy(&mut file, &mut io::sink())),
                        }
                    }
                };
                prepare();
                let start = Instant::now();
                let mut buffer = vec![0; 1 << 20];
                for entry in std::fs::read_dir(&path).unwrap() {
                    let mut file = File::open(entry.unwrap().path()).unwrap();
                    while file.read(&mut buffer).unwrap() > 0 {}
                }
                plain = plain.max(rate(start));
                prepare();
                let files = Files::own(&path).unwrap();
                let start = Instant::now();
                let journal = SegmentJournal::open(files, CAPSULE, LARGE, &mut |_, _| {
                    ControlFlow::Continue(())
                });
                recovered = recovered.max(rate(start));
                assert_eq!(journal.unwrap().len(), groups * 64);
            }
            println!(
                "{name} records, {state}: recovery ÷ plain sequential read: {:.2} ({recovered:.0} of {plain:.0} MB/s)",
                recovered / plain
            );
        }
    }
}
