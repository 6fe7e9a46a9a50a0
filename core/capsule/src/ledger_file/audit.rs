//! All log files of a service, checked without any key: structure, signatures, chain.

use super::{FileEnd, FileHead, FileReader, Flaw, Item, Previous, parse_log_name};
use crate::{
    Applied, Head, Kind, Metadata, Received, RecordError, Refused, Verifier, VerifierPolicy,
};

/// The first thing that is wrong with a log, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogFault {
    /// The name is none of a log file.
    #[error("{name:?} is not the name of a log file; give the files called log-…")]
    Name {
        /// The name given.
        name: String,
    },
    /// The file says something else than its name.
    #[error("{name} holds another part of the log than its name says: files were swapped")]
    Renamed {
        /// The name.
        name: String,
    },
    /// The log is not here from its beginning.
    #[error(
        "the log here begins with record {first} of epoch {epoch}: the records before are at another \
         member, or were removed; check there"
    )]
    Beginning {
        /// The epoch.
        epoch: u32,
        /// The first record here.
        first: u64,
    },
    /// Records are missing between two files.
    #[error("records {expected} to {} of epoch {epoch} are missing: a file was removed or cut", first - 1)]
    Gap {
        /// The epoch.
        epoch: u32,
        /// The next record.
        expected: u64,
        /// The first record of the file given.
        first: u64,
    },
    /// A file of another capsule.
    #[error("{name} belongs to another log than the files before it")]
    OtherLog {
        /// The file.
        name: String,
    },
    /// The next epoch does not continue the one before.
    #[error("epoch {epoch} does not say that it continues the {records} records before it")]
    NotContinued {
        /// The epoch.
        epoch: u32,
        /// Records of the epoch before.
        records: u64,
    },
    /// Bytes were altered.
    #[error("{name} is damaged at byte {offset}, record {index}: {flaw}; restore the file")]
    Damaged {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
        /// Which record belongs there.
        index: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The bytes are no record.
    #[error("record {index} of epoch {epoch} is none: {why}")]
    Record {
        /// The epoch.
        epoch: u32,
        /// Its index.
        index: u64,
        /// What is wrong with it.
        why: RecordError,
    },
    /// The record breaks a rule: signature, chain, rights.
    #[error("record {index} of epoch {epoch} is refused: {why}")]
    Refused {
        /// The epoch.
        epoch: u32,
        /// Its index.
        index: u64,
        /// The rule.
        why: Box<Refused>,
    },
}

/// What was found of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochReport {
    /// The epoch.
    pub epoch: u32,
    /// Its capsule.
    pub metadata: Metadata,
    /// What it says of the epoch before. Whether `previous.root` is the root of the tree over the
    /// `previous.size` records before is for the caller to compare.
    pub previous: Option<Previous>,
    /// Records that passed every check, from index 0.
    pub records: u64,
    /// The newest of them; none when there are no data records yet.
    pub head: Option<Head>,
}

/// Checks log files in the order of their names; does no I/O.
///
/// For each file: [`LogAudit::begin`], [`LogAudit::push`] its bytes in pieces of any size, then
/// [`LogAudit::end`]. Every record's signature is checked, and that it follows its predecessor. What
/// it cannot see without the service's checkpoint: that the newest records are here.
#[derive(Debug, Default)]
pub struct LogAudit {
    epochs: Vec<EpochReport>,
    verifier: Option<Verifier>,
    file: Option<(String, FileReader)>,
    torn: Option<String>,
}

impl LogAudit {
    /// Begins with no file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the next file.
    ///
    /// # Errors
    /// Not a log file's name, or files are missing before it.
    pub fn begin(&mut self, name: &str) -> Result<(), LogFault> {
        let (epoch, first) = parse_log_name(name).ok_or_else(|| LogFault::Name {
            name: name.to_owned(),
        })?;
        match self.epochs.last() {
            Some(last) if last.epoch == epoch && first != last.records => {
                return Err(LogFault::Gap {
                    epoch,
                    expected: last.records,
                    first,
                });
            }
            Some(last) if last.epoch == epoch => {}
            _ if first != 0 => return Err(LogFault::Beginning { epoch, first }),
            _ => {}
        }
        self.file = Some((name.to_owned(), FileReader::new()));
        Ok(())
    }

