//! Who a client is, and until when: tokens, what they grant, and their end.

use super::{Dialect, Session, Stage, Waiting};
use crate::auth::token::{Changed, ConnectionClaims, Json, Lasts, ServerSide, SubscriptionClaims, TokenError};
use crate::command::{Refresh, SubRefresh, Subscribe};
use crate::dialect::plain;
use crate::disconnect::{ClientError, Disconnect, Unsubscribed};
use crate::effect::{Effect, Note};
use crate::moment::Moment;
use crate::shared::{Cx, Shared};
use crate::webhook::{ASK_AGAIN_AFTER, About, Event, Headers};
use hub::{ClientInfo, LocalId, Since};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// No connection lasts longer; what a token says beyond it is cut.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What only a session with a token has, or one with a subscription that something special is known of.
#[derive(Debug)]
pub(super) struct Identity {
    user: Arc<str>,
    conn_info: Option<Json>,
    /// When the connection is closed, or its backend is asked.
    expires: Option<Moment>,
    renewer: Renewer,
    terms: Vec<Terms>,
    passed_on: Option<Box<PassedOn>>,
    /// Subscriptions that the table of users counts for this session.
    counted: u32,
}

/// What goes with every question to the backend.
#[derive(Debug, Default)]
pub(super) struct PassedOn {
    pub(super) meta: Option<Json>,
    pub(super) headers: Option<Headers>,
}

/// Who is asked when the time of a connection or subscription is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewer {
    /// The client brings a token in time.
    Client,
    /// The backend, by that question, if one is due.
    Backend { asked: u32 },
}

impl Renewer {
    pub(super) const BACKEND: Self = Self::Backend { asked: 0 };

    /// Whether that question is due.
    fn is_asked(self, number: u32) -> bool {
        self == Self::Backend { asked: number }
    }
}

/// What is special about a subscription.
#[derive(Debug)]
struct Terms {
    channel: LocalId,
    server_side: bool,
    /// When it ends, or its backend is asked.
    expires: Option<Moment>,
    renewer: Renewer,
    chan_info: Option<Json>,
}

/// What goes with a subscription beside what its namespace says.
#[derive(Debug, Default)]
pub(super) struct Grant {
    pub(super) server_side: bool,
    pub(super) expiry: Option<Expiry>,
    pub(super) chan_info: Option<Json>,
    pub(super) data: Option<Json>,
    pub(super) changed: Changed,
    /// Where a backend says that the client is.
    pub(super) since: Option<Since>,
}

impl Grant {
    fn is_special(&self) -> bool {
        self.server_side || self.expiry.is_some() || self.chan_info.is_some()
    }
}

/// The end of something that may be prolonged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    /// Seconds from now.
    ttl: u32,
    /// The same, and the time that a client has beyond it.
    by: Moment,
    renewer: Renewer,
}

impl Expiry {
    /// What the client is told: nothing where it has nothing to do.
    pub(super) fn told(self) -> Option<u32> {
        (self.renewer == Renewer::Client).then_some(self.ttl)
    }
}

/// Whose turn it is to have a token checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    #[default]
    None,
    Awaited,
    Come,
}

/// Why a command that brought a token is not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Error(ClientError),
    Disconnect(Disconnect),
    /// The budget of this tick is spent: the command runs again later.
    NotYet,
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect> for Refusal {
    fn from(why: Disconnect) -> Self {
        Self::Disconnect(why)
    }
}

