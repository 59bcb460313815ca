//! How a subscription begins: what it asks of the home beside being counted, and what the answer makes of it.
//!
//! A *recoverable* subscription learns the channel's position, so that it can name it when it comes back; a *positioned* one
//! is told when something is missing between two publications. Whoever is recoverable is positioned as well.

use super::Session;
use super::identity::{Expiry, Grant};
use crate::auth::token::Changed;
use crate::command::Subscribe;
use crate::dialect::SubscribeResult;
use crate::disconnect::{ClientError, Disconnect, Unsubscribed};
use crate::encoded::Encoding;
use crate::shared::{Cx, Shared};
use crate::subscriptions::Subscription;
use hub::{
    ClientInfo, Entrance, LocalId, Missed, Namespace, Part, Position, Recover, Recovery, RecoveryMode, Subscribed,
    SubscriberId,
};
use std::sync::Arc;

/// What a subscription gets beside the publications, once the home has accepted it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    recoverable: bool,
    positioned: bool,
    /// It wants to recover, and this is what it is told when it does.
    recovers: Option<Told>,
    reject_unrecovered: bool,
    delta: bool,
    part: Part,
    /// It is among those who are present, and the others are told that it comes and goes.
    is_present: bool,
    announces: bool,
}

/// Which offset a recovered client is told: it counts on from there.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// Its own: it advances with each publication that was missed.
    Its(hub::Offset),
    /// The channel's newest.
    Newest,
}

/// An accepted subscription before anybody was told.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) result: SubscribeResult,
    /// Where the channel is, whatever the client is told.
    top: Position,
    /// What goes with the result.
    pub(super) missed: Option<Arc<Missed>>,
    reject_unrecovered: bool,
    part: Part,
    grant: Grant,
}

impl Wish {
    /// What this client gets of what it asks for. Options that are off are left out without a word, as the protocol has it.
    pub(super) fn granted(
        cx: &Cx<'_>,
        request: &Subscribe<'_>,
        grant: &Grant,
        anonymous: bool,
    ) -> (Wish, Option<Box<Recover>>) {
        let (settings, changed) = (&cx.shared.settings, grant.changed);
        let Some((_, namespace)) = settings.namespaces.of(&request.channel) else { return <_>::default() };
        let delta = namespace.allow_fossil_deltas && !request.delta.is_empty();
        let is_present = changed.presence.unwrap_or(namespace.presence);
        let announces = changed.join_leave.unwrap_or(namespace.join_leave);
        let part = if is_told(settings.insecure, namespace, request.join_leave, changed, anonymous) {
            Part::Listener
        } else if is_present || announces {
            Part::Guest
        } else {
            Part::None
        };
        let wish = Wish { delta, part, is_present, announces, ..Wish::default() };
        if namespace.history.is_none() {
            return (wish, None);
        }
        let reads = settings.insecure || namespace.may_read_history(anonymous, true).is_ok();
        let force_recovery = changed.force_recovery.unwrap_or(namespace.force_recovery);
        let force_positioning = changed.force_positioning.unwrap_or(namespace.force_positioning);
        let recoverable = force_recovery || request.recoverable && (namespace.allow_recovery || reads);
        let asks_position = request.positioned && (namespace.allow_positioning || reads);
        let positioned = recoverable || force_positioning || asks_position;
        let mode = namespace.recovery_mode;
        let since = match request.recover.as_ref().map(|position| position.since()).or(grant.since) {
            Some(since) => Some(since),
            None if mode == RecoveryMode::Cache && namespace.auto_cache_recover => {
                Some(hub::Since { offset: hub::Offset(0), epoch: hub::SinceEpoch::Any })
            }
            None => None,
        };
        let recover = since.filter(|_| recoverable).map(|since| {
            let limits = &settings.limits;
            let (publications_max, bytes_max) = (limits.recovery_publications_max, limits.reply_bytes_max);
            Box::new(Recover { since, mode, publications_max, bytes_max })
        });
        let recovers = recover.as_ref().map(|recover| match mode {
            RecoveryMode::Stream => Told::Its(recover.since.offset),
            RecoveryMode::Cache => Told::Newest,
        });
        let reject_unrecovered = request.reject_unrecovered;
        (Wish { recoverable, positioned, recovers, reject_unrecovered, ..wish }, recover)
    }

    /// What the home is told of the subscriber, where it wants to know.
    pub(super) fn entrance(&self, info: impl FnOnce() -> ClientInfo) -> Option<Box<Entrance>> {
        let only_recovered = self.reject_unrecovered && self.recovers.is_some();
        let (is_present, announces) = (self.is_present, self.announces);
        (self.part != Part::None)
            .then(|| Box::new(Entrance { info: Arc::new(info()), only_recovered, is_present, announces }))
    }

    /// What the home's answer comes to.
    pub(super) fn settle(self, subscribed: Subscribed, grant: Grant) -> Settled {
        let Subscribed { position: top, recovery } = subscribed;
        let (recovered, missed) = match recovery {
            Recovery::Recovered(missed) => (true, missed),
            Recovery::NotAsked | Recovery::Failed => (false, None),
        };
        let offset = match self.recovers {
            Some(Told::Its(offset)) if recovered => offset,
            _ => top.offset,
        };
        let result = SubscribeResult {
            recoverable: self.recoverable,
            positioned: self.positioned,
            position: self.positioned.then_some(Position { offset, ..top }),
            was_recovering: self.recovers.is_some(),
            recovered,
            delta: self.delta,
            ttl: grant.expiry.and_then(Expiry::told),
            data: grant.data.clone(),
        };
        Settled { result, top, missed, reject_unrecovered: self.reject_unrecovered, part: self.part, grant }
    }
}

