//! What a worker counts, as `/metrics` shows it.

use crate::stats::{Number, OTHER_CODE, WorkerStats};
use crate::tls::Expiry;
use control::metrics::{
    CertificateInUse, Close, CompressionSample, Messages, Side, SlowDisconnects, TickLengths, WorkerSample,
};

pub(super) fn ending(expiry: &Expiry) -> CertificateInUse {
    CertificateInUse { file: expiry.file.clone(), not_after: expiry.not_after }
}

pub(super) fn worker_sample(stats: &WorkerStats) -> WorkerSample {
    let number = |n: Number| stats.number(n);
    let io = &stats.io;
    let bounds = io::counters::TICK_BUCKETS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets = bounds.zip(io.tick_lengths.iter().map(io::counters::Counter::load)).collect();
    let side = |side| if side == conn::Side::Ours { Side::Server } else { Side::Client };
    WorkerSample {
        connections: number(Number::Connections),
        subscriptions: number(Number::Subscriptions),
        channels: number(Number::Channels),
        history_channels: number(Number::HistoryChannels),
        history_publications: number(Number::HistoryPublications),
        history_bytes: number(Number::HistoryBytes),
        history_evicted: number(Number::HistoryEvicted),
        history_emptied: number(Number::HistoryEmptied),
        history_cut: number(Number::HistoryCut),
        recovered: number(Number::Recovered),
        unrecovered: number(Number::Unrecovered),
        gaps: number(Number::Gaps),
        presence_clients: number(Number::Guests),
        join_leave_announced: number(Number::Announced),
        join_leave_unannounced: number(Number::Unannounced),
        join_leave_pushes: number(Number::JoinLeavePushes),
        join_leave_skipped: number(Number::JoinLeaveSkipped),
        publishes_repeated: number(Number::PublishesRepeated),
        publishes_outdated: number(Number::PublishesOutdated),
        messages_received: number(Number::MessagesIn) + number(Number::HttpRequests),
        messages_sent: number(Number::MessagesOut),
        publications: number(Number::Publications),
        bytes_received: io.read_bytes.load(),
        bytes_sent: io.sent_bytes.load(),
        letters_sent: number(Number::LettersSent),
        letters_refused: number(Number::LettersRefused),
        outbox_dropped: number(Number::OutboxDropped),
        skipped: number(Number::Skipped),
        conflated: number(Number::Conflated),
        slow_disconnects: SlowDisconnects {
            disconnect: number(Number::SlowByFirm),
            conflate: number(Number::SlowByConflated),
            reply: number(Number::SlowByReply),
        },
        commands_refused: number(Number::CommandsRefused),
        rests_for_messages: number(Number::RestsForMessages),
        rests_for_bytes: number(Number::RestsForBytes),
        token_checks: number(Number::Verifications),
        handshakes: number(Number::Handshakes),
        origins_refused: number(Number::OriginsRefused),
        proxy_headers: number(Number::ProxyHeaders),
        proxy_headers_refused: number(Number::ProxyHeadersRefused),
        full_addresses: number(Number::FullAddresses),
        fast_addresses: number(Number::FastAddresses),
        handshakes_refused: number(Number::HandshakesRefused),
        addresses_uncounted: number(Number::AddressesUncounted),
        short_refused: number(Number::HandshakesShort) + io.refused_asked.load(),
        short_subscribes: number(Number::SubscribesShort),
        short_closed: number(Number::Shed),
        compression: compression(stats),
        tls_handshakes: number(Number::TlsHandshakes),
        tls_resumed: number(Number::TlsResumed),
        tls_failed: number(Number::TlsFailed),
        panics: number(Number::Panics),
        accepted: io.accepts.load(),
        refused_full: io.refused_full.load(),
        ticks: TickLengths { buckets, seconds: io.tick_nanoseconds.load() as f64 / 1e9 },
        closes: stats
            .closes()
            .filter(|(_, _, count)| *count > 0)
            .map(|(s, code, count)| Close { side: side(s), code: (code != OTHER_CODE).then_some(code), count })
            .collect(),
    }
}

fn compression(stats: &WorkerStats) -> CompressionSample {
    let number = |n: Number| stats.number(n);
    let messages = |[count, plain, packed]: [Number; 3]| Messages {
        count: number(count),
        plain_bytes: number(plain),
        packed_bytes: number(packed),
    };
    CompressionSample {
        agreed: number(Number::CompressionAgreed),
        refused: number(Number::CompressionRefused),
        publications: number(Number::CompressedPublications),
        publication_runs: number(Number::PublicationCompressions),
        reply_runs: number(Number::ReplyCompressions),
        alone: messages([Number::AloneMessages, Number::AlonePlainBytes, Number::AlonePackedBytes]),
        after: messages([Number::AfterMessages, Number::AfterPlainBytes, Number::AfterPackedBytes]),
        replies: messages([Number::ReplyMessages, Number::ReplyPlainBytes, Number::ReplyPackedBytes]),
        received: messages([Number::InflatedMessages, Number::InflatedPlainBytes, Number::InflatedPackedBytes]),
        as_they_are: number(Number::CompressionUnused),
        history_bytes: number(Number::CompressionHistoryBytes),
        previous_bytes: number(Number::CompressionPreviousBytes),
    }
}