impl Session {
    /// The user id, "" for none.
    pub(crate) fn user(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.user)
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.user().is_empty()
    }

    /// What others are told of this client, in a channel or where there is none.
    pub(super) fn info(&self, channel: Option<LocalId>) -> ClientInfo {
        let terms = channel.and_then(|channel| self.terms(channel));
        self.info_with(terms.and_then(|terms| terms.chan_info.as_ref()))
    }

    /// The same, with what the subscription's token says.
    pub(super) fn info_with(&self, chan_info: Option<&Json>) -> ClientInfo {
        let conn_info = self.identity.as_ref().and_then(|identity| identity.conn_info.as_ref());
        let (user, client) = (self.user().into(), self.client.to_string().into());
        ClientInfo {
            user,
            client,
            conn_info: conn_info.map(|info| (**info).into()),
            chan_info: chan_info.map(|info| (**info).into()),
        }
    }

    fn terms(&self, channel: LocalId) -> Option<&Terms> {
        self.identity.as_ref()?.terms.iter().find(|terms| terms.channel == channel)
    }

    /// Whether the client never asked for this subscription.
    pub(super) fn is_server_side(&self, channel: LocalId) -> bool {
        self.terms(channel).is_some_and(|terms| terms.server_side)
    }

    fn identity(&mut self, shared: &mut Shared) -> &mut Identity {
        self.identity.get_or_insert_with(|| {
            let user = shared.users.enter("");
            let (conn_info, expires, renewer) = (None, None, Renewer::Client);
            Box::new(Identity { user, conn_info, expires, renewer, terms: Vec::new(), passed_on: None, counted: 0 })
        })
    }

    /// What goes with every question to the backend, if anything does.
    pub(super) fn passed_on(&self) -> Option<&PassedOn> {
        self.identity.as_ref()?.passed_on.as_deref()
    }

    /// What of its handshake a client's questions pass on.
    pub(crate) fn pass_on(&mut self, shared: &mut Shared, headers: Headers) {
        self.identity(shared).passed_on.get_or_insert_default().headers = Some(headers);
    }

    /// The same of the headers that a client says it would have sent; real ones stay.
    pub(super) fn pass_on_emulated(&mut self, shared: &mut Shared, emulated: &[(Cow<'_, str>, Cow<'_, str>)]) {
        let settings = shared.settings.clone();
        let real = self.passed_on().and_then(|passed_on| passed_on.headers.as_deref()).unwrap_or_default();
        let more = emulated.iter().filter_map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let is_wanted = settings.webhooks.emulated_headers.contains(&name);
            let is_real = real.iter().any(|(known, _)| **known == *name);
            (is_wanted && !is_real).then(|| (name.into_boxed_str(), Box::<str>::from(&**value).into()))
        });
        let more: Vec<_> = more.collect();
        if !more.is_empty() {
            let headers = real.iter().cloned().chain(more).collect();
            self.pass_on(shared, headers);
        }
    }

    /// The backend says something else about the client from now on.
    pub(super) fn say_of(&mut self, shared: &mut Shared, info: Option<Json>, meta: Option<Json>) {
        if info.is_some() {
            self.identity(shared).conn_info = info;
        }
        if meta.is_some() {
            self.identity(shared).passed_on.get_or_insert_default().meta = meta;
        }
    }

    /// The session ends. Returns the user that it was of.
    pub(super) fn forget_identity(&mut self, shared: &mut Shared) -> Arc<str> {
        let Some(identity) = self.identity.take() else { return Arc::default() };
        shared.users.recount(&identity.user, identity.counted, 0);
        shared.users.leave(&identity.user);
        identity.user
    }

    /// Tells the table of users what the session has. To be called wherever a subscription begins, is answered or ends.
    pub(super) fn count_subscriptions(&mut self, shared: &mut Shared) {
        let count = self.subscriptions.len() + self.awaited();
        let Some(identity) = self.identity.as_mut().filter(|identity| !identity.user.is_empty()) else { return };
        let before = std::mem::replace(&mut identity.counted, count as u32);
        shared.users.recount(&identity.user, before, identity.counted);
    }

    /// Whether the table of users knows what the session has.
    pub(super) fn is_counted(&self) -> bool {
        let identity = self.identity.as_ref().filter(|identity| !identity.user.is_empty());
        identity.is_none_or(|identity| identity.counted as usize == self.subscriptions.len() + self.awaited())
    }

    /// Whether a token may be checked now. If not, the command has to be run again when `verification_granted` was called.
    fn may_verify(&mut self, cx: &mut Cx<'_>, token: &str) -> Result<(), Refusal> {
        let waiting = self.waiting.as_mut();
        let has_turn = waiting.is_some_and(|waiting| std::mem::take(&mut waiting.turn) == Turn::Come);
        let cost = cx.shared.settings.tokens.cost(token);
        if has_turn || cx.shared.verifications.spend(cost) {
            self.drop_idle_waiting();
            cx.shared.counters.verifications += 1;
            return Ok(());
        }
        self.waiting.get_or_insert_default().turn = Turn::Awaited;
        cx.shared.effects.push(Effect::AwaitVerification { cost });
        Err(Refusal::NotYet)
    }

    /// The worker spends some of a tick on this session's token.
    pub(crate) fn verification_granted(&mut self) {
        if let Some(waiting) = &mut self.waiting
            && waiting.turn == Turn::Awaited
        {
            waiting.turn = Turn::Come;
        }
    }

    pub(super) fn connection_claims(&mut self, cx: &mut Cx<'_>, token: &str) -> Result<ConnectionClaims, Refusal> {
        self.may_verify(cx, token)?;
        cx.shared.settings.tokens.connection(token, cx.unix()).map_err(|error| match error {
            TokenError::Expired => Refusal::Error(ClientError::TOKEN_EXPIRED),
            TokenError::KeyUnknown => cx.lacks_a_key(),
            TokenError::Invalid(why) => {
                cx.note(Note::TokenInvalid { code: Disconnect::INVALID_TOKEN.code, why });
                Refusal::Disconnect(Disconnect::INVALID_TOKEN)
            }
        })
    }

    /// The client is who its claims say, or nobody in particular where there are none and such are let in. Returns when its
    /// connection ends and its server-side channels.
    pub(super) fn enter(
        &mut self,
        cx: &mut Cx<'_>,
        claims: Option<ConnectionClaims>,
        renewer: Renewer,
    ) -> Result<(Option<Expiry>, Vec<ServerSide>), Refusal> {
        let Some(claims) = claims else {
            if !cx.shared.settings.anonymous && !cx.shared.settings.insecure {
                cx.note(Note::AnonymousRefused);
                return Err(Disconnect::BAD_REQUEST.into());
            }
            return Ok((None, Vec::new()));
        };
        let expiry = cx.expiry(claims.lasts, renewer)?;
        let limit = cx.shared.settings.limits.connections_per_user_max;
        if limit > 0 && !claims.user.is_empty() && cx.shared.users.sessions(&claims.user) as usize >= limit {
            return Err(Disconnect::CONNECTION_LIMIT.into());
        }
        let user = cx.shared.users.enter(&claims.user);
        let identity = self.identity(cx.shared);
        let nobody = std::mem::replace(&mut identity.user, user);
        (identity.conn_info, identity.renewer) = (claims.info, renewer);
        cx.shared.users.leave(&nobody);
        self.prolong(cx.shared, expiry);
        Ok((expiry, claims.channels))
    }

    /// The connection lasts until then, or for ever.
    pub(super) fn prolong(&mut self, shared: &mut Shared, expiry: Option<Expiry>) {
        let identity = self.identity(shared);
        identity.expires = expiry.map(|expiry| expiry.by);
        if let Renewer::Backend { asked } = &mut identity.renewer {
            *asked = 0;
        }
    }

    /// The same of a subscription.
    pub(super) fn prolong_subscription(&mut self, channel: LocalId, expiry: Option<Expiry>, info: Option<Json>) {
        let terms = self.identity.as_mut().and_then(|it| it.terms.iter_mut().find(|terms| terms.channel == channel));
        let Some(terms) = terms else { return };
        (terms.expires, terms.renewer) = (expiry.map(|expiry| expiry.by), Renewer::BACKEND);
        if info.is_some() {
            terms.chan_info = info;
        }
    }

    /// Whether that question is about the connection's end.
    pub(super) fn is_asked_about(&self, number: u32) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.renewer.is_asked(number))
    }

    /// The channel about whose end that question is.
    pub(super) fn channel_asked_about(&self, number: u32) -> Option<LocalId> {
        let identity = self.identity.as_ref()?;
        identity.terms.iter().find(|terms| terms.renewer.is_asked(number)).map(|terms| terms.channel)
    }

    /// The refresh command: a new token for the same user.
    pub(super) fn refresh(&mut self, cx: &mut Cx<'_>, id: u32, refresh: &Refresh<'_>) -> Result<(), Refusal> {
        if refresh.token.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let expired = |refusal| match refusal {
            Refusal::Error(error) if !error.temporary => Refusal::Disconnect(Disconnect::EXPIRED),
            other => other,
        };
        let claims = self.connection_claims(cx, &refresh.token).map_err(expired)?;
        if claims.user != self.user() {
            cx.note(Note::TokenInvalid { code: Disconnect::INVALID_TOKEN.code, why: "it is for another user" });
            return Err(Disconnect::INVALID_TOKEN.into());
        }
        let expiry = cx.expiry(claims.lasts, Renewer::Client).map_err(|error| expired(error.into()))?;
        let identity = self.identity(cx.shared);
        identity.renewer = Renewer::Client;
        identity.conn_info = claims.info;
        self.prolong(cx.shared, expiry);
        let (client, ttl) = (self.client, expiry.and_then(Expiry::told));
        Ok(self.reply(cx, |format, out, settings| format.refreshed(out, id, client, &settings.version, ttl))?)
    }

    /// A backend lets the connection last until that Unix time, or for ever, and the client is told.
    pub(crate) fn refreshed(&mut self, cx: &mut Cx<'_>, until: Option<u64>) -> Result<(), Disconnect> {
        let lasts = until.map_or(Lasts::ForEver, Lasts::Until);
        let renewer = match self.identity(cx.shared).renewer {
            Renewer::Client => Renewer::Client,
            Renewer::Backend { .. } => Renewer::BACKEND,
        };
        let expiry = cx.expiry(lasts, renewer).map_err(|_| Disconnect::EXPIRED)?;
        self.prolong(cx.shared, expiry);
        let ttl = expiry.and_then(Expiry::told);
        match self.dialect {
            Dialect::Plain => cx.text(|out, _| plain::refreshed(out, ttl)),
            Dialect::Centrifugo(format) => cx.message(format.opcode(), |out, _| format.refresh_push(out, ttl)),
        }
    }

    /// Checks what a subscription token says against who brings it and for what.
    fn subscription_claims(
        &mut self,
        cx: &mut Cx<'_>,
        channel: &str,
        token: &str,
        signature: Refusal,
    ) -> Result<SubscriptionClaims, Refusal> {
        self.may_verify(cx, token)?;
        let code = match &signature {
            Refusal::Error(error) => error.code,
            _ => Disconnect::INVALID_TOKEN.code,
        };
        let claims = cx.shared.settings.tokens.subscription(token, cx.unix());
        let claims = claims.map_err(|error| match error {
            TokenError::Expired => Refusal::Error(ClientError::TOKEN_EXPIRED),
            TokenError::KeyUnknown => cx.lacks_a_key(),
            TokenError::Invalid(why) => {
                cx.note(Note::TokenInvalid { code, why });
                signature
            }
        })?;
        let why = if claims.user != self.user() {
            "it is for another user"
        } else if claims.channel != channel {
            "it is for another channel"
        } else if claims.client.as_ref().is_some_and(|client| *client != self.client.to_string()) {
            "it is for another client"
        } else {
            return Ok(claims);
        };
        cx.note(Note::TokenInvalid { code: Disconnect::INVALID_TOKEN.code, why });
        Err(Disconnect::INVALID_TOKEN.into())
    }

    /// What the token of a subscribe command grants.
    pub(super) fn grant_of_token(&mut self, cx: &mut Cx<'_>, request: &Subscribe<'_>) -> Result<Grant, Refusal> {
        let denied = ClientError::PERMISSION_DENIED.into();
        let claims = self.subscription_claims(cx, &request.channel, &request.token, denied)?;
        let expiry = cx.expiry(claims.lasts, Renewer::Client)?;
        let (chan_info, data, changed) = (claims.info, claims.data, claims.changed);
        Ok(Grant { expiry, chan_info, data, changed, ..Grant::default() })
    }

    /// The sub_refresh command: a new token for a subscription.
    pub(super) fn sub_refresh(&mut self, cx: &mut Cx<'_>, id: u32, refresh: &SubRefresh<'_>) -> Result<(), Refusal> {
        if refresh.channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let channel = self.subscription(cx, &refresh.channel).ok_or(ClientError::PERMISSION_DENIED)?;
        if refresh.token.is_empty() {
            return Err(ClientError::BAD_REQUEST.into());
        }
        let expired = |refusal| match refusal {
            Refusal::Error(error) if !error.temporary => Refusal::Disconnect(Disconnect::SUBSCRIPTION_EXPIRED),
            other => other,
        };
        let invalid = Disconnect::INVALID_TOKEN.into();
        let claims = self.subscription_claims(cx, &refresh.channel, &refresh.token, invalid).map_err(expired)?;
        let expiry = cx.expiry(claims.lasts, Renewer::Client).map_err(|error| expired(error.into()))?;
        let server_side = self.is_server_side(channel);
        let grant = Grant { server_side, expiry, chan_info: claims.info, ..Grant::default() };
        self.keep_terms(cx.shared, channel, &grant);
        let ttl = expiry.and_then(Expiry::told);
        Ok(self.reply(cx, |format, out, _| format.sub_refreshed(out, id, ttl))?)
    }

    /// Remembers what is special about a subscription.
    pub(super) fn keep_terms(&mut self, shared: &mut Shared, channel: LocalId, grant: &Grant) {
        self.drop_terms(channel);
        if grant.is_special() {
            let (expires, chan_info) = (grant.expiry.map(|expiry| expiry.by), grant.chan_info.clone());
            let renewer = grant.expiry.map_or(Renewer::Client, |expiry| expiry.renewer);
            let terms = Terms { channel, server_side: grant.server_side, expires, renewer, chan_info };
            let all = &mut self.identity(shared).terms;
            if all.is_empty() {
                // Most have one, and a vector would begin with room for four.
                all.reserve_exact(1);
            }
            all.push(terms);
        }
    }

    pub(super) fn drop_terms(&mut self, channel: LocalId) {
        if let Some(identity) = &mut self.identity {
            identity.terms.retain(|terms| terms.channel != channel);
        }
    }

    /// When the connection or a subscription ends next, if nothing is refreshed.
    pub(crate) fn next_expiry(&self) -> Option<Moment> {
        let identity = self.identity.as_ref().filter(|_| self.stage == Stage::Connected)?;
        identity.terms.iter().filter_map(|terms| terms.expires).chain(identity.expires).min()
    }

    /// Ends what is over by now, or asks the backend whether it goes on. What it is asked about goes on for a while, so that
    /// neither a slow answer nor none ends it.
    pub(crate) fn expire(&mut self, cx: &mut Cx<'_>) -> Result<(), Disconnect> {
        let now = cx.now;
        while self.next_expiry().is_some_and(|at| at.is_due(now)) {
            let Some(identity) = &self.identity else { break };
            if identity.expires.is_some_and(|at| at.is_due(now)) {
                if identity.renewer == Renewer::Client || !cx.shared.settings.webhooks.answer(Event::Refresh) {
                    return Err(Disconnect::EXPIRED);
                }
                let asked = self.ask_backend(cx, About::Refresh);
                let identity = self.identity(cx.shared);
                identity.renewer = Renewer::Backend { asked };
                identity.expires = Some(Moment::after(now, ASK_AGAIN_AFTER));
                continue;
            }
            let is_over = |terms: &Terms| terms.expires.is_some_and(|at| at.is_due(now));
            let Some(at) = identity.terms.iter().position(is_over) else { break };
            let (local, renewer) = (identity.terms[at].channel, identity.terms[at].renewer);
            let channel = cx.shared.local.channel(local).to_string();
            if renewer == Renewer::Client || !cx.asks(Event::SubRefresh, &channel) {
                self.end_subscription(cx, local)?;
                continue;
            }
            let asked = self.ask_backend(cx, About::SubRefresh { channel });
            let terms = &mut self.identity(cx.shared).terms[at];
            (terms.renewer, terms.expires) = (Renewer::Backend { asked }, Some(Moment::after(now, ASK_AGAIN_AFTER)));
        }
        Ok(())
    }

    /// The time of a subscription is over.
    pub(super) fn end_subscription(&mut self, cx: &mut Cx<'_>, local: LocalId) -> Result<(), Disconnect> {
        if self.is_server_side(local) {
            return Err(Disconnect::SUBSCRIPTION_EXPIRED);
        }
        let channel = cx.shared.local.channel(local).clone();
        self.leave(cx, local);
        self.tell_unsubscribed(cx, &channel, Unsubscribed::EXPIRED)
    }
}

