//! Prints what sealing costs per put: `cargo run --release -p bield-capsule --example seal_rate`.
//!
//! For every suite, payload and batch: puts a second and their ratio to batch 1; beside the time per
//! put what encryption and two hash passes alone take (the bound; the rest is mostly the signature);
//! then the whole path through the queue, one producer and one signer.

#![expect(clippy::disallowed_methods, reason = "measures; nothing depends on it")]

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bield_capsule::{
    Batch, Change, GenerationKey, Metadata, PAYLOAD_BYTES_MAX, Queue, QueueLimits, Received, Suite,
    Writer, WriterKey,
};
use bield_envelope::{Seeded, Time};

const PAYLOADS: [usize; 3] = [16, 100, 1024];
const BATCHES: [usize; 4] = [1, 128, 256, 1000];
const RUN_SECS: f64 = 0.25;
const QUEUED: u64 = 4_000_000;

fn main() {
    println!("suite 1 Ed25519+BLAKE3   2 P-256+SHA-256   3 ML-DSA-44+BLAKE3");
    println!(
        "suite  payload  batch      puts/s   ratio   ns/put    bound  us/record  record bytes"
    );
    for suite in Suite::ALL {
        for payload in PAYLOADS {
            let mut single = 0.0;
            for batch in BATCHES
                .into_iter()
                .filter(|k| k * payload < PAYLOAD_BYTES_MAX)
            {
                let (us, bytes) = seal(suite, payload, batch);
                let puts = batch as f64 * 1e6 / us;
                if batch == 1 {
                    single = puts;
                }
                println!(
                    "{:>5}  {payload:>7}  {batch:>5}  {puts:>10.0}  {:>5.1}x  {:>7.1}  {:>7.1}  {us:>9.2}  {bytes:>12}",
                    suite.number(),
                    puts / single,
                    1e9 / puts,
                    bound(suite, batch * (payload + 5)) * 1e3 / batch as f64,
                );
            }
        }
    }
    println!("\nqueue: one producer, one signer, to signed and acknowledged in memory");
    for suite in Suite::ALL {
        for payload in PAYLOADS {
            let (puts, records) = queue(suite, payload);
            println!(
                "{:>5}  {payload:>7}  {puts:>10.0} puts/s in records of {:.0}",
                suite.number(),
                QUEUED as f64 / records as f64
            );
        }
    }
}

struct Setup {
    writer: Writer,
    generation: GenerationKey,
    entropy: Seeded,
}

fn setup(suite: Suite) -> Setup {
    let now = Time::from_millis(1);
    let mut entropy = Seeded::new(1);
    let owner = WriterKey::generate(suite, &mut entropy);
    let metadata = Metadata::new(owner.public(), None, now, &mut entropy).expect("no label");
    let changes = [Change::Quota(1)];
    let (_, config) = Writer::owner(owner, &metadata, &changes, now).expect("a config record");
    let key = WriterKey::generate(suite, &mut entropy);
    let (writer, _) =
        Writer::open(key, &metadata, config.head(), None, now).expect("an open record");
    Setup {
        writer,
        generation: GenerationKey::generate(1, &mut entropy),
        entropy,
    }
}

impl Setup {
    fn seal(&mut self, batch: &Batch) -> Received {
        self.writer
            .seal(
                batch,
                &self.generation,
                &[],
                Time::from_millis(2),
                &mut self.entropy,
            )
            .expect("a full batch seals")
    }
}

/// Microseconds per record (fast tenth of the runs: other load on the machine drops out), and its
/// length.
fn seal(suite: Suite, payload: usize, puts: usize) -> (f64, usize) {
    let mut setup = setup(suite);
    let payload = vec![7; payload];
    let mut batch = Batch::new();
    let mut bytes = 0;
    let us = fast_tenth(|| {
        batch.clear();
        for _ in 0..puts {
            batch.push(black_box(&payload)).expect("the batch fits");
        }
        bytes = black_box(setup.seal(&batch)).as_bytes().len();
    });
    (us, bytes)
}

/// Microseconds to encrypt and hash so many bytes, twice hashed: what no layout avoids.
fn bound(suite: Suite, bytes: usize) -> f64 {
    let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes");
    let key = LessSafeKey::new(key);
    let mut body = vec![7; bytes];
    fast_tenth(|| {
        let nonce = Nonce::assume_unique_for_key([0; 12]); // no secret is in it
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut body);
        black_box(tag.is_ok());
        black_box([suite.root(&body), suite.root(&body)]);
    })
}

fn fast_tenth(mut run: impl FnMut()) -> f64 {
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed().as_secs_f64() < RUN_SECS {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 10] * 1e6
}

fn queue(suite: Suite, payload: usize) -> (f64, u64) {
    let mut setup = setup(suite);
    let payload = vec![7; payload];
    let queue = Queue::new(QueueLimits::default());
    let start = Instant::now();
    let records = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = queue.guard();
            let mut last = None;
            for _ in 0..QUEUED {
                last = Some(queue.push_wait(&payload).expect("the queue is open"));
            }
            queue.wait(last.expect("some"), 1).expect("no failure");
            queue.close();
        });
        let _guard = queue.guard();
        let mut batch = Batch::new();
        let mut records = 0;
        while let Some(tickets) = queue.take(&mut batch) {
            black_box(setup.seal(&batch));
            queue.reached(tickets.last, 1);
            records += 1;
        }
        records
    });
    (QUEUED as f64 / start.elapsed().as_secs_f64(), records)
}
