//! How a session opens: who the client is, and what it is told first.

use super::joining::Settled;
use super::{Held, Session, Stage};
use crate::command::{Connect, Subscribe};
use crate::dialect::plain;
use crate::disconnect::Disconnect;
use crate::effect::Note;
use crate::liveness::Liveness;
use crate::settings::Settings;
use crate::shared::Cx;
use hub::{Channel, LocalId};
use wire::ws::OpCode;

impl Session {
    fn authenticate(&self, cx: &mut Cx<'_>, connect: &Connect<'_>) -> Result<(), Disconnect> {
        if !connect.token.is_empty() {
            cx.note(Note::TokenUnsupported);
            return Err(Disconnect::INVALID_TOKEN);
        }
        if !cx.shared.settings.anonymous && !cx.shared.settings.insecure {
            cx.note(Note::AnonymousRefused);
            return Err(Disconnect::BAD_REQUEST);
        }
        Ok(())
    }

    pub(super) fn connect(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        id: u32,
        connect: &Connect<'_>,
    ) -> Result<(), Disconnect> {
        self.authenticate(cx, connect)?;
        self.become_connected(cx, liveness);
        let (client, native) = (self.client, self.native_ping);
        self.reply(cx, |format, out, settings| {
            let ping = (!native).then_some(settings.times.ping_interval.as_secs());
            format.connected(out, id, client, &settings.version, ping);
        })
    }

    /// Opens a plain session and asks for the wanted channels. Those it may not have are left out, as the protocol says.
    pub(crate) fn connect_plain(
        &mut self,
        cx: &mut Cx<'_>,
        liveness: &mut Liveness,
        connect: &Connect<'_>,
    ) -> Result<(), Disconnect> {
        self.authenticate(cx, connect)?;
        if connect.channels.len() > cx.shared.settings.limits.channels_max {
            return Err(Disconnect::CHANNEL_LIMIT);
        }
        self.stage = Stage::Connecting;
        for wanted in &connect.channels {
            let (channel, recover) = (wanted.channel.clone(), wanted.recover.clone());
            let request = Subscribe { channel, recover, ..Subscribe::default() };
            if !request.channel.is_empty() && self.may_subscribe(cx, &request).is_ok() {
                self.ask(cx, 0, &request);
            }
        }
        self.announce_when_answered(cx, liveness)
    }

    fn become_connected(&mut self, cx: &mut Cx<'_>, liveness: &mut Liveness) {
        self.stage = Stage::Connected;
        cx.shared.counters.sessions += 1;
        *liveness = cx.first_ping();
    }

    /// Writes the connect push once no answer is due any more, then what was held, and lets the channels go live.
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
        self.announce_plain(cx, waiting.settled)?;
        for held in &waiting.held {
            match held {
                Held::Publication(publication) => {
                    cx.shared.counters.deliveries += 1;
                    // Whether its namespace compresses is asked where publications fan out; a few that were held need not be.
                    cx.text_as_it_is(|out| plain::publication(out, publication))?;
                }
                Held::Announcement(announcement) => cx.text(|out, _| plain::announcement(out, announcement))?,
            }
        }
        self.subscriptions.iter().for_each(|s| cx.shared.local.go_live(s.member));
        Ok(())
    }

    /// The connect push, with what was missed where that fits.
    fn announce_plain(&self, cx: &mut Cx<'_>, mut settled: Vec<(LocalId, Settled)>) -> Result<(), Disconnect> {
        let session = cx.shared.ids.session_of(self.client);
        let names: Vec<Channel> = settled.iter().map(|(local, _)| cx.shared.local.channel(*local).clone()).collect();
        let write = |out: &mut Vec<u8>, settings: &Settings, settled: &[(LocalId, Settled)]| {
            let ping = settings.times.ping_interval.as_secs();
            let subs = names.iter().zip(settled).map(|(name, (_, s))| (&**name, s.result, s.missed.is_some()));
            plain::connected(out, self.client, session, &settings.version, ping, subs)
        };
        if settled.iter().any(|(_, s)| s.missed.is_some()) {
            let missed = settled.iter().filter_map(|(_, s)| s.missed.as_ref());
            let bodies: Vec<_> = missed.map(|missed| cx.missed(self.encoding(), missed)).collect();
            let mut text = Vec::new();
            let places = write(&mut text, &cx.shared.settings, &settled);
            let parts: Vec<_> = places.into_iter().zip(bodies.iter().copied()).collect();
            let fits = cx.composed(OpCode::Text, &text, &parts);
            bodies.into_iter().for_each(|body| cx.shared.outboxes.release(body));
            if fits {
                return Ok(());
            }
            // All or nothing: which of its channels could be recovered would depend on their order.
            for (_, settled) in settled.iter_mut().filter(|(_, s)| s.missed.is_some()) {
                cx.shared.counters.recoveries_too_large += 1;
                settled.give_up();
            }
        }
        cx.text(|out, settings| drop(write(out, settings, &settled)))
    }
}
