//! What a worker counts, readable by the control thread: numbers with a single writer, copied out once per tick.

use crate::mailbox::Counts;
use conn::{CloseReport, Counters, Side};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One worker's numbers, as of the end of its last tick.
#[derive(Debug)]
pub struct WorkerStats {
    numbers: [AtomicU64; Number::COUNT],
    closes: [AtomicU64; CLOSE_CODES.len() * 2],
    /// The driver's own counters.
    pub io: Arc<io::Counters>,
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Number { $($(#[$doc])* $name,)* }

        impl Number {
            /// How many there are.
            pub const COUNT: usize = [$(Number::$name),*].len();
        }
    };
}

numbers! {
    /// Open connections.
    Connections,
    /// Live subscriptions.
    Subscriptions,
    /// Channels numbered here that have subscribers.
    Channels,
    /// Channels with a history.
    HistoryChannels,
    /// Publications kept.
    HistoryPublications,
    /// What they cost.
    HistoryBytes,
    /// Idle channels forgotten to make room.
    HistoryEvicted,
    /// Idle channels emptied to make room.
    HistoryEmptied,
    /// Publications not kept as long as they should be, for want of room.
    HistoryCut,
    /// Subscriptions that recovered.
    Recovered,
    /// Subscriptions that wanted to and could not.
    Unrecovered,
    /// Runs of missed publications encoded for recoveries.
    RecoveriesEncoded,
    /// Recoveries that used an encoding made before.
    RecoveriesShared,
    /// Positioned subscriptions ended because something was missing.
    Gaps,
    /// Publishes answered from an idempotency key.
    PublishesRepeated,
    /// Publishes left out because of their version.
    PublishesOutdated,
    /// Subscriptions that homes know by name.
    Guests,
    /// Joins and leaves that homes announced.
    Announced,
    /// Joins and leaves that homes left out.
    Unannounced,
    /// Joins and leaves queued for a subscriber each.
    JoinLeavePushes,
    /// Joins and leaves not queued for slow subscribers.
    JoinLeaveSkipped,
    /// Publications numbered here.
    Publications,
    /// Panics caught inside connections.
    Panics,
    /// Notices for the backend dropped for want of room.
    NoticesDropped,
    /// Whole client messages.
    MessagesIn,
    /// HTTP requests without an upgrade.
    HttpRequests,
    /// Frames queued for one client each.
    MessagesOut,
    /// Publications made into frames: at most once per publication and encoding.
    Encodings,
    /// Commands refused because they came too fast.
    CommandsRefused,
    /// Times that a client's input rested because frames came too fast.
    RestsForMessages,
    /// Times that it rested because bytes did.
    RestsForBytes,
    /// Tokens of clients whose signature was checked.
    Verifications,
    /// Users with a name, and the sessions that they have.
    Users,
    /// See there.
    UserSessions,
    /// Handshakes answered with 101.
    Handshakes,
    /// Handshakes refused for their Origin.
    OriginsRefused,
    /// Headers of the PROXY protocol that were taken.
    ProxyHeaders,
    /// Connections refused for want of a good one from a trusted proxy.
    ProxyHeadersRefused,
    /// Turned away because their address has as many connections as it may.
    FullAddresses,
    /// Handshakes refused because they came too soon after others of their address.
    FastAddresses,
    /// Handshakes refused because all clients together made too many.
    HandshakesRefused,
    /// Not counted for want of room in a table.
    AddressesUncounted,
    /// Handshakes refused because the process held as much as it may.
    HandshakesShort,
    /// Subscribes refused for that.
    SubscribesShort,
    /// Connections closed for that.
    Shed,
    /// TLS handshakes completed.
    TlsHandshakes,
    /// Of these, shortened by a ticket.
    TlsResumed,
    /// TLS connections ended because of what the client sent.
    TlsFailed,
    /// Letters sent.
    LettersSent,
    /// Letters refused.
    LettersRefused,
    /// Sessions that have connected and are still here.
    Sessions,
    /// Outbox entries dropped unsent.
    OutboxDropped,
    /// Publications left out for slow clients.
    Skipped,
    /// Publications replaced by newer ones for slow clients.
    Conflated,
    /// Clients closed as slow by a publication that no policy may drop.
    SlowByFirm,
    /// Clients closed as slow by the newest values alone.
    SlowByConflated,
    /// Clients closed as slow by their own replies.
    SlowByReply,
    /// Connections that agreed on compression.
    CompressionAgreed,
    /// Connections that would have, had there been room for their history.
    CompressionRefused,
    /// Publications compressed at all, once per encoding.
    CompressedPublications,
    /// Runs of the compressor for publications.
    PublicationCompressions,
    /// Runs of the compressor for replies.
    ReplyCompressions,
    /// Publications sent compressed by themselves.
    AloneMessages,
    /// Their payloads without compression.
    AlonePlainBytes,
    /// Their payloads as sent.
    AlonePackedBytes,
    /// Publications sent compressed after the one before.
    AfterMessages,
    /// Their payloads without compression.
    AfterPlainBytes,
    /// Their payloads as sent.
    AfterPackedBytes,
    /// Replies sent compressed.
    ReplyMessages,
    /// Their payloads without compression.
    ReplyPlainBytes,
    /// Their payloads as sent.
    ReplyPackedBytes,
    /// Messages that clients sent compressed.
    InflatedMessages,
    /// Their payloads inflated.
    InflatedPlainBytes,
    /// Their payloads as received.
    InflatedPackedBytes,
    /// Messages sent as they are to connections that agreed on compression.
    CompressionUnused,
    /// Bytes reserved for what clients' messages refer to.
    CompressionHistoryBytes,
    /// Bytes of publications kept because the next ones refer to them.
    CompressionPreviousBytes,
}

/// What a worker hands over once per tick.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Users with a name, and their sessions.
    pub users: conn::users::UserCounts,
    /// Open connections.
    pub connections: u64,
    /// Live subscriptions.
    pub subscriptions: u64,
    /// Channels numbered that have subscribers.
    pub channels: u64,
    /// What is kept of channels.
    pub stock: hub::Stock,
    /// What the home has counted.
    pub home: hub::HomeCounts,
    /// Subscriptions that the home knows by name.
    pub guests: u64,
    /// What the home has done about them.
    pub presence: hub::PresenceCounts,
    /// Publications numbered.
    pub publications: u64,
    /// Panics caught.
    pub panics: u64,
    /// Notices for the backend dropped here.
    pub notices_dropped: u64,
    /// Outbox entries dropped unsent.
    pub outbox_dropped: u64,
    /// Of these, left out for slow clients.
    pub skipped: u64,
    /// Of these, replaced by newer ones.
    pub conflated: u64,
    /// What the connections counted.
    pub connections_counters: Counters,
    /// How often encodings of what was missed were made and shared.
    pub recoveries: conn::recoveries::Counts,
    /// What compression did and holds.
    pub compression: Compressed,
    /// What the mailbox counted.
    pub letters: Counts,
}

/// What a worker's compression did and holds.
#[derive(Clone, Copy, Debug)]
pub struct Compressed {
    /// What was sent.
    pub sent: conn::compression::Counts,
    /// What came compressed.
    pub received: wire::ws::deflate::Counts,
    /// Reserved for what clients' messages refer to.
    pub history_bytes: usize,
    /// Publications kept.
    pub previous_bytes: usize,
}

impl WorkerStats {
    /// All zero.
    pub fn new(io: Arc<io::Counters>) -> Self {
        Self {
            numbers: std::array::from_fn(|_| AtomicU64::new(0)),
            closes: std::array::from_fn(|_| AtomicU64::new(0)),
            io,
        }
    }