    /// Takes the next bytes of the file; `each` is shown every record that passed, with its index: the
    /// leaf of the log's tree is its header hash.
    ///
    /// # Errors
    /// The first fault. What came before it stays in the report.
    pub fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(u64, &Applied),
    ) -> Result<(), LogFault> {
        let Some((name, mut reader)) = self.file.take() else {
            return Ok(());
        };
        reader.push(bytes);
        loop {
            match reader.next_item() {
                Item::Wants => break,
                Item::Head(head) => self.head(&name, *head)?,
                Item::Record { index, record, .. } => self.record(index, record, each)?,
            }
        }
        self.file = Some((name, reader));
        Ok(())
    }

    /// Ends the file. Only the last file of an epoch may end inside a frame: an append that nobody was
    /// told of.
    ///
    /// # Errors
    /// Damage.
    pub fn end(&mut self) -> Result<(), LogFault> {
        let Some((name, reader)) = self.file.take() else {
            return Ok(());
        };
        match reader.finish() {
            FileEnd::Clean { .. } => {}
            FileEnd::Torn { .. } => self.torn = Some(name),
            FileEnd::Damaged {
                offset,
                index,
                flaw,
            } => {
                return Err(LogFault::Damaged {
                    name,
                    offset,
                    index: index.unwrap_or(0),
                    flaw,
                });
            }
        }
        Ok(())
    }

    /// What was found so far, by epoch.
    #[must_use]
    pub fn epochs(&self) -> &[EpochReport] {
        &self.epochs
    }

    /// The newest file that ends inside a frame.
    #[must_use]
    pub fn torn(&self) -> Option<&str> {
        self.torn.as_deref()
    }

    fn head(&mut self, name: &str, head: FileHead) -> Result<(), LogFault> {
        if parse_log_name(name) != Some((head.epoch, head.first)) {
            let name = name.to_owned();
            return Err(LogFault::Renamed { name });
        }
        let epoch = head.epoch;
        match self.epochs.last() {
            Some(last) if last.epoch == epoch => {
                if (&last.metadata, last.previous) != (&head.metadata, head.previous) {
                    let name = name.to_owned();
                    return Err(LogFault::OtherLog { name });
                }
                return Ok(());
            }
            Some(last) => {
                let continues = head.previous.is_some_and(|previous| {
                    previous.capsule == last.metadata.name() && previous.size <= last.records
                });
                if !continues || last.epoch + 1 != epoch {
                    let records = last.records;
                    return Err(LogFault::NotContinued { epoch, records });
                }
            }
            None => {}
        }
        let policy = VerifierPolicy {
            writers_max: 1,
            ..VerifierPolicy::default()
        };
        self.verifier = Some(Verifier::new(head.metadata.clone(), policy));
        self.epochs.push(EpochReport {
            epoch,
            metadata: head.metadata,
            previous: head.previous,
            records: 0,
            head: None,
        });
        Ok(())
    }

    fn record(
        &mut self,
        index: u64,
        bytes: Vec<u8>,
        each: &mut dyn FnMut(u64, &Applied),
    ) -> Result<(), LogFault> {
        let (Some(report), Some(verifier)) = (self.epochs.last_mut(), self.verifier.as_mut())
        else {
            return Ok(()); // a reader gives the head first
        };
        let epoch = report.epoch;
        let record =
            Received::decode(bytes).map_err(|why| LogFault::Record { epoch, index, why })?;
        let applied = verifier
            .verify(record)
            .and_then(|verified| verifier.apply(verified))
            .map_err(|why| LogFault::Refused {
                epoch,
                index,
                why: Box::new(why),
            })?;
        report.records = index + 1;
        if applied.record().header().kind == Kind::Data {
            report.head = Some(applied.record().head());
        }
        each(index, &applied);
        Ok(())
    }
}
