//! Every error code and disconnect code a client can be told, with its words, in one place.
//!
//! The numbers and texts are Centrifugo's, so that its SDKs act on them: an *error* answers one command and keeps
//! the connection; a *disconnect* closes it (3000-3499 and 4000-4499: come back; 3500-3999 and 4500-4999: stay away).

use std::borrow::Cow;

/// Why we end a connection; becomes the close code and reason, or a `disconnect` push where there is no close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// 1000-1015 (RFC 6455) or 3000-4999.
    pub code: u16,
    /// At most 123 bytes reach the client; ours are at most 32 ASCII characters.
    pub reason: Cow<'static, str>,
}

impl Disconnect {
    /// The codes that a backend may close with from a webhook; the others have their meaning for SDKs.
    pub const BACKEND_CODES: std::ops::Range<u16> = 4000..5000;

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// The node is being drained; clients come back to another one, or to this one later.
    pub const SHUTDOWN: Self = Self::new(3001, "shutdown");
    /// A fault of ours.
    pub const INTERNAL: Self = Self::new(3004, "internal server error");
    /// The outbox limit was reached: the client reads slower than its channels publish.
    pub const SLOW: Self = Self::new(3008, "slow");
    /// No byte of a waiting backlog was taken for the write timeout.
    pub const WRITE_ERROR: Self = Self::new(3009, "write error");
    /// The token's time is over, and no other came.
    pub const EXPIRED: Self = Self::new(3005, "connection expired");
    /// The same of a subscription that the client did not ask for, or a token for one that had ended.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::new(3006, "subscription expired");
    /// Publications had to be held back for longer than the limits allow; the client starts afresh.
    pub const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    /// A ping was not answered in time.
    pub const NO_PONG: Self = Self::new(3012, "no pong");
    /// Commands came faster than `client.commands_per_second` although they were refused.
    pub const TOO_MANY_REQUESTS: Self = Self::new(3013, "too many requests");
    /// A connection token that we cannot accept.
    pub const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    /// The client broke the protocol, or brought no credentials where some are needed.
    pub const BAD_REQUEST: Self = Self::new(3501, "bad request");
    /// No connect command within `client.stale_close_delay`.
    pub const STALE: Self = Self::new(3502, "stale");
    /// A backend asked for it through the API and named no code.
    pub const FORCE_NO_RECONNECT: Self = Self::new(3503, "force disconnect");
    /// More connections of one user than `client.connections_per_user_max`.
    pub const CONNECTION_LIMIT: Self = Self::new(3504, "connection limit");
    /// More channels wanted at connect than `client.channels_max`.
    pub const CHANNEL_LIMIT: Self = Self::new(3505, "channel limit");
    /// A unidirectional client is refused what it is connecting for.
    pub const PERMISSION_DENIED: Self = Self::new(3507, "permission denied");
    /// The command exists in the protocol, and nobody here handles it.
    pub const NOT_AVAILABLE: Self = Self::new(3508, "not available");
}

/// Why we end one subscription; becomes an `unsubscribe` push. From 2500 on the SDK subscribes again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// Centrifugo's number.
    pub code: u16,
    /// Centrifugo's words.
    pub reason: &'static str,
}

impl Unsubscribed {
    /// A backend asked for it; the client stays away.
    pub const BY_SERVER: Self = Self { code: 2000, reason: "server unsubscribe" };
    /// A positioned subscription has missed something; the client recovers it.
    pub const INSUFFICIENT_STATE: Self = Self { code: 2500, reason: "insufficient state" };
    /// The token's time is over, and no other came; the client fetches one.
    pub const EXPIRED: Self = Self { code: 2501, reason: "subscription expired" };
}

/// The answer to one command that failed; the connection stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// Centrifugo's number, or one of the backend's.
    pub code: u16,
    /// Centrifugo's words, or the backend's.
    pub message: Cow<'static, str>,
    /// The SDK tries again by itself.
    pub temporary: bool,
}

impl ClientError {
    const fn new(code: u16, message: &'static str, temporary: bool) -> Self {
        Self { code, message: Cow::Borrowed(message), temporary }
    }

    /// The codes that a backend may answer with; the others have their meaning for SDKs.
    pub const BACKEND_CODES: std::ops::Range<u16> = 400..2000;

    /// A fault of ours or of the backend, or a full mailbox: worth another try.
    pub const INTERNAL: Self = Self::new(100, "internal server error", true);
    /// The channel's namespace is not configured.
    pub const UNKNOWN_CHANNEL: Self = Self::new(102, "unknown channel", false);
    /// The namespace does not allow this to this client.
    pub const PERMISSION_DENIED: Self = Self::new(103, "permission denied", false);
    /// Subscribed to that channel, or about to be.
    pub const ALREADY_SUBSCRIBED: Self = Self::new(105, "already subscribed", false);
    /// More subscriptions than `client.channels_max`.
    pub const LIMIT_EXCEEDED: Self = Self::new(106, "limit exceeded", false);
    /// The command's fields make no sense.
    pub const BAD_REQUEST: Self = Self::new(107, "bad request", false);
    /// The feature is off here.
    pub const NOT_AVAILABLE: Self = Self::new(108, "not available", false);
    /// The token counts no more, or not yet; the client fetches another one.
    pub const TOKEN_EXPIRED: Self = Self::new(109, "token expired", false);
    /// The token counts, and what it grants is over already.
    pub const EXPIRED: Self = Self::new(110, "expired", false);
    /// The answer does not fit what waits for the client already, or commands came faster than they may: worth another try.
    pub const TOO_MANY_REQUESTS: Self = Self::new(111, "too many requests", true);
    /// The position that the client names is gone.
    pub const UNRECOVERABLE_POSITION: Self = Self::new(112, "unrecoverable position", false);

    /// What a unidirectional client is told instead, which gets no replies.
    pub(crate) fn as_disconnect(&self) -> Disconnect {
        match self.code {
            code if code == Self::TOKEN_EXPIRED.code || code == Self::EXPIRED.code => Disconnect::EXPIRED,
            code if code == Self::PERMISSION_DENIED.code => Disconnect::PERMISSION_DENIED,
            // What a backend calls an error for good would be asked for again and again.
            code if code >= Self::BACKEND_CODES.start && !self.temporary => Disconnect::PERMISSION_DENIED,
            _ => Disconnect::INTERNAL,
        }
    }
}