/// Whether a subscription is told who comes and goes.
fn is_told(insecure: bool, namespace: &Namespace, asks: bool, changed: Changed, anonymous: bool) -> bool {
    let may_ask = || insecure || namespace.may_read_presence(anonymous, true).is_ok();
    let pushes = changed.force_push_join_leave.unwrap_or(namespace.force_push_join_leave);
    let joins = namespace.join_leave || changed.join_leave == Some(true);
    joins && (pushes || asks && may_ask())
}

impl Settled {
    /// What was missed does not fit the answer: the client has a gap.
    pub(super) fn give_up(&mut self) {
        self.missed = None;
        self.result.recovered = false;
        self.result.position = self.result.position.map(|_| self.top);
    }

    /// Whether the client wants an error instead of this.
    fn is_rejected(&self) -> bool {
        self.reject_unrecovered && self.result.was_recovering && !self.result.recovered
    }
}

impl Session {
    /// Makes the session a member of an accepted channel.
    pub(super) fn admit(&mut self, cx: &mut Cx<'_>, me: SubscriberId, local: LocalId, settled: &Settled, held: bool) {
        let member = cx.shared.local.admit(local, me, self.encoding_of(&settled.result) as u8, held);
        if settled.result.delta {
            cx.shared.deltas.join(local);
        }
        if settled.result.positioned {
            cx.shared.local.follow(member, settled.top);
        }
        if settled.part != Part::None {
            cx.shared.local.take_part(member, settled.part);
        }
        self.subscriptions.insert(Subscription { channel: local, member });
        self.count_subscriptions(cx.shared);
        self.keep_terms(cx.shared, local, &settled.grant);
    }

    /// How a subscription begins: without anything that a patch could be made of, be it recovered or not.
    pub(super) fn encoding_of(&self, result: &SubscribeResult) -> Encoding {
        if result.delta { self.encoding().first() } else { self.encoding() }
    }

    /// Writes the reply to a subscribe that the home has accepted. Whether the client takes the subscription.
    pub(super) fn reply_subscribed(
        &self,
        cx: &mut Cx<'_>,
        command: u32,
        settled: &mut Settled,
    ) -> Result<bool, Disconnect> {
        if let Some(missed) = &settled.missed {
            if self.reply_recovered(cx, command, &settled.result, missed) {
                return Ok(true);
            }
            cx.shared.counters.recoveries_too_large += 1;
            settled.give_up();
        }
        if settled.is_rejected() {
            self.refuse(cx, command, &ClientError::UNRECOVERABLE_POSITION)?;
            return Ok(false);
        }
        let format = self.format();
        cx.message(format.opcode(), |out, _| format.subscribed(out, command, &settled.result))?;
        Ok(true)
    }

    /// The same with what was missed, whose encoding all clients share that missed the same. Whether it fits.
    fn reply_recovered(&self, cx: &mut Cx<'_>, command: u32, result: &SubscribeResult, missed: &Missed) -> bool {
        let body = cx.missed(self.encoding_of(result), missed);
        let (format, mut envelope) = (self.format(), Vec::new());
        let at = format.recovered(&mut envelope, command, result, cx.shared.outboxes.len_of(body));
        let fits = cx.composed(format.opcode(), &envelope, &[(at, body)]);
        cx.shared.outboxes.release(body);
        fits
    }

    /// Something is missing before the next publication of a channel: the client is told that its subscription is over, and
    /// recovers it by subscribing anew.
    pub(crate) fn missed_something(&mut self, cx: &mut Cx<'_>, local: LocalId) -> Result<(), Disconnect> {
        if !self.subscriptions.contains(local) {
            return Ok(());
        }
        cx.shared.counters.gaps += 1;
        if self.is_plain() || self.is_server_side(local) {
            // There is nothing that would make it subscribe again to one channel; it comes back with its positions.
            return Err(Disconnect::INSUFFICIENT_STATE);
        }
        let channel = cx.shared.local.channel(local).clone();
        self.leave(cx, local);
        self.tell_unsubscribed(cx, &channel, Unsubscribed::INSUFFICIENT_STATE)
    }

    /// Publications of the channel with that key were skipped, because the client reads too slowly. A positioned subscription
    /// gets nothing behind them as if nothing were missing: it ends, and the client recovers. Another one goes on, and what
    /// comes next is no patch on what may have been skipped.
    pub(crate) fn skipped(&mut self, cx: &mut Cx<'_>, key: u64) -> Result<(), Disconnect> {
        let subscription = self.subscription_by_key(cx.shared, key);
        if self.is_cut(cx.shared, subscription) {
            cx.shared.outboxes.skip_channel(cx.outbox, key);
            return subscription.map_or(Ok(()), |subscription| self.missed_something(cx, subscription.channel));
        }
        if let Some(subscription) = subscription {
            cx.shared.publication_missed(subscription.member);
        }
        Ok(())
    }

    /// The same where the session ends anyhow.
    pub(crate) fn skipped_at_the_end(&self, cx: &mut Cx<'_>, key: u64) {
        if self.is_cut(cx.shared, self.subscription_by_key(cx.shared, key)) {
            cx.shared.outboxes.skip_channel(cx.outbox, key);
        }
    }

    fn subscription_by_key(&self, shared: &Shared, key: u64) -> Option<Subscription> {
        self.subscriptions.iter().find(|s| shared.ids.channel_key(shared.local.channel(s.channel)) == key)
    }

    /// Whether what waits behind a gap has to go: for a positioned subscription, and for one that has ended since, which may
    /// have been.
    fn is_cut(&self, shared: &Shared, subscription: Option<Subscription>) -> bool {
        subscription.is_none_or(|subscription| shared.local.is_positioned(subscription.member))
    }
}
