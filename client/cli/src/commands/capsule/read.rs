//! `bield capsule read` and `bield capsule tail`.

use std::collections::VecDeque;
use std::io::{self, Write as _};

use bield_capsule::{Applied, Entries, Entry, EntryPlace, Kind};
use bield_sdk::Home;
use bield_sdk::capsule::{Followed, Log, ReadOptions};
use clap::Args;
use serde_json::{Value, json};

use super::{completeness_json, completeness_text, open, payload_json, place_text, writer};
use crate::failure::Failure;
use crate::output::Output;

/// Read the entries of a capsule, verified
///
/// Every record is verified from its chain's first one on, whichever replica gave it out, and opened with
/// the keys of this home. All writers are read in the order of their clocks, or one with --writer.
///
/// Afterwards it says whether the result is complete: so many replicas named their newest records that
/// nothing which a quorum had acknowledged can be missing. If not, that is said on standard error, and
/// the exit code is still 0: what was read is genuine. If a quorum shows less than this home has seen, that
/// is an error: ROLLED BACK, and the exit code is 1.
#[derive(Args)]
#[command(after_long_help = READ_EXAMPLES)]
pub(crate) struct Read {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// Only this writer: digits, `me`
    #[arg(long, value_name = "WRITER")]
    writer: Option<String>,

    /// From this position of each chain
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: u64,

    /// To this position of each chain, included
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,

    /// Print payloads alone, each followed by a newline
    #[arg(long)]
    raw: bool,
}

/// Show the newest entries, and with -f those that come
///
/// Verified as `bield capsule read` does. With -f the records of one replica are followed; when it breaks
/// or lies the next one is asked. With --json every entry is one line.
#[derive(Args)]
#[command(after_long_help = TAIL_EXAMPLES)]
pub(crate) struct Tail {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// How many entries
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    entries: usize,

    /// Print payloads alone, each followed by a newline
    #[arg(long)]
    raw: bool,
}

impl Read {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let log = open(home, &self.capsule)?;
        let only = self.writer.as_deref().map(|text| writer(&log, text));
        let mut reader = log.read(ReadOptions {
            writer: only.transpose()?,
            from: self.from,
            to: self.to,
            every_signature: false,
        });
        let form = Form::of(output, self.raw);
        if form == Form::Json {
            // One value, which begins with the first entry: no room for it at the end.
            log.need_whole()?;
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut count = 0u64;
        // One JSON value, written as it becomes known: a capsule may be longer than memory.
        if form == Form::Json {
            ended(write!(out, "{{\"entries\":["));
        }
        let mut unreadable = 0;
        for applied in reader.by_ref() {
            for shown in shown(&log, &applied?) {
                unreadable += u64::from(shown.entry.is_err());
                if form == Form::Json && count > 0 {
                    ended(write!(out, ","));
                }
                ended(shown.print(&mut out, form));
                count += 1;
            }
        }
        let found = reader.completeness();
        if form == Form::Json {
            let complete = completeness_json(&found, reader.skipped());
            ended(writeln!(
                out,
                "],\"count\":{count},\"unreadable\":{unreadable},\"completeness\":{complete}}}"
            ));
        }
        ended(out.flush());
        drop(out);
        log.need_whole()?;
        reader.remember()?;
        if form != Form::Json {
            output.note(completeness_text(&found, reader.skipped()));
        }
        Ok(())
    }
}

impl Tail {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let log = open(home, &self.capsule)?;
        let mut reader = log.read(ReadOptions::default());
        let form = Form::of(output, self.raw);
        let mut newest = VecDeque::new();
        for applied in reader.by_ref() {
            newest.extend(shown(&log, &applied?));
            let many = newest.len().saturating_sub(self.entries);
            newest.drain(..many);
        }
        let mut out = io::stdout().lock();
        for shown in newest {
            ended(shown.print_line(&mut out, form));
        }
        ended(out.flush());
        log.need_whole()?;
        reader.remember()?;
        let complete = completeness_text(&reader.completeness(), reader.skipped());
        if form != Form::Json {
            output.note(complete);
        }
        if !self.follow {
            return Ok(());
        }
        let mut follower = reader.follow();
        loop {
            match follower.next_event()? {
                Followed::Record(applied) => {
                    for shown in shown(&log, &applied) {
                        ended(shown.print_line(&mut out, form));
                    }
                    ended(out.flush());
                }
                Followed::Switched(why) => {
                    output.note(format_args!("asking another replica: {why}"))
                }
                _ => {}
            }
        }
    }
}

