//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) around a connection, with nothing of ours buffered while it is idle.
//!
//! ```text
//! socket --received--> [arrived] --records--> plaintext --> Http, WebSocket, ...
//! socket <---gather--- [sealed]  <--records-- plaintext <-- outbox
//! ```
//!
//! Records are opened where they were received and sealed when the driver asks for bytes: a record's number is spent when it
//! is sealed, and until then a policy may still drop what would be in it. `arrived` holds the beginning of a record whose end
//! has not come, `sealed` what the kernel has not taken; both are lent by the worker ([`Records`]) and given back empty, so
//! a connection on which nothing happens owns neither.
//!
//! The library is rustls, which draws its randomness from its crypto library and gets the time from whoever made its
//! configuration; everything else here is as pure as the rest of the crate.

mod connection;
mod records;

pub use records::Records;
pub use rustls::ServerConfig;

use crate::outbox::{Outbox, Outboxes};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use std::fmt;
use std::sync::Arc;

/// Bytes of a record that has not arrived whole, or of a handshake message spread over several. The largest record has 18,437
/// bytes, and a client's chain of certificates seldom more than 8 KiB.
pub const ARRIVED_BYTES_MAX: usize = 32 * 1024;

/// Plaintext sealed for one send: three of the largest records, whose ciphertext still fits a send of 64 KiB.
const SEALED_AT_ONCE_MAX: usize = 3 * 16 * 1024;

/// What a record adds to its plaintext at most: header, nonce of TLS 1.2, tag and content type.
const RECORD_OVERHEAD: usize = 64;

/// A connection's TLS.
pub(crate) struct Tls {
    session: UnbufferedServerConnection,
    /// What has come and is no whole record yet, or waits for its turn.
    arrived: Vec<u8>,
    /// What is to be sent, of which the first `taken` bytes are the kernel's.
    sealed: Vec<u8>,
    taken: usize,
    /// Bytes of the outbox that lie sealed in front of `plain_end`.
    plain: usize,
    plain_end: usize,
    stage: Stage,
    /// The worker knows that the handshake waits for its turn.
    is_queued: bool,
    /// Nothing more can be sealed: the keys are used up.
    is_exhausted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has come yet that was TLS.
    Fresh,
    /// The handshake goes on.
    Handshake,
    /// It is done.
    Open,
    /// Our close_notify or alert is sealed.
    Over,
}

/// What came of opening records.
#[derive(Debug, PartialEq)]
enum Opened {
    /// The rest of a record is awaited.
    More,
    /// The client's close_notify came: nothing follows.
    PeerClosed,
    /// It is to be closed; an alert is sealed where one was due.
    Failed(rustls::Error),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arrived, sealed, taken, plain, stage, .. } = self;
        let (arrived, sealed) = (arrived.len(), sealed.len());
        write!(f, "Tls {{ {stage:?}, arrived: {arrived}, sealed: {sealed}, taken: {taken}, plain: {plain} }}")
    }
}