    /// One number.
    pub fn number(&self, number: Number) -> u64 {
        self.numbers[number as usize].load(Relaxed)
    }

    /// Ended connections as (side, code, count); codes that are not ours to name are under [`OTHER_CODE`]: clients may send
    /// any.
    pub fn closes(&self) -> impl Iterator<Item = (Side, u16, u64)> + '_ {
        [Side::Ours, Side::Peer].into_iter().enumerate().flat_map(move |(row, side)| {
            CLOSE_CODES
                .iter()
                .enumerate()
                .map(move |(column, &code)| (side, code, self.closes[row * CLOSE_CODES.len() + column].load(Relaxed)))
        })
    }

    pub(crate) fn publish(&self, totals: &Totals) {
        let counters = &totals.connections_counters;
        let set = |number: Number, value: u64| self.numbers[number as usize].store(value, Relaxed);
        set(Number::Connections, totals.connections);
        set(Number::Subscriptions, totals.subscriptions);
        set(Number::Channels, totals.channels);
        set(Number::HistoryChannels, totals.stock.channels as u64);
        set(Number::HistoryPublications, totals.stock.publications as u64);
        set(Number::HistoryBytes, totals.stock.bytes as u64);
        set(Number::HistoryEvicted, totals.home.evicted);
        set(Number::HistoryEmptied, totals.home.emptied);
        set(Number::HistoryCut, totals.home.cut);
        // What was found at home and did not fit the reply was not recovered in the end; both are of this worker only in sum.
        set(Number::Recovered, totals.home.recovered);
        set(Number::Unrecovered, totals.home.unrecovered + counters.recoveries_too_large);
        set(Number::RecoveriesEncoded, totals.recoveries.encoded);
        set(Number::RecoveriesShared, totals.recoveries.shared);
        set(Number::Gaps, counters.gaps);
        set(Number::PublishesRepeated, totals.home.repeated);
        set(Number::PublishesOutdated, totals.home.outdated);
        set(Number::Guests, totals.guests);
        set(Number::Announced, totals.presence.announced);
        set(Number::Unannounced, totals.presence.unannounced);
        set(Number::JoinLeavePushes, counters.join_leave_pushes);
        set(Number::JoinLeaveSkipped, counters.join_leave_skipped);
        set(Number::Publications, totals.publications);
        set(Number::Panics, totals.panics);
        set(Number::NoticesDropped, totals.notices_dropped);
        set(Number::MessagesIn, counters.messages_in);
        set(Number::HttpRequests, counters.http_requests);
        set(Number::MessagesOut, counters.messages_out);
        set(Number::Encodings, counters.encodings);
        set(Number::CommandsRefused, counters.commands_refused);
        set(Number::RestsForMessages, counters.rests_for_messages);
        set(Number::RestsForBytes, counters.rests_for_bytes);
        set(Number::Verifications, counters.verifications);
        set(Number::Users, totals.users.users);
        set(Number::UserSessions, totals.users.sessions);
        set(Number::Handshakes, counters.handshakes);
        set(Number::OriginsRefused, counters.origins_refused);
        set(Number::ProxyHeaders, counters.proxy_headers);
        set(Number::ProxyHeadersRefused, counters.proxy_headers_refused);
        set(Number::FullAddresses, counters.full_addresses);
        set(Number::FastAddresses, counters.fast_addresses);
        set(Number::HandshakesRefused, counters.handshakes_refused);
        set(Number::AddressesUncounted, counters.addresses_uncounted);
        set(Number::HandshakesShort, counters.handshakes_short);
        set(Number::SubscribesShort, counters.subscribes_short);
        set(Number::Shed, counters.shed);
        set(Number::TlsHandshakes, counters.tls_handshakes);
        set(Number::TlsResumed, counters.tls_resumed);
        set(Number::TlsFailed, counters.tls_failed);
        set(Number::LettersSent, totals.letters.sent);
        set(Number::LettersRefused, totals.letters.refused);
        set(Number::Sessions, counters.sessions);
        set(Number::OutboxDropped, totals.outbox_dropped);
        set(Number::Skipped, totals.skipped);
        set(Number::Conflated, totals.conflated);
        set(Number::SlowByFirm, counters.slow_by_firm);
        set(Number::SlowByConflated, counters.slow_by_conflated);
        set(Number::SlowByReply, counters.slow_by_reply);
        self.publish_compression(&totals.compression);
    }