/// How entries are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Raw,
    Json,
}

impl Form {
    const fn of(output: Output, raw: bool) -> Self {
        match (output.is_json(), raw) {
            (true, _) => Self::Json,
            (false, true) => Self::Raw,
            (false, false) => Self::Text,
        }
    }
}

/// An entry, or why it cannot be shown.
struct Shown {
    place: EntryPlace,
    at: String,
    entry: Result<Vec<u8>, String>,
}

fn shown(log: &Log, applied: &Applied) -> Vec<Shown> {
    let header = applied.record().header();
    if header.kind != Kind::Data {
        return Vec::new();
    }
    let place = |index| EntryPlace {
        writer: header.writer,
        seq: header.seq,
        index,
    };
    let at = header.clock.time().to_string();
    let entry = |index, entry| Shown {
        place: place(index),
        at: at.clone(),
        entry,
    };
    match log.read_entries(applied) {
        Ok(entries) => (0..)
            .zip(payloads(log, &entries))
            .map(|(index, found)| entry(index, found))
            .collect(),
        // All entries of a record that does not open are as one.
        Err(error) => vec![entry(0, Err(error.to_string()))],
    }
}

fn payloads(log: &Log, entries: &Entries) -> Vec<Result<Vec<u8>, String>> {
    let payload = |entry: Entry<'_>| match entry {
        Entry::Plain(payload) => Ok(payload.to_vec()),
        Entry::Erasable(erasable) => erasable
            .open(log.ring())
            .map(|payload| payload.to_vec())
            .map_err(|error| error.to_string()),
    };
    entries.iter().map(payload).collect()
}

impl Shown {
    fn print(&self, out: &mut impl io::Write, form: Form) -> io::Result<()> {
        match (form, &self.entry) {
            (Form::Json, _) => write!(out, "{}", self.to_json()),
            (Form::Raw, Ok(payload)) => out.write_all(payload).and_then(|()| out.write_all(b"\n")),
            (Form::Raw, Err(_)) => Ok(()),
            (Form::Text, Ok(payload)) => {
                writeln!(out, "{}  {}", place_text(&self.place), line(payload))
            }
            (Form::Text, Err(why)) => writeln!(out, "{}  [{why}]", place_text(&self.place)),
        }
    }

    fn print_line(&self, out: &mut impl io::Write, form: Form) -> io::Result<()> {
        self.print(out, form)?;
        if form == Form::Json {
            writeln!(out)?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let mut value = json!({
            "writer": self.place.writer.to_string(),
            "seq": self.place.seq,
            "index": self.place.index,
            "at": self.at,
        });
        match &self.entry {
            Ok(payload) => {
                let (key, payload) = payload_json(payload);
                value[key] = payload;
            }
            Err(why) => value["unreadable"] = why.as_str().into(),
        }
        value
    }
}

/// A payload on one line, safe for a terminal.
fn line(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => text
            .trim_end_matches('\n')
            .chars()
            .flat_map(|c| {
                let escape = c.is_control();
                let plain = (!escape).then_some(c);
                plain
                    .into_iter()
                    .chain(c.escape_default().filter(move |_| escape))
            })
            .collect(),
        Err(_) => format!(
            "{} bytes that are no text; --json or --raw shows them",
            payload.len()
        ),
    }
}

/// A reader that left early has what it wanted.
fn ended(written: io::Result<()>) {
    if written.is_err() {
        std::process::exit(0);
    }
}

const READ_EXAMPLES: &str = r#"Examples:
  bield capsule read notes
  bield capsule read notes --writer me --from 10 --raw
  bield --json capsule read notes"#;

const TAIL_EXAMPLES: &str = r#"Examples:
  bield capsule tail notes
  bield capsule tail notes -f -n 3"#;
