//! What only a capsule's owner does: `admit`, `revoke`, `rotate`, `erase`.

use bield_capsule::{Change, EntryPlace, Head, PublicKey, WriterId};
use bield_sdk::Home;
use bield_sdk::capsule::Log;
use clap::Args;
use serde_json::json;

use super::{open, place, place_text, writer};
use crate::failure::Failure;
use crate::output::Output;

/// Let a key write
///
/// The key is what `bield capsule writer` prints in the other home. To write, that home also needs the
/// key of the newest generation.
#[derive(Args)]
#[command(after_long_help = ADMIT_EXAMPLES)]
pub(crate) struct Admit {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// The public key, in hexadecimal digits
    #[arg(value_name = "PUBLICKEY")]
    key: String,
}

/// Refuse what a writer writes from now on
///
/// Its records up to --last stay: without it, up to the newest that any replica has now, or up to the last
/// one before a proven fork. A revoked writer
/// cannot write "before" its revocation, and is not admitted again: it draws a new key.
#[derive(Args)]
#[command(after_long_help = REVOKE_EXAMPLES)]
pub(crate) struct Revoke {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// Digits of the writer, as `bield capsule heads` shows them
    writer: String,

    /// The newest record that stays
    #[arg(long, value_name = "SEQ")]
    last: Option<u64>,

    /// No record stays
    #[arg(long, conflicts_with = "last")]
    all: bool,
}

/// Seal with a new key from now on
///
/// Makes a new generation: its key is stored in this home before anybody is told of it. Writers seal with
/// it once they have seen the new configuration. Older records stay readable with the older keys.
#[derive(Args)]
#[command(after_long_help = ROTATE_EXAMPLES)]
pub(crate) struct Rotate {
    /// Label, name, or first digits of the capsule
    capsule: String,
}

/// Destroy a key, so that what it opens can never be read again
///
/// The records stay, and stay provable; what they say is gone. With --generation the key of all records
/// of that generation is destroyed, after a new generation was made when it is the newest one, and the
/// configuration says so. With --entry the key of one erasable entry is destroyed (bield capsule append
/// --erasable).
///
/// Copies of the key elsewhere are not reached: other homes and enclaves that were given it, backups,
/// snapshots of disks, and the old blocks of this one until they are overwritten.
#[derive(Args)]
#[command(after_long_help = ERASE_EXAMPLES)]
pub(crate) struct Erase {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// Destroy the key of this generation
    #[arg(
        long,
        value_name = "N",
        required_unless_present = "entry",
        conflicts_with = "entry"
    )]
    generation: Option<u32>,

    /// Destroy the key of this entry
    #[arg(long, value_name = "WRITER/SEQ/INDEX")]
    entry: Option<String>,

    /// It is meant: nothing brings it back
    #[arg(long)]
    yes: bool,
}

impl Admit {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut log = open(home, &self.capsule)?;
        let suite = log.metadata().suite();
        let key = digits(self.key.trim()).and_then(|bytes| PublicKey::from_bytes(suite, &bytes));
        let key = key.ok_or_else(|| {
            Failure::local(format_args!(
                "a public key of this capsule has {} hexadecimal digits: copy what `bield capsule writer` \
                 prints",
                suite.public_key_bytes() * 2
            ))
        })?;
        let head = log.configure(&[Change::admit(&key)])?;
        done(
            &log,
            head,
            &format!("admitted  writer {}", key.id()),
            json!({ "writer": key.id().to_string() }),
            output,
        );
        Ok(())
    }
}

impl Revoke {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut log = open(home, &self.capsule)?;
        let writer = writer(&log, &self.writer)?;
        let last = match (self.all, self.last) {
            (true, _) => None,
            (false, Some(last)) => Some(last),
            (false, None) => {
                // What a quorum acknowledged must stay: enough replicas have to say what there is.
                log.need_fresh()?;
                let heads = log.newest_heads();
                let newest = heads.iter().find(|head| head.writer == writer);
                let newest = newest.map(|head| head.seq);
                match fork(&log, &writer) {
                    // Where two stories begin neither of them stays.
                    Some(seq) if newest >= Some(seq) => seq.checked_sub(1),
                    _ => newest,
                }
            }
        };
        // By hash, and verified: of two stories the right one stays.
        let stays = last.map(|seq| log.head_at(&writer, seq)).transpose()?;
        let change = Change::Revoke {
            writer,
            last: stays.map(Into::into),
        };
        let head = log.configure(&[change])?;
        let stays = last.map_or("nothing it wrote counts".to_owned(), |last| {
            format!("its records up to {last} stay")
        });
        let text = format!("revoked   writer {writer}: {stays}");
        done(
            &log,
            head,
            &text,
            json!({ "writer": writer.to_string(), "last": last }),
            output,
        );
        Ok(())
    }
}

