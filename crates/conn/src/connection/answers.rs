//! What comes from the hub for a connection: answers to what its client asked, and what it has to hold back.

use super::{Connection, Phase};
use crate::disconnect::ClientError;
use crate::session::Held;
use crate::shared::{Cx, Directions, Shared, Urgency};
use crate::transport::websocket::{Fate, Open};
use crate::webhook::Answer;
use hub::{Announcement, HistoryPage, LocalId, Presence, Publication, Subscribed, SubscriberId};
use std::sync::Arc;
use std::time::Duration;

impl Connection {
    /// Keeps a publication for a subscription that is not announced yet.
    pub fn hold(&mut self, now: Duration, publication: &Arc<Publication>, shared: &mut Shared) -> Directions {
        self.hold_back(now, Held::Publication(Arc::clone(publication)), shared)
    }

    /// The same for who has come or gone.
    pub fn hold_announcement(&mut self, now: Duration, held: &Arc<Announcement>, shared: &mut Shared) -> Directions {
        self.hold_back(now, Held::Announcement(Arc::clone(held)), shared)
    }

    fn hold_back(&mut self, now: Duration, held: Held, shared: &mut Shared) -> Directions {
        let was_empty = self.outbox.is_empty();
        let limits = &shared.settings.limits;
        let end = match &mut self.phase {
            Phase::Open(open) => match open.hold(held, limits.held_publications_max, limits.held_bytes_max) {
                Ok(()) => None,
                Err(why) => self.disconnect_now(now, why, shared),
            },
            _ => None,
        };
        self.directions(now, was_empty, Urgency::Reply, end, shared)
    }

    /// The worker counts the pending subscriber of that sequence under `local`.
    pub fn subscription_begun(&mut self, sequence: u32, local: LocalId) {
        if let Phase::Open(open) = &mut self.phase {
            open.subscription_begun(sequence, local);
        }
    }

    /// The home has answered a subscribe. Says first whether the connection has become a member in `Shared::local`: it may
    /// decline what the home has granted. `None`: the answer is stale, nobody became a member.
    pub fn subscription_answered(
        &mut self,
        now: Duration,
        me: SubscriberId,
        sequence: u32,
        answer: Result<Subscribed, ClientError>,
        shared: &mut Shared,
    ) -> Option<(bool, Directions)> {
        let was_empty = self.outbox.is_empty();
        let Phase::Open(open) = &mut self.phase else { return None };
        let cx = &mut Cx { now, shared, outbox: &mut self.outbox };
        let (is_member, fate) = open.subscription_answered(cx, me, sequence, answer)?;
        let end = self.settle(now, fate, shared);
        Some((is_member, self.directions(now, was_empty, Urgency::Reply, end, shared)))
    }

    /// A positioned subscription has missed something before the next publication: it ends, and the client is told why.
    pub fn missed_something(&mut self, now: Duration, local: LocalId, shared: &mut Shared) -> Directions {
        self.with_open(now, Urgency::Broadcast, shared, |open, cx| open.missed_something(cx, local))
    }

    /// The home has answered a history command.
    pub fn history_read(
        &mut self,
        now: Duration,
        command: u32,
        answer: Result<HistoryPage, ClientError>,
        shared: &mut Shared,
    ) -> Directions {
        self.with_open(now, Urgency::Reply, shared, |open, cx| open.history_read(cx, command, answer))
    }

    /// The home has answered a presence command.
    pub fn presence_read(
        &mut self,
        now: Duration,
        command: u32,
        answer: Result<Presence, ClientError>,
        shared: &mut Shared,
    ) -> Directions {
        self.with_open(now, Urgency::Reply, shared, |open, cx| open.presence_read(cx, command, answer))
    }

    /// The backend has answered a question.
    pub fn backend_answered(&mut self, now: Duration, number: u32, answer: Answer, shared: &mut Shared) -> Directions {
        self.with_open(now, Urgency::Reply, shared, |open, cx| open.backend_answered(cx, number, answer))
    }

    /// Lets an open connection do something; does nothing to another one.
    pub(super) fn with_open(
        &mut self,
        now: Duration,
        urgency: Urgency,
        shared: &mut Shared,
        work: impl FnOnce(&mut Open, &mut Cx<'_>) -> Fate,
    ) -> Directions {
        let was_empty = self.outbox.is_empty();
        let end = match &mut self.phase {
            Phase::Open(open) => {
                let fate = work(open, &mut Cx { now, shared, outbox: &mut self.outbox });
                self.settle(now, fate, shared)
            }
            _ => None,
        };
        self.directions(now, was_empty, urgency, end, shared)
    }

    /// The home has answered a publish.
    pub fn published(
        &mut self,
        now: Duration,
        command: u32,
        answer: Result<(), ClientError>,
        shared: &mut Shared,
    ) -> Directions {
        self.with_open(now, Urgency::Reply, shared, |open, cx| open.published(cx, command, answer))
    }
}
