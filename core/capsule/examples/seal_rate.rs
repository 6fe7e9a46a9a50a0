//! Prints what sealing costs per put: `cargo run --release -p bield-capsule --example seal_rate`.
//!
//! For every suite, payload and batch: puts a second and their ratio to batch 1; the share of time
//! that is encryption, hash passes and signature alone (the bound); then the whole path through the
//! queue, one producer and one signer.

#![expect(clippy::disallowed_methods, reason = "measures; nothing depends on it")]

use std::hint::black_box;
use std::time::Instant;

use bield_capsule::{
    Batch, Change, GenerationKey, Metadata, PAYLOAD_BYTES_MAX, Queue, QueueLimits, Received, Suite,
    Writer, WriterKey,
};
use bield_envelope::{Seeded, Time};

const PAYLOADS: [usize; 3] = [16, 100, 1024];
const BATCHES: [usize; 3] = [1, 128, 1024];
const RUN_SECS: f64 = 0.25;
const QUEUED: u64 = 4_000_000;

fn main() {
    println!("suite 1 Ed25519+BLAKE3   2 P-256+SHA-256   3 ML-DSA-44+BLAKE3");
    println!("suite  payload  batch      puts/s   ratio   ns/put   us/record  record bytes");
    for suite in Suite::ALL {
        for payload in PAYLOADS {
            let mut single = 0.0;
            for batch in BATCHES
                .into_iter()
                .filter(|k| k * payload < PAYLOAD_BYTES_MAX)
            {
                let (records_per_s, bytes) = seal(suite, payload, batch);
                let puts = records_per_s * batch as f64;
                if batch == 1 {
                    single = puts;
                }
                println!(
                    "{:>5}  {payload:>7}  {batch:>5}  {puts:>10.0}  {:>5.1}x  {:>7.1}  {:>10.2}  {bytes:>12}",
                    suite.number(),
                    puts / single,
                    1e9 / puts,
                    1e6 / records_per_s,
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

fn seal(suite: Suite, payload: usize, puts: usize) -> (f64, usize) {
    let mut setup = setup(suite);
    let payload = vec![7; payload];
    let mut batch = Batch::new();
    let (mut records, mut bytes) = (0u32, 0);
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < RUN_SECS {
        batch.clear();
        for _ in 0..puts {
            batch.push(black_box(&payload)).expect("the batch fits");
        }
        bytes = black_box(setup.seal(&batch)).as_bytes().len();
        records += 1;
    }
    (f64::from(records) / start.elapsed().as_secs_f64(), bytes)
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
