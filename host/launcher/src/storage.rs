//! Keeps one sealed blob of a program durable.
//!
//! ```text
//! store: state.sealed.new ─write─▶ fsync ─rename─▶ state.sealed ─fsync directory─▶ "stored"
//! ```
//!
//! Always true: `state.sealed` is a blob that was stored whole, whatever moment the machine stops; the
//! program hears "stored" only after it survives that. Whether it is the newest one, the program must check
//! itself: a host can bring back an old blob.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bield_protocol::visit::storage::{BYTES_MAX, FAILED, LOAD, NONE, STORE, STORED};

use crate::record::Pipe;

/// The directory of one program's blob.
pub(crate) struct Storage {
    directory: PathBuf,
    /// One store at a time: two must not share the temporary file.
    turn: Mutex<()>,
}

impl Storage {
    pub(crate) fn new(directory: PathBuf) -> Storage {
        Storage {
            directory,
            turn: Mutex::new(()),
        }
    }

    /// Answers one storage visit whose first byte is already here.
    pub(crate) fn serve(&self, mut visit: Pipe, operation: u8) -> io::Result<()> {
        match operation {
            LOAD => self.load(&mut visit),
            STORE => {
                let mut length = [0; 8];
                visit.read_exact(&mut length)?;
                let length = u64::from_be_bytes(length);
                if length > BYTES_MAX {
                    return Err(io::Error::other(format!(
                        "blob of {length} bytes; the most is {BYTES_MAX}"
                    )));
                }
                let mut blob = Read::take(&mut visit, length);
                let stored = self.store(&mut blob);
                if let Err(error) = &stored {
                    tracing::error!(directory = %self.directory.display(), %error,
                        "the program's state was not stored; free space or fix permissions");
                    // The program reads our answer only after it wrote everything.
                    io::copy(&mut blob, &mut io::sink())?;
                }
                visit.write_all(&[if stored.is_ok() { STORED } else { FAILED }])
            }
            unknown => Err(io::Error::other(format!(
                "unknown storage operation {unknown}"
            ))),
        }
    }

    fn load(&self, visit: &mut Pipe) -> io::Result<()> {
        match File::open(self.directory.join("state.sealed")) {
            Ok(mut file) => {
                visit.write_all(&file.metadata()?.len().to_be_bytes())?;
                visit.send_file(&mut file)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                visit.write_all(&NONE.to_be_bytes())
            }
            // Closing without an answer: "none" would make the program start anew over existing state.
            Err(error) => Err(error),
        }
    }

    fn store(&self, blob: &mut io::Take<&mut Pipe>) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let temporary = self.directory.join("state.sealed.new");
        let mut file = File::create(&temporary)?;
        io::copy(blob, &mut file)?;
        if blob.limit() > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        file.sync_all()?;
        std::fs::rename(&temporary, self.directory.join("state.sealed"))?;
        File::open(&self.directory)?.sync_all()
    }
}
