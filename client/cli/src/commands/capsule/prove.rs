//! `bield capsule prove`.

use std::path::PathBuf;

use bield_sdk::Home;
use clap::Args;
use serde_json::json;

use super::{open, place};
use crate::failure::Failure;
use crate::output::Output;

/// Prove a record, or one entry of it, to somebody else
///
/// The proof file holds everything that is needed to check it offline, from the capsule's name alone:
/// the configuration, the signed head, the path from it to the record, and the words of the replicas that
/// keep it. With --entry it also shows that one entry, and what shares its 1 KiB piece; whoever gets the
/// file can open that record and no other. Check it with `bield capsule verify`.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Prove {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// WRITER/SEQ, as `bield capsule read` shows it; the writer may be `me` or `owner`
    #[arg(value_name = "WRITER/SEQ")]
    place: String,

    /// Also show this entry of the record
    #[arg(long, value_name = "INDEX")]
    entry: Option<u32>,

    /// Where the proof is written
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Prove {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let log = open(home, &self.capsule)?;
        log.need_whole()?;
        let (writer, seq, index) = place(&log, &self.place)?;
        let entry = self.entry.or(index);
        let (proof, proven) = log.prove(&writer, seq, entry)?;
        let bytes = proof.encode();
        bield_sdk::write_atomically(&self.output, &bytes)?;
        let (path, synced) = (self.output.display().to_string(), proven.synced());
        let shown = entry.map_or("the record".to_owned(), |entry| {
            format!("entry {entry} of the record")
        });
        let name = log.metadata().name();
        output.show(
            &json!({
                "capsule": name.to_string(),
                "writer": writer.to_string(),
                "seq": seq,
                "entry": entry,
                "hash": proven.target_hash.to_string(),
                "acknowledged": synced,
                "file": path,
                "bytes": bytes.len(),
            }),
            format_args!(
                "{path} ({} bytes)\n  proves    {shown} {}/{seq}\n  capsule   {name}\n  kept by   {synced} \
                 replicas\n  check     bield capsule verify {path} --name {name}",
                bytes.len(),
                writer.short(),
            ),
        );
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield capsule prove notes me/3 -o record.proof
  bield capsule prove notes me/3 --entry 0 -o entry.proof"#;