    fn publish_compression(&self, totals: &Compressed) {
        let set = |number: Number, value: u64| self.numbers[number as usize].store(value, Relaxed);
        let Compressed { sent, received, .. } = totals;
        set(Number::CompressionAgreed, sent.agreed);
        set(Number::CompressionRefused, sent.refused);
        set(Number::CompressedPublications, sent.publications);
        set(Number::PublicationCompressions, sent.publication_runs);
        set(Number::ReplyCompressions, sent.reply_runs);
        set(Number::AloneMessages, sent.alone.messages);
        set(Number::AlonePlainBytes, sent.alone.bytes_before);
        set(Number::AlonePackedBytes, sent.alone.bytes_after);
        set(Number::AfterMessages, sent.after.messages);
        set(Number::AfterPlainBytes, sent.after.bytes_before);
        set(Number::AfterPackedBytes, sent.after.bytes_after);
        set(Number::ReplyMessages, sent.replies.messages);
        set(Number::ReplyPlainBytes, sent.replies.bytes_before);
        set(Number::ReplyPackedBytes, sent.replies.bytes_after);
        set(Number::InflatedMessages, received.messages);
        set(Number::InflatedPlainBytes, received.bytes_after);
        set(Number::InflatedPackedBytes, received.bytes_before);
        set(Number::CompressionUnused, sent.as_they_are);
        set(Number::CompressionHistoryBytes, totals.history_bytes as u64);
        set(Number::CompressionPreviousBytes, totals.previous_bytes as u64);
    }
}

