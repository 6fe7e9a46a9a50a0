//! A wire tap: passes TCP connections on and writes down every byte both ways.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Listens on a free port and passes on to wherever it [leads](Self::lead_to).
///
/// Files: `<name>-<connection>.sent` and `.received`, seen from whoever connects.
pub struct Tap {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    to: Mutex<Option<SocketAddr>>,
    files: PathBuf,
    connections: AtomicU64,
    /// Both ends of what is open, to be cut; those that have closed are let go when others come.
    open: Mutex<Vec<[TcpStream; 2]>>,
    ends: AtomicBool,
}

impl Tap {
    /// Listens; connections are closed until it leads somewhere.
    ///
    /// # Errors
    /// No port, or no directory for the files.
    pub fn open(directory: &Path, name: &str) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            to: Mutex::default(),
            files: directory.join(name),
            connections: AtomicU64::new(0),
            open: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("tap {name}"))
            .spawn(move || accepting.accept(&listener))?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes connections on to `address` from now on.
    pub fn lead_to(&self, address: SocketAddr) {
        *lock(&self.shared.to) = Some(address);
    }

    /// Cuts the line: what is open breaks, and nothing is passed on until it leads somewhere again.
    pub fn cut(&self) {
        *lock(&self.shared.to) = None;
        for stream in lock(&self.shared.open).drain(..).flatten() {
            // Closed by its ends already, or now.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(&self);
            // A connection that breaks is its two ends' affair.
            thread::spawn(move || drop(shared.pass(client)));
        }
    }

    fn pass(&self, client: TcpStream) -> io::Result<()> {
        let to = *lock(&self.to);
        let server = TcpStream::connect(to.ok_or(io::ErrorKind::NotConnected)?)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        {
            let mut open = lock(&self.open);
            open.retain(|[client, server]| {
                client.peer_addr().is_ok() && server.peer_addr().is_ok()
            });
            open.push([client.try_clone()?, server.try_clone()?]);
            // Cut while this one was on its way.
            if lock(&self.to).is_none() {
                return client.shutdown(Shutdown::Both);
            }
        }
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let file = |way: &str| File::create(format!("{}-{number}.{way}", self.files.display()));
        let (sent, received) = (file("sent")?, file("received")?);
        let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
        let back = thread::spawn(move || copy(&back_from, &back_to, received));
        copy(&client, &server, sent);
        drop(back.join());
        Ok(())
    }
}

/// Copies until either end closes; each byte is in the file before it is passed on.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut file: File) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..count];
        if file
            .write_all(bytes)
            .and_then(|()| to.write_all(bytes))
            .is_err()
        {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