impl Waiting {
    /// Whether input has to wait for a token to be checked.
    pub(super) fn awaits_turn(&self) -> bool {
        self.turn == Turn::Awaited
    }
}

impl Cx<'_> {
    /// A token may be good, and by which key is to be found out: its client tries again, with what is known by then.
    fn lacks_a_key(&mut self) -> Refusal {
        self.shared.effects.push(Effect::FetchKeys);
        ClientError::INTERNAL.into()
    }

    /// The time of the outside world.
    fn unix(&self) -> Duration {
        self.shared.unix_origin + self.now
    }

    /// When what a token or the backend allows ends here.
    pub(super) fn expiry(&self, lasts: Lasts, renewer: Renewer) -> Result<Option<Expiry>, ClientError> {
        let Lasts::Until(at) = lasts else { return Ok(None) };
        let left = Duration::from_secs(at).checked_sub(self.unix()).filter(|left| !left.is_zero());
        let left = left.ok_or(ClientError::EXPIRED)?.min(LONGEST);
        // A client refreshes at whole seconds; one that hears 0 would ask at once and for ever.
        let ttl = left.as_secs().clamp(1, u64::from(u32::MAX)) as u32;
        // Who refreshes when it was told to is in time, also where that is later than what is left.
        let left = left.max(Duration::from_secs(ttl.into()));
        let grace = match renewer {
            Renewer::Client => self.shared.settings.times.expired_close_delay,
            Renewer::Backend { .. } => Duration::ZERO,
        };
        Ok(Some(Expiry { ttl, by: Moment::after(self.now, left + grace), renewer }))
    }
}