/// Codes with a count of their own; the last takes all others.
const CLOSE_CODES: [u16; 29] = [
    0, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 3000, 3001, 3004, 3005, 3008, 3009, 3010, 3011,
    3012, 3013, 3500, 3501, 3502, 3503, 3504, 3505, 3508, OTHER_CODE,
];

/// Stands for every code without a count of its own. No close frame may carry it.
pub const OTHER_CODE: u16 = 1;

/// The worker's own copy of the close counts.
#[derive(Debug)]
pub struct Closes {
    counts: [u64; CLOSE_CODES.len() * 2],
    changed: bool,
}

impl Default for Closes {
    fn default() -> Self {
        Self { counts: [0; CLOSE_CODES.len() * 2], changed: false }
    }
}

impl Closes {
    pub(crate) fn count(&mut self, report: &CloseReport) {
        let row = usize::from(report.side == Side::Peer);
        let column = CLOSE_CODES.iter().position(|&code| code == report.code).unwrap_or(CLOSE_CODES.len() - 1);
        self.counts[row * CLOSE_CODES.len() + column] += 1;
        self.changed = true;
    }

    pub(crate) fn publish(&mut self, stats: &WorkerStats) {
        if std::mem::take(&mut self.changed) {
            stats.closes.iter().zip(&self.counts).for_each(|(shared, own)| shared.store(*own, Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_are_counted_by_side_and_code() {
        let stats = WorkerStats::new(Arc::default());
        let mut closes = Closes::default();
        for (side, code) in [(Side::Ours, 3008), (Side::Peer, 3008), (Side::Peer, 4321), (Side::Peer, 4999)] {
            closes.count(&CloseReport { side, code, reason: "".into(), client: None, user: None });
        }
        closes.publish(&stats);
        let seen: Vec<_> = stats.closes().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(seen, [(Side::Ours, 3008, 1), (Side::Peer, 3008, 1), (Side::Peer, OTHER_CODE, 2)]);
    }
}
