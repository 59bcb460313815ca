//! The subscribe and unsubscribe commands: from the checks to the home's answer.

use super::identity::{Grant, Refusal, Renewer};
use super::joining::{Settled, Wish};
use super::{Asked, Dialect, Held, Pending, Session, Stage};
use crate::auth::token::{Lasts, ServerSide};
use crate::command::Subscribe;
use crate::connection::Given;
use crate::dialect::SubscribeResult;
use crate::dialect::centrifugo::Done;
use crate::dialect::plain;
use crate::disconnect::{ClientError, Disconnect, Unsubscribed};
use crate::effect::Effect;
use crate::liveness::Liveness;
use crate::shared::Cx;
use crate::webhook::Event;
use hub::namespace::Lacks;
use hub::{LocalId, Subscribed, SubscriberId};
use std::borrow::Cow;

/// What the checks of a subscription come to.
#[derive(Debug)]
pub(super) enum Permission {
    Granted(Grant),
    /// Its namespace leaves it to the backend.
    AskBackend,
}

impl Session {
    pub(super) fn subscribe(&mut self, cx: &mut Cx<'_>, id: u32, request: Subscribe<'_>) -> Result<(), Disconnect> {
        if request.channel.is_empty() || !matches!(&*request.delta, "" | "fossil") {
            return Err(Disconnect::BAD_REQUEST);
        }
        let done = match self.may_subscribe(cx, &request) {
            Ok(Permission::Granted(grant)) => {
                self.ask(cx, id, &request, grant);
                Ok(())
            }
            Ok(Permission::AskBackend) => {
                self.ask_whether_to_subscribe(cx, id, request);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        self.answer_refusal(cx, id, done)
    }

    /// The checks of a subscription, in the order in which Centrifugo makes them.
    pub(super) fn may_subscribe(&mut self, cx: &mut Cx<'_>, request: &Subscribe<'_>) -> Result<Permission, Refusal> {
        let channel = &*request.channel;
        let limits = &cx.shared.settings.limits;
        if channel.len() > limits.channel_name_bytes_max || !channel.is_ascii() {
            return Err(ClientError::BAD_REQUEST.into());
        }
        if request.filtered || request.kind == 4 {
            return Err(ClientError::NOT_AVAILABLE.into());
        }
        if request.kind != 0 {
            return Err(ClientError::PERMISSION_DENIED.into());
        }
        self.may_have_one_more(cx, channel)?;
        if !request.token.is_empty() {
            return self.grant_of_token(cx, request).map(Permission::Granted);
        }
        let is_private = hub::namespace::is_private(channel);
        let namespaces = &cx.shared.settings.namespaces;
        let is_limited = namespaces.of(channel).is_some_and(|(_, it)| it.allowed_users(channel).is_some());
        if !is_private && !is_limited && cx.asks(Event::Subscribe, channel) {
            return Ok(Permission::AskBackend);
        }
        let user = self.user();
        self.permit(cx, channel, |namespace| {
            if is_private {
                return Err(Lacks("a subscription token, which a private channel needs"));
            }
            match namespace.allowed_users(channel) {
                Some(mut users) => (!user.is_empty() && users.any(|allowed| allowed == user))
                    .then_some(())
                    .ok_or(Lacks("the user in the name of a channel for some users only")),
                None => namespace.may_subscribe(user.is_empty()),
            }
        })?;
        Ok(Permission::Granted(Grant::default()))
    }

    /// Whether the client may get this channel beside those it has.
    pub(super) fn may_have_one_more(&self, cx: &mut Cx<'_>, channel: &str) -> Result<(), Refusal> {
        if self.pending(channel).is_some() || self.subscription(cx, channel).is_some() {
            return Err(ClientError::ALREADY_SUBSCRIBED.into());
        }
        if self.is_full(cx) {
            return Err(ClientError::LIMIT_EXCEEDED.into());
        }
        Ok(self.permit(cx, channel, |_| Ok(()))?)
    }

    pub(super) fn ask(&mut self, cx: &mut Cx<'_>, command: u32, request: &Subscribe<'_>, grant: Grant) {
        let sequence = cx.shared.next_sequence();
        let channel = cx.channel(&request.channel);
        let (wish, recover) = Wish::granted(cx, request, &grant, self.is_anonymous());
        let entrance = wish.entrance(|| self.info_with(grant.chan_info.as_ref()));
        let waiting = self.waiting.get_or_insert_default();
        waiting.pending.push(Pending { sequence, command, channel: channel.clone(), local: None, wish, grant });
        self.count_subscriptions(cx.shared);
        cx.shared.effects.push(Effect::Subscribe { sequence, channel, recover, entrance });
    }

    /// A backend subscribes the client to a channel. `None`: it has the channel, is about to have it, or its time is over.
    pub(crate) fn subscribed_by_server(&mut self, cx: &mut Cx<'_>, given: &Given) -> Option<Result<(), Disconnect>> {
        let Given { to, until, since } = given;
        if self.pending(&to.channel).is_some() || self.subscription(cx, &to.channel).is_some() {
            return None;
        }
        let expiry = cx.expiry(until.map_or(Lasts::ForEver, Lasts::Until), Renewer::Client).ok()?;
        if self.is_full(cx) {
            return Some(Err(Disconnect::CHANNEL_LIMIT));
        }
        let ServerSide { channel, info, data, mut changed } = to.clone();
        if since.is_some() {
            // Whoever names a position wants the client to go on there, whatever it may ask for by itself.
            changed.force_recovery.get_or_insert(true);
        }
        let request = Subscribe { channel: Cow::Owned(channel), ..Subscribe::default() };
        let grant = Grant { server_side: true, expiry, chan_info: info, data, changed, since: *since };
        self.ask(cx, 0, &request, grant);
        Some(Ok(()))
    }

    /// Whether the client, or its user, has or awaits as many channels as it may.
    fn is_full(&self, cx: &Cx<'_>) -> bool {
        !self.may_have_more(cx, 1)
    }

    /// Whether the client, and its user, may have so many channels more.
    pub(super) fn may_have_more(&self, cx: &Cx<'_>, more: usize) -> bool {
        debug_assert!(self.is_counted(), "the table of users was told of every change");
        let limits = &cx.shared.settings.limits;
        let (own_max, users_max) = (limits.channels_max, limits.subscriptions_per_user_max);
        let of_user = || cx.shared.users.subscriptions(self.user()) as usize;
        let user_may = users_max == 0 || self.is_anonymous() || of_user() + more <= users_max;
        user_may && self.subscriptions.len() + self.awaited() + more <= own_max
    }

    /// Subscribes that the home has not answered.
    pub(super) fn awaited(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.pending.len())
    }

    /// The worker counts the pending subscriber under this number.
    pub(crate) fn begun(&mut self, sequence: u32, local: LocalId) {
        if let Some(pending) = self.pending_mut(sequence) {
            pending.local = Some(local);
        }
    }

    fn pending_mut(&mut self, sequence: u32) -> Option<&mut Pending> {
        self.waiting.as_mut()?.pending.iter_mut().find(|p| p.sequence == sequence)
    }

    /// The home has answered. `None`: nothing of that number is pending here, so the answer is stale. Otherwise whether the
    /// client became a member, and how the session goes on.
    pub(crate) fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        me: SubscriberId,
        sequence: u32,
        answer: Result<Subscribed, ClientError>,
    ) -> Option<(bool, Result<(), Disconnect>)> {
        let waiting = self.waiting.as_mut()?;
        let at = waiting.pending.iter().position(|p| p.sequence == sequence && p.local.is_some())?;
        let Pending { command, local, wish, grant, .. } = waiting.pending.remove(at);
        self.count_subscriptions(cx.shared);
        let local = local?;
        let settled = answer.map(|subscribed| wish.settle(subscribed, grant));
        if self.stage != Stage::Connecting {
            let asked = Asked { command, sequence, local };
            return Some(self.reply_to_subscribe(cx, me, asked, settled));
        }
        let is_member = settled.is_ok();
        match settled {
            Ok(settled) => {
                self.admit(cx, me, local, &settled, true);
                self.waiting.get_or_insert_default().settled.push((local, settled));
            }
            Err(_) => self.waiting.get_or_insert_default().busy = true,
        }
        Some((is_member, self.announce_when_answered(cx, liveness)))
    }

