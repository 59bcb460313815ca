//! How a session opens: who the client is, and what it is told first.

use super::identity::{Expiry, Grant, Refusal, Renewer};
use super::joining::Settled;
use super::subscribing::Permission;
use super::{Dialect, Held, Session, Stage};
use crate::auth::token::{Json, ServerSide};
use crate::command::{Connect, Subscribe};
use crate::dialect::centrifugo::Payload;
use crate::dialect::{ConnectResult, SubResult, plain};
use crate::disconnect::{ClientError, Disconnect};
use crate::effect::{Effect, Note};
use crate::liveness::Liveness;
use crate::settings::Settings;
use crate::shared::Cx;
use crate::webhook::Event;
use hub::{Channel, LocalId};
use std::borrow::Cow;
use wire::ws::OpCode;

/// What the reply to connect needs beside the channels.
#[derive(Clone, Debug, Default)]
pub(super) struct Opening {
    /// The command's id.
    pub(super) command: u32,
    pub(super) expiry: Option<Expiry>,
    /// What the backend says to the client.
    pub(super) data: Option<Json>,
}

impl Session {
    pub(super) fn connect(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        command: u32,
        connect: Connect<'_>,
    ) -> Result<(), Refusal> {
        if connect.token.is_empty() && cx.shared.settings.webhooks.answer(Event::Connect) {
            self.ask_who_connects(cx, command, connect);
            return Ok(());
        }
        let claims = if connect.token.is_empty() { None } else { Some(self.connection_claims(cx, &connect.token)?) };
        let (expiry, channels) = self.enter(cx, claims, Renewer::Client)?;
        let is_plain = self.dialect == Dialect::Plain;
        if is_plain && !self.may_have_more(cx, connect.channels.len() + channels.len()) {
            return Err(Disconnect::CHANNEL_LIMIT.into());
        }
        self.ask_for_server_side(cx, &connect, channels)?;
        if is_plain {
            self.ask_for_wanted(cx, &connect);
        }
        Ok(self.open(cx, liveness, Opening { command, expiry, data: None })?)
    }

    /// Asks for the channels that a plain client wants. Those it may not have are left out, as the protocol says, and so are
    /// those about which a backend would have to be asked.
    fn ask_for_wanted(&mut self, cx: &mut Cx<'_>, connect: &Connect<'_>) {
        for wanted in &connect.channels {
            let (channel, recover) = (wanted.channel.clone(), wanted.recover.clone());
            let request = Subscribe { channel, recover, ..Subscribe::default() };
            if request.channel.is_empty() {
                continue;
            }
            if let Ok(Permission::Granted(grant)) = self.may_subscribe(cx, &request) {
                self.ask(cx, 0, &request, grant);
            }
        }
    }

    /// Asks for the channels that the token or the backend names, and for the user's own.
    pub(super) fn ask_for_server_side(
        &mut self,
        cx: &mut Cx<'_>,
        connect: &Connect<'_>,
        mut channels: Vec<ServerSide>,
    ) -> Result<(), Refusal> {
        if let Some(own) = cx.shared.settings.personal_channel(self.user())
            && !channels.iter().any(|sub| sub.channel == own)
        {
            channels.push(ServerSide::plain(own));
        }
        if !self.may_have_more(cx, channels.len()) {
            return Err(Disconnect::CHANNEL_LIMIT.into());
        }
        let longest = cx.shared.settings.limits.channel_name_bytes_max;
        for ServerSide { channel, .. } in &channels {
            if channel.is_empty() || channel.len() > longest || !channel.is_ascii() {
                return Err(ClientError::BAD_REQUEST.into());
            }
            if cx.shared.settings.namespaces.of(channel).is_none() {
                cx.note(Note::UnknownNamespace { channel: channel.clone() });
                return Err(ClientError::UNKNOWN_CHANNEL.into());
            }
        }
        for ServerSide { channel, info, data, changed } in channels {
            let position = connect.channels.iter().find(|wanted| wanted.channel == channel);
            let recover = position.and_then(|wanted| wanted.recover.clone());
            let request = Subscribe { channel: Cow::Owned(channel), recover, ..Subscribe::default() };
            let grant = Grant { server_side: true, chan_info: info, data, changed, ..Grant::default() };
            self.ask(cx, 0, &request, grant);
        }
        Ok(())
    }

    /// Connected at once where nothing was asked for, else when all of that is answered.
    pub(super) fn open(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        opening: Opening,
    ) -> Result<(), Disconnect> {
        self.stage = Stage::Connecting;
        match &mut self.waiting {
            Some(waiting) => {
                waiting.opening = opening;
                self.announce_when_answered(cx, liveness)
            }
            None => {
                self.become_connected(cx, liveness);
                self.announce(cx, &opening, Vec::new())
            }
        }
    }

    fn become_connected(&mut self, cx: &mut Cx<'_>, liveness: &mut Liveness) {
        self.stage = Stage::Connected;
        cx.shared.counters.sessions += 1;
        if cx.shared.settings.client_notices {
            let (client, user, encoding) = (self.client, self.user().into(), self.encoding());
            cx.shared.effects.push(Effect::Connected { client, user, encoding });
        }
        *liveness = cx.first_ping();
    }

