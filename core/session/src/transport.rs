//! Frames over rustls over a blocking stream; the only I/O of this crate, all of it the caller's.

use std::io::{ErrorKind, Read, Write};

use rustls::{Connection, ProtocolVersion};
use zeroize::Zeroizing;

use crate::{ALPN, FRAME_HEADER_BYTES, FrameKind, REFUSAL_DETAIL_BYTES_MAX, SessionError};

/// A stream with TLS on it.
pub(crate) struct Transport<S> {
    pub(crate) connection: Connection,
    pub(crate) stream: S,
}

impl<S: Read + Write> Transport<S> {
    /// Runs the TLS handshake to its end.
    pub(crate) fn handshake(
        mut connection: Connection,
        mut stream: S,
    ) -> Result<Self, SessionError> {
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .map_err(SessionError::from_io)?;
        }
        if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3)
            || connection.alpn_protocol() != Some(ALPN)
        {
            Self { connection, stream }.close();
            return Err(SessionError::OtherProtocol);
        }
        Ok(Self { connection, stream })
    }

    /// The certificate the peer showed in the handshake, DER.
    pub(crate) fn peer_certificate(&self) -> Option<Vec<u8>> {
        let shown = self.connection.peer_certificates()?.first()?;
        Some(shown.to_vec())
    }

    /// Sends one frame and flushes it.
    pub(crate) fn send(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), SessionError> {
        let max = kind.bytes_max();
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= max);
        let length = length.ok_or(SessionError::TooLong {
            bytes: payload.len(),
            max,
        })?;
        let mut header = [kind as u8, 0, 0, 0, 0];
        header[1..].copy_from_slice(&length.to_be_bytes());
        // Into rustls' buffer only: header and first payload records leave in one write.
        self.connection
            .writer()
            .write_all(&header)
            .map_err(SessionError::from_io)?;
        let mut rest = payload;
        while !rest.is_empty() {
            let taken = self
                .connection
                .writer()
                .write(rest)
                .map_err(SessionError::from_io)?;
            rest = &rest[taken..];
            self.flush()?;
        }
        self.flush()
    }

    /// Receives one frame; only kind `wanted` gets through.
    pub(crate) fn receive(
        &mut self,
        wanted: FrameKind,
    ) -> Result<Zeroizing<Vec<u8>>, SessionError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        match self.fill(&mut header)? {
            0 => return Err(SessionError::Closed),
            FRAME_HEADER_BYTES => {}
            _ => return Err(SessionError::Truncated),
        }
        let [kind, length @ ..] = header;
        let kind = FrameKind::from_byte(kind).ok_or(SessionError::Malformed(None))?;
        match (kind, wanted) {
            (FrameKind::Data, FrameKind::Gate) => return Err(SessionError::EarlyData),
            (FrameKind::Gate, FrameKind::Data) => {
                return Err(SessionError::OutOfTurn {
                    found: "gate",
                    expected: "data",
                });
            }
            _ => {}
        }
        let (bytes, max) = (u32::from_be_bytes(length) as usize, kind.bytes_max());
        if bytes > max {
            return Err(SessionError::TooLong { bytes, max });
        }
        // At once, so that no unwiped copies stay behind; pages are touched only as bytes arrive.
        let mut payload = Zeroizing::new(vec![0; bytes]);
        if self.fill(&mut payload)? != bytes {
            return Err(SessionError::Truncated);
        }
        Ok(payload)
    }

    /// The gate frame that the peer had sent before it closed, read after a send has failed.
    pub(crate) fn last_words(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        // Past rustls' stream adapter, which would try to send again before it reads.
        while !matches!(self.connection.read_tls(&mut self.stream), Ok(0) | Err(_)) {
            let state = self.connection.process_new_packets().ok()?;
            if state.plaintext_bytes_to_read() >= FRAME_HEADER_BYTES + REFUSAL_BYTES_MAX {
                break;
            }
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        self.connection.reader().read_exact(&mut header).ok()?;
        let [kind, length @ ..] = header;
        let bytes = u32::from_be_bytes(length) as usize;
        if FrameKind::from_byte(kind) != Some(FrameKind::Gate) || bytes > REFUSAL_BYTES_MAX {
            return None;
        }
        let mut payload = Zeroizing::new(vec![0; bytes]);
        self.connection.reader().read_exact(&mut payload).ok()?;
        Some(payload)
    }

    /// Says goodbye in TLS, so that the peer can tell an end from a cut; best effort.
    pub(crate) fn close(&mut self) {
        self.connection.send_close_notify();
        let _ = self.flush();
    }

    /// Reads until `buffer` is full or the peer has closed in good order; returns the bytes read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SessionError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.connection.reader().read(rest) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.read_records()?,
                Err(error) => return Err(SessionError::from_io(error)),
            }
        }
        Ok(filled)
    }

    /// Takes bytes off the stream and through TLS.
    fn read_records(&mut self) -> Result<(), SessionError> {
        match self.connection.read_tls(&mut self.stream) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            // Zero bytes: rustls then reports an end in good order, or a cut.
            read => read.map_err(SessionError::from_io)?,
        };
        let processed = self.connection.process_new_packets();
        // Answers to key updates, and the alert that belongs to an error.
        let flushed = self.flush();
        processed.map_err(SessionError::Tls)?;
        flushed
    }

    fn flush(&mut self) -> Result<(), SessionError> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) => return Err(SessionError::Truncated),
                written => drop(written.map_err(SessionError::from_io)?),
            }
        }
        self.stream.flush().map_err(SessionError::from_io)
    }
}

/// Bytes of an encoded refusal: its detail and a few bytes of CBOR.
const REFUSAL_BYTES_MAX: usize = REFUSAL_DETAIL_BYTES_MAX + 32;