    fn reply_to_subscribe(
        &mut self,
        cx: &mut Cx<'_>,
        me: SubscriberId,
        asked: Asked,
        settled: Result<Settled, ClientError>,
    ) -> (bool, Result<(), Disconnect>) {
        let Asked { command, sequence, local } = asked;
        let replied = match settled {
            // The client knows of nothing that could be refused, and its backend takes it for subscribed.
            Err(_) if command == 0 => Err(Disconnect::INTERNAL),
            Err(error) => self.refuse(cx, command, &error).map(|()| false),
            Ok(mut settled) => {
                let replied = match command {
                    0 => self.tell_subscribed(cx, local, &mut settled).map(|()| true),
                    _ => self.reply_subscribed(cx, command, &mut settled),
                };
                if replied == Ok(true) {
                    self.admit(cx, me, local, &settled, false);
                }
                replied
            }
        };
        let is_member = match replied {
            Ok(is_member) => is_member,
            Err(why) => return (false, Err(why)),
        };
        let unsubscribe = self.waiting.as_mut().and_then(|w| w.unsubscribe.take_if(|(_, s)| *s == sequence));
        let mut outcome = Ok(());
        if let Some((id, _)) = unsubscribe {
            self.leave(cx, local);
            outcome = self.done(cx, id, Done::Unsubscribe);
        }
        self.drop_idle_waiting();
        (is_member, outcome)
    }