    /// Writes the connect reply once no answer is due any more, then what was held, and lets the channels go live.
    pub(super) fn announce_when_answered(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
    ) -> Result<(), Disconnect> {
        let waiting = match self.waiting.take() {
            Some(waiting) if !waiting.pending.is_empty() => {
                self.waiting = Some(waiting);
                return Ok(());
            }
            other => other.unwrap_or_default(),
        };
        if waiting.busy {
            return Err(Disconnect::INTERNAL);
        }
        self.become_connected(cx, liveness);
        self.announce(cx, &waiting.opening, waiting.settled)?;
        for held in &waiting.held {
            cx.shared.counters.deliveries += u64::from(matches!(held, Held::Publication(_)));
            self.push(cx, held)?;
        }
        self.subscriptions.iter().for_each(|s| cx.shared.local.go_live(s.member));
        Ok(())
    }

    /// What had to follow the announcement. Whether its namespace compresses is asked where publications fan out; a few that
    /// were held need not be.
    fn push(&self, cx: &mut Cx<'_>, held: &Held) -> Result<(), Disconnect> {
        match (self.dialect, held) {
            (Dialect::Plain, Held::Publication(one)) => cx.text_as_it_is(|out| plain::publication(out, one)),
            (Dialect::Plain, Held::Announcement(one)) => cx.text(|out, _| plain::announcement(out, one)),
            (Dialect::Centrifugo(format), Held::Publication(one)) => {
                cx.message(format.opcode(), |out, _| format.publication(out, one, Payload::Whole))
            }
            (Dialect::Centrifugo(format), Held::Announcement(one)) => {
                cx.message(format.opcode(), |out, _| format.announcement(out, one))
            }
        }
    }

    /// The connect reply or push, with what was missed where that fits.
    fn announce(
        &self,
        cx: &mut Cx<'_>,
        opening: &Opening,
        mut settled: Vec<(LocalId, Settled)>,
    ) -> Result<(), Disconnect> {
        let names: Vec<Channel> = settled.iter().map(|(local, _)| cx.shared.local.channel(*local).clone()).collect();
        let opcode = self.opcode();
        if settled.iter().any(|(_, s)| s.missed.is_some()) {
            let missed = settled.iter().map(|(_, s)| s.missed.as_ref());
            let bodies: Vec<_> = missed.map(|missed| missed.map(|missed| cx.missed(self.encoding(), missed))).collect();
            let bytes = bodies.iter().map(|body| body.map(|body| cx.shared.outboxes.len_of(body))).collect::<Vec<_>>();
            let mut text = Vec::new();
            let subs = subs(&names, &settled, &bytes);
            let session = cx.shared.ids.session_of(self.client);
            let places = self.write_connected(&mut text, &cx.shared.settings, session, opening, &subs);
            let parts: Vec<_> = places.into_iter().zip(bodies.iter().copied().flatten()).collect();
            let fits = cx.composed(opcode, &text, &parts);
            bodies.into_iter().flatten().for_each(|body| cx.shared.outboxes.release(body));
            if fits {
                return Ok(());
            }
            // All or nothing: which of its channels could be recovered would depend on their order.
            for (_, settled) in settled.iter_mut().filter(|(_, s)| s.missed.is_some()) {
                cx.shared.counters.recoveries_too_large += 1;
                settled.give_up();
            }
        }
        let session = cx.shared.ids.session_of(self.client);
        let subs = subs(&names, &settled, &[]);
        cx.message(opcode, |out, settings| drop(self.write_connected(out, settings, session, opening, &subs)))
    }

    pub(super) fn opcode(&self) -> OpCode {
        self.format().opcode()
    }

    fn write_connected(
        &self,
        out: &mut Vec<u8>,
        settings: &Settings,
        session: u128,
        opening: &Opening,
        subs: &[SubResult<'_>],
    ) -> Vec<usize> {
        let result = ConnectResult {
            client: self.client,
            version: &settings.version,
            ttl: opening.expiry.and_then(Expiry::told),
            ping_seconds: (!self.native_ping).then_some(settings.times.ping_interval.as_secs()),
            data: opening.data.as_deref(),
        };
        match self.dialect {
            Dialect::Plain => plain::connected(out, &result, session, subs),
            Dialect::Centrifugo(format) => format.connected(out, opening.command, &result, subs),
        }
    }
}

/// The channels of a connect reply; `missed` are the bytes of what was missed in each, if anything was.
fn subs<'a>(names: &'a [Channel], settled: &'a [(LocalId, Settled)], missed: &[Option<usize>]) -> Vec<SubResult<'a>> {
    let missed = missed.iter().copied().chain(std::iter::repeat(None));
    let all = names.iter().zip(settled).zip(missed);
    all.map(|((name, (_, settled)), missed)| SubResult { channel: name, result: &settled.result, missed }).collect()
}
