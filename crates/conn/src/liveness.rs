//! Is the peer still there? Deadlines of an open connection while it reads what we send.

use crate::moment::Moment;
use std::time::Duration;

/// What the connection waits for next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Liveness {
    /// The connect command; when it fires the connection is stale (3502).
    Connect {
        /// The last moment.
        by: Moment,
    },
    /// Nothing; when it fires a ping is sent.
    Ping {
        /// When to send it.
        at: Moment,
    },
    /// The answer to a ping; when it fires the peer is gone (3012).
    Pong {
        /// The last moment.
        by: Moment,
        /// When the next ping would be sent.
        next_ping: Moment,
    },
    /// The answer to a ping is overdue, and whether it waits unread is being looked at: when nothing waits, or when this
    /// fires, the peer is gone (3012).
    Overdue {
        /// The last moment for a peer of which something else waited unread.
        until: Moment,
        /// When the next ping would be sent.
        next_ping: Moment,
    },
}

impl Liveness {
    /// The moment at which something has to happen.
    pub(crate) fn deadline(self) -> Moment {
        match self {
            Self::Connect { by } | Self::Pong { by, .. } => by,
            Self::Overdue { until, .. } => until,
            Self::Ping { at } => at,
        }
    }

    /// A ping goes out now.
    pub(crate) fn pinged(&mut self, now: Duration, interval: Duration, timeout: Duration) {
        *self = Self::Pong { by: Moment::after(now, timeout), next_ping: Moment::after(now, interval) };
    }

    /// No pong came in time; it may wait unread.
    pub(crate) fn overdue(&mut self, now: Duration, timeout: Duration) {
        if let Self::Pong { next_ping, .. } = *self {
            *self = Self::Overdue { until: Moment::after(now, timeout), next_ping };
        }
    }

    /// A pong arrived. `false`: no ping was outstanding.
    pub(crate) fn ponged(&mut self) -> bool {
        match *self {
            Self::Pong { next_ping, .. } | Self::Overdue { next_ping, .. } => {
                *self = Self::Ping { at: next_ping };
                true
            }
            Self::Connect { .. } | Self::Ping { .. } => false,
        }
    }

    /// Reading was paused and begins again: the pong may have waited unread.
    pub(crate) fn resumed(&mut self, now: Duration, timeout: Duration) {
        if let Self::Pong { by, .. } | Self::Overdue { until: by, .. } = self {
            *by = (*by).max(Moment::after(now, timeout));
        }
    }
}