impl Rotate {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut log = open(home, &self.capsule)?;
        let number = log.rotate()?;
        let head = log.config().head();
        let text = format!(
            "generation {number} from now on; its key is in {}",
            log.home().path().display()
        );
        if let Some(head) = head {
            done(&log, head, &text, json!({ "generation": number }), output);
        }
        Ok(())
    }
}

impl Erase {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let mut log = open(home, &self.capsule)?;
        match (self.generation, &self.entry) {
            (Some(generation), _) => self.generation(&mut log, generation, output),
            (None, Some(entry)) => self.entry(&mut log, entry, output),
            (None, None) => Err(Failure::local(
                "name what to erase: --generation or --entry",
            )),
        }
    }

    fn generation(&self, log: &mut Log, generation: u32, output: Output) -> Result<(), Failure> {
        let newest = log.config().generation();
        if generation == 0 || generation > newest {
            return Err(Failure::local(format_args!(
                "there is no generation {generation}: they are numbered 1 to {newest}"
            )));
        }
        self.confirm(&format!(
            "the key of generation {generation}, and with it every record of it"
        ))?;
        let made = (generation == newest).then(|| log.rotate()).transpose()?;
        // First everybody learns that it is gone, then it is: after a failure in between, this
        // command can be repeated.
        if !log.config().erased(generation) {
            log.configure(&[Change::Erase(generation)])?;
        }
        let had = log.home().erase_generation(generation)?;
        let mut text = format!(
            "erased    generation {generation}: {}",
            if had {
                "its key is destroyed in this home"
            } else {
                "its key was not in this home"
            }
        );
        if let Some(made) = made {
            text += &format!("\nsealing   with generation {made} from now on");
        }
        text += COPIES;
        if let Some(head) = log.config().head() {
            let value = json!({ "erased_generation": generation, "destroyed_here": had, "new_generation": made });
            done(log, head, &text, value, output);
        }
        Ok(())
    }

    fn entry(&self, log: &mut Log, entry: &str, output: Output) -> Result<(), Failure> {
        let (writer, seq, index) = place(log, entry)?;
        let index = index.ok_or_else(|| {
            Failure::local(format_args!(
                "{entry:?} is a record: write WRITER/SEQ/INDEX for an entry"
            ))
        })?;
        let place = EntryPlace { writer, seq, index };
        if log.ring().entry(&place).is_none() {
            return Err(Failure::local(format_args!(
                "this home has no key for {}: it was not appended with --erasable from here, or is erased \
                 already",
                place_text(&place)
            )));
        }
        self.confirm(&format!("the key of entry {}", place_text(&place)))?;
        log.home().erase_entry(&place)?;
        output.show(
            &json!({ "erased_entry": entry, "destroyed_here": true }),
            format_args!(
                "erased    entry {}: its key is destroyed in this home{COPIES}",
                place_text(&place)
            ),
        );
        Ok(())
    }

    fn confirm(&self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        Err(Failure::local(format_args!(
            "this destroys {what}: nothing brings it back; repeat with --yes if it is meant"
        )))
    }
}

/// The first position for which any replica proves that the writer signed two records.
fn fork(log: &Log, writer: &WriterId) -> Option<u64> {
    let name = log.metadata().name();
    let replicas = log.replicas().iter();
    let proofs = replicas.flat_map(|replica| replica.forks(&name).unwrap_or_default());
    proofs
        .filter_map(|proof| proof.verify(&name).ok())
        .filter(|fork| fork.writer == *writer)
        .map(|fork| fork.seq)
        .min()
}

/// Shows a change and the config record that made it.
fn done(log: &Log, head: Head, text: &str, mut value: serde_json::Value, output: Output) {
    value["capsule"] = log.metadata().name().to_string().into();
    value["config"] = head.seq.into();
    value["generation"] = log.config().generation().into();
    output.show(
        &value,
        format_args!("{text}\nconfig    record {}", head.seq),
    );
}

fn digits(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

const COPIES: &str =
    "\ncopies    elsewhere are not reached: other homes, enclaves, backups, old disk blocks";

const ADMIT_EXAMPLES: &str = r#"Examples:
  bield capsule admit notes 8f31..."#;

const REVOKE_EXAMPLES: &str = r#"Examples:
  bield capsule revoke notes 5c20
  bield capsule revoke notes 5c20 --last 17"#;

const ROTATE_EXAMPLES: &str = r#"Examples:
  bield capsule rotate notes"#;

const ERASE_EXAMPLES: &str = r#"Examples:
  bield capsule erase notes --generation 1 --yes
  bield capsule erase people --entry me/3/0 --yes"#;