    /// Keeps what came for a subscription that is not announced yet.
    pub(crate) fn hold(&mut self, held: Held, count: usize, bytes: usize) -> Result<(), Disconnect> {
        let waiting = self.waiting.get_or_insert_default();
        waiting.held_bytes += held.cost();
        if waiting.held.len() >= count || waiting.held_bytes > bytes {
            return Err(Disconnect::INSUFFICIENT_STATE);
        }
        waiting.held.push(held);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, cx: &mut Cx<'_>, id: u32, channel: &str) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST);
        }
        if let Some(sequence) = self.pending(channel) {
            self.waiting.get_or_insert_default().unsubscribe = Some((id, sequence));
            return Ok(());
        }
        if let Some(local) = self.subscription(cx, channel) {
            self.leave(cx, local);
        }
        self.done(cx, id, Done::Unsubscribe)
    }

    /// A backend ends a subscription, whoever has asked for it, or a subscribe that is under way. `None`: there is none.
    pub(crate) fn unsubscribed(&mut self, cx: &mut Cx<'_>, channel: &str) -> Option<Result<(), Disconnect>> {
        if let Some(sequence) = self.pending(channel) {
            return Some(self.refuse_pending(cx, sequence));
        }
        if let Some(refused) = self.refuse_asked(cx, channel) {
            return Some(refused);
        }
        let local = self.subscription(cx, channel)?;
        self.leave(cx, local);
        Some(self.tell_unsubscribed(cx, channel, Unsubscribed::BY_SERVER))
    }

    /// The home's answer to that subscribe will find nobody, and be withdrawn.
    fn refuse_pending(&mut self, cx: &mut Cx<'_>, sequence: u32) -> Result<(), Disconnect> {
        let Some(waiting) = &mut self.waiting else { return Ok(()) };
        let at = waiting.pending.iter().position(|pending| pending.sequence == sequence);
        let pending = at.map(|at| waiting.pending.remove(at));
        let unsubscribe = waiting.unsubscribe.take_if(|(_, waited_for)| *waited_for == sequence);
        self.count_subscriptions(cx.shared);
        self.drop_idle_waiting();
        if let Some(pending) = pending.filter(|pending| pending.command > 0) {
            self.refuse(cx, pending.command, &ClientError::PERMISSION_DENIED)?;
        }
        unsubscribe.map_or(Ok(()), |(id, _)| self.done(cx, id, Done::Unsubscribe))
    }

    /// Tells the client of a subscription that it did not ask for. The push has no place for what was missed: that follows in
    /// pushes of its own, all of it or nothing.
    fn tell_subscribed(&self, cx: &mut Cx<'_>, local: LocalId, settled: &mut Settled) -> Result<(), Disconnect> {
        let channel = cx.shared.local.channel(local).clone();
        if let Some(missed) = settled.missed.take() {
            let (mut scratch, mut frames) = (Vec::new(), Vec::new());
            self.write_subscribe_push(&mut scratch, &channel, &settled.result);
            wire::ws::write_frame(&mut frames, self.opcode(), true, &scratch, None);
            let encoding = self.encoding_of(&settled.result);
            for publication in &missed.publications {
                encoding.publication(publication, None, &mut scratch, &mut frames);
            }
            if cx.frames(&frames, 1 + missed.publications.len()) {
                cx.shared.counters.deliveries += missed.publications.len() as u64;
                return Ok(());
            }
            cx.shared.counters.recoveries_too_large += 1;
            settled.give_up();
        }
        cx.message(self.opcode(), |out, _| self.write_subscribe_push(out, &channel, &settled.result))
    }

    fn write_subscribe_push(&self, out: &mut Vec<u8>, channel: &str, result: &SubscribeResult) {
        match self.dialect {
            Dialect::Plain => plain::subscribed(out, channel, result),
            Dialect::Centrifugo(format) => format.subscribe_push(out, channel, result),
        }
    }

    /// Tells the client that one of its subscriptions is over.
    pub(super) fn tell_unsubscribed(
        &self,
        cx: &mut Cx<'_>,
        channel: &str,
        why: Unsubscribed,
    ) -> Result<(), Disconnect> {
        match self.dialect {
            Dialect::Plain => cx.text(|out, _| plain::unsubscribed(out, channel, why)),
            Dialect::Centrifugo(format) => cx.message(format.opcode(), |out, _| format.unsubscribed(out, channel, why)),
        }
    }
}