impl Tls {
    /// # Errors
    /// What rustls says about a configuration that is none.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            session: UnbufferedServerConnection::new(config)?,
            arrived: Vec::new(),
            sealed: Vec::new(),
            taken: 0,
            plain: 0,
            plain_end: 0,
            stage: Stage::Fresh,
            is_queued: false,
            is_exhausted: false,
        })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Fresh | Stage::Handshake)
    }

    /// Nothing more can be sealed: the keys are used up.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Memory of records that have not come whole.
    pub(crate) fn input_bytes(&self) -> usize {
        self.arrived.capacity()
    }

    /// Something waits to be sent beside what waits in the outbox.
    pub(crate) fn has_sealed(&self) -> bool {
        self.taken < self.sealed.len()
    }

    /// The worker knows that the handshake waits for its turn; until then nothing is read.
    pub(crate) fn waits_for_its_turn(&self) -> bool {
        self.is_queued
    }

    /// Keeps what came.
    fn keep(&mut self, bytes: &[u8], records: &mut Records) {
        records.lent(&mut self.arrived).extend_from_slice(bytes);
    }

    /// Opens the records in `bytes` behind those that have arrived; their plaintext goes to the end of `plain`.
    fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, records: &mut Records) -> Opened {
        if self.arrived.is_empty() {
            // The usual case: whole records, opened where the driver has put them.
            let (used, opened) = self.open(bytes, plain, records);
            if opened != Opened::More || used == bytes.len() {
                return opened;
            }
            self.keep(&bytes[used..], records);
            return self.unless_too_much();
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.extend_from_slice(bytes);
        let (used, opened) = self.open(&mut arrived, plain, records);
        arrived.drain(..used);
        if arrived.is_empty() || opened != Opened::More {
            records.give_back(arrived);
            return opened;
        }
        self.arrived = arrived;
        self.unless_too_much()
    }

    /// Whether what has arrived can still be the beginning of something.
    fn unless_too_much(&self) -> Opened {
        if self.arrived.len() <= ARRIVED_BYTES_MAX {
            return Opened::More;
        }
        Opened::Failed(rustls::Error::General(format!("more than {ARRIVED_BYTES_MAX} bytes of one handshake message")))
    }

    /// Opens whole records; says how many bytes of them are done with.
    fn open(&mut self, input: &mut [u8], plain: &mut Vec<u8>, records: &mut Records) -> (usize, Opened) {
        let mut used = 0;
        let mut opened = Opened::More;
        loop {
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(&mut input[used..]);
            let mut is_stuck = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(records.lent(&mut self.sealed), &mut data);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => opened = Opened::PeerClosed,
                // Blocked, or ready to write. Early data is never offered.
                Ok(_) => is_stuck = true,
                Err(error) => {
                    opened = Opened::Failed(error);
                    is_stuck = true;
                }
            }
            used += discard;
            if is_stuck {
                break;
            }
        }
        match opened {
            Opened::Failed(_) => {
                self.say_why(records);
                self.stage = Stage::Over;
            }
            _ if self.is_handshaking() => {
                self.stage = if self.session.is_handshaking() { Stage::Handshake } else { Stage::Open };
            }
            _ => {}
        }
        (used, opened)
    }

    /// Seals the alert that a failure has left. Asked for more, the session would go on to read what has failed.
    fn say_why(&mut self, records: &mut Records) {
        while self.session.wants_write() {
            let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { break };
            encode(records.lent(&mut self.sealed), &mut data);
        }
    }

    /// Hands out what is sealed, and seals for it what waits in the outbox. `is_last`: nothing will be queued any more, so the
    /// last of it is followed by close_notify.
    pub(crate) fn gather(
        &mut self,
        (outboxes, outbox): (&mut Outboxes, &mut Outbox),
        records: &mut Records,
        is_last: bool,
        mut take: impl FnMut(&[u8]) -> usize,
    ) {
        if self.stage == Stage::Open && self.plain == 0 && !self.is_exhausted {
            self.seal(outboxes, outbox, records);
            if is_last && outbox.backlog() == self.plain && !self.is_exhausted {
                self.say_goodbye(records);
            }
        }
        if self.has_sealed() {
            take(&self.sealed[self.taken..]);
        }
    }

    /// Seals as much of the outbox as one send carries.
    fn seal(&mut self, outboxes: &mut Outboxes, outbox: &mut Outbox, records: &mut Records) {
        if outbox.is_empty() {
            return;
        }
        let mut plain = records.take_plain();
        outboxes.gather(outbox, |bytes| {
            let taken = bytes.len().min(SEALED_AT_ONCE_MAX - plain.len());
            plain.extend_from_slice(&bytes[..taken]);
            taken
        });
        self.plain = plain.len();
        self.encrypt(&plain, records);
        self.plain_end = self.sealed.len();
        records.put_plain(plain);
    }

    fn encrypt(&mut self, plain: &[u8], records: &mut Records) {
        let room = plain.len() + plain.len().div_ceil(16 * 1024) * RECORD_OVERHEAD;
        self.is_exhausted = !self.write(room, records, |traffic, room| traffic.encrypt(plain, room));
        if self.is_exhausted {
            // rustls has queued a close_notify where there was still a number for it.
            self.say_goodbye(records);
        }
    }

    /// Seals close_notify.
    fn say_goodbye(&mut self, records: &mut Records) {
        self.write(RECORD_OVERHEAD, records, |traffic, room| traffic.queue_close_notify(room));
        self.stage = Stage::Over;
    }

    /// Lets `seal` write, behind whatever the session itself wants to say first. `false`: it cannot.
    fn write(
        &mut self,
        room: usize,
        records: &mut Records,
        mut seal: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> bool {
        let sealed = records.lent(&mut self.sealed);
        loop {
            // The beginning of a record, which stays where it is: the session remembers what it has seen of it.
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(&mut self.arrived);
            let written = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(sealed, &mut data);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => Some(append(sealed, room, |room| {
                    seal(&mut traffic, room).map_err(|error| match error {
                        EncryptError::InsufficientSize(size) => Some(size.required_size),
                        EncryptError::EncryptExhausted => None,
                    })
                })),
                _ => Some(false),
            };
            self.arrived.drain(..discard);
            if let Some(written) = written {
                return written;
            }
        }
    }

    /// The kernel took `bytes` of what was handed out. The outbox gives up what it holds of a send when all of it is gone:
    /// what is sealed can be neither dropped nor sealed again.
    pub(crate) fn sent(
        &mut self,
        bytes: usize,
        (outboxes, outbox): (&mut Outboxes, &mut Outbox),
        records: &mut Records,
    ) {
        self.taken += bytes;
        debug_assert!(self.taken <= self.sealed.len(), "more sent than sealed");
        if self.plain > 0 && self.taken >= self.plain_end {
            outboxes.sent(outbox, self.plain);
            self.plain = 0;
        }
        if self.taken == self.sealed.len() {
            records.give_back(std::mem::take(&mut self.sealed));
            self.taken = 0;
            self.plain_end = 0;
        }
    }

    /// Gives everything back that was lent.
    pub(crate) fn clear(&mut self, records: &mut Records) {
        records.give_back(std::mem::take(&mut self.arrived));
        records.give_back(std::mem::take(&mut self.sealed));
    }
}

/// Appends what the session itself says.
fn encode(out: &mut Vec<u8>, data: &mut EncodeTlsData<'_, ServerConnectionData>) {
    append(out, RECORD_OVERHEAD, |room| {
        data.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Lets `write` fill so many bytes at the end of `out`, or as many as it says that it needs; `Err(None)`: it cannot. Whether
/// it could.
fn append(out: &mut Vec<u8>, room: usize, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> bool {
    let start = out.len();
    out.resize(start + room, 0);
    let mut written = write(&mut out[start..]);
    if let Err(Some(needed)) = written {
        out.resize(start + needed, 0);
        written = write(&mut out[start..]);
    }
    out.truncate(start + written.unwrap_or(0));
    written.is_ok()
}
