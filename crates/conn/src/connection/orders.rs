//! What a backend wants of a connection, beside its end.

use super::{Connection, Phase};
use crate::auth::token::ServerSide;
use crate::shared::{Cx, Directions, Shared, Urgency};
use crate::transport::websocket::{Fate, Open};
use hub::Since;
use std::time::Duration;

/// A channel, of a namespace that exists, that a backend gives to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The channel, and what goes with it.
    pub to: ServerSide,
    /// When it ends, in Unix seconds; `None`: never.
    pub until: Option<u64>,
    /// Where its clients are in the channel, if the backend knows.
    pub since: Option<Since>,
}

impl Connection {
    /// Ends the subscription to a channel, or the subscribe that is under way. `None`: there was neither.
    pub fn unsubscribe(&mut self, now: Duration, channel: &str, shared: &mut Shared) -> Option<Directions> {
        self.if_open(now, shared, |open, cx| open.unsubscribe(cx, channel))
    }

    /// Subscribes the session to a channel. `None`: it has the channel or is about to have it, or its time is over. A session
    /// that cannot have it is closed.
    pub fn subscribe(&mut self, now: Duration, given: &Given, shared: &mut Shared) -> Option<Directions> {
        self.if_open(now, shared, |open, cx| open.subscribe(cx, given))
    }

    /// Lets the session last until that Unix time in seconds, or for ever.
    pub fn refresh(&mut self, now: Duration, until: Option<u64>, shared: &mut Shared) -> Directions {
        self.with_open(now, Urgency::Reply, shared, |open, cx| -> Fate { open.refresh(cx, until) })
    }

    /// Does something that an open connection may have no use for. `None`: it had none.
    fn if_open(
        &mut self,
        now: Duration,
        shared: &mut Shared,
        work: impl FnOnce(&mut Open, &mut Cx<'_>) -> Option<Fate>,
    ) -> Option<Directions> {
        let was_empty = self.outbox.is_empty();
        let Phase::Open(open) = &mut self.phase else { return None };
        let fate = work(open, &mut Cx { now, shared, outbox: &mut self.outbox })?;
        let end = self.settle(now, fate, shared);
        Some(self.directions(now, was_empty, Urgency::Reply, end, shared))
    }
}
