//! Who a client is, and until when: tokens, what they grant, and their end.

use super::{Dialect, Session, Stage, Waiting};
use crate::auth::token::{Changed, ConnectionClaims, Json, Lasts, SubscriptionClaims, TokenError};
use crate::command::{Connect, Refresh, SubRefresh, Subscribe};
use crate::dialect::plain;
use crate::disconnect::{ClientError, Disconnect, Unsubscribed};
use crate::effect::{Effect, Note};
use crate::moment::Moment;
use crate::shared::{Cx, Shared};
use hub::{ClientInfo, LocalId};
use std::sync::Arc;
use std::time::Duration;

/// No connection lasts longer; what a token says beyond it is cut.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What only a session with a token has, or one with a subscription that something special is known of.
#[derive(Debug)]
pub(super) struct Identity {
    user: Arc<str>,
    conn_info: Option<Json>,
    /// When the connection is closed.
    expires: Option<Moment>,
    terms: Vec<Terms>,
}

/// What is special about a subscription.
#[derive(Debug)]
struct Terms {
    channel: LocalId,
    server_side: bool,
    /// When it ends.
    expires: Option<Moment>,
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
}

impl Grant {
    fn is_special(&self) -> bool {
        self.server_side || self.expiry.is_some() || self.chan_info.is_some()
    }
}

/// The end of something that a client may prolong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    /// Seconds from now, as the client is told.
    pub(super) ttl: u32,
    /// The same, and the time that a client has beyond it.
    by: Moment,
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
            Box::new(Identity { user, conn_info: None, expires: None, terms: Vec::new() })
        })
    }

    /// The session ends.
    pub(super) fn forget_identity(&mut self, shared: &mut Shared) {
        if let Some(identity) = self.identity.take() {
            shared.users.leave(&identity.user);
        }
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

    fn connection_claims(&mut self, cx: &mut Cx<'_>, token: &str) -> Result<ConnectionClaims, Refusal> {
        self.may_verify(cx, token)?;
        cx.shared.settings.tokens.connection(token, cx.unix()).map_err(|error| match error {
            TokenError::Expired => Refusal::Error(ClientError::TOKEN_EXPIRED),
            TokenError::Invalid(why) => {
                cx.note(Note::TokenInvalid { code: Disconnect::INVALID_TOKEN.code, why });
                Refusal::Disconnect(Disconnect::INVALID_TOKEN)
            }
        })
    }

    /// Decides who a connecting client is. Returns when its connection ends and its server-side channels.
    pub(super) fn authenticate(
        &mut self,
        cx: &mut Cx<'_>,
        connect: &Connect<'_>,
    ) -> Result<(Option<Expiry>, Vec<crate::auth::token::ServerSide>), Refusal> {
        if connect.token.is_empty() {
            if !cx.shared.settings.anonymous && !cx.shared.settings.insecure {
                cx.note(Note::AnonymousRefused);
                return Err(Disconnect::BAD_REQUEST.into());
            }
            return Ok((None, Vec::new()));
        }
        let claims = self.connection_claims(cx, &connect.token)?;
        let expiry = cx.expiry(claims.lasts)?;
        let limit = cx.shared.settings.limits.connections_per_user_max;
        if limit > 0 && !claims.user.is_empty() && cx.shared.users.sessions(&claims.user) as usize >= limit {
            return Err(Disconnect::CONNECTION_LIMIT.into());
        }
        let user = cx.shared.users.enter(&claims.user);
        let expires = expiry.map(|expiry| expiry.by);
        self.identity = Some(Box::new(Identity { user, conn_info: claims.info, expires, terms: Vec::new() }));
        Ok((expiry, claims.channels))
    }

    /// The refresh command: a new token for the same user.
    pub(super) fn refresh(&mut self, cx: &mut Cx<'_>, id: u32, refresh: &Refresh<'_>) -> Result<(), Refusal> {
        if refresh.token.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let expired = |refusal| match refusal {
            Refusal::Error(_) => Refusal::Disconnect(Disconnect::EXPIRED),
            other => other,
        };
        let claims = self.connection_claims(cx, &refresh.token).map_err(expired)?;
        if claims.user != self.user() {
            cx.note(Note::TokenInvalid { code: Disconnect::INVALID_TOKEN.code, why: "it is for another user" });
            return Err(Disconnect::INVALID_TOKEN.into());
        }
        let expiry = cx.expiry(claims.lasts).map_err(|error| expired(error.into()))?;
        let identity = self.identity(cx.shared);
        identity.expires = expiry.map(|expiry| expiry.by);
        identity.conn_info = claims.info;
        let (client, ttl) = (self.client, expiry.map(|expiry| expiry.ttl));
        Ok(self.reply(cx, |format, out, settings| format.refreshed(out, id, client, &settings.version, ttl))?)
    }

    /// A backend lets the connection last until that Unix time, or for ever, and the client is told.
    pub(crate) fn refreshed(&mut self, cx: &mut Cx<'_>, until: Option<u64>) -> Result<(), Disconnect> {
        let lasts = until.map_or(Lasts::ForEver, Lasts::Until);
        let expiry = cx.expiry(lasts).map_err(|_| Disconnect::EXPIRED)?;
        self.identity(cx.shared).expires = expiry.map(|expiry| expiry.by);
        let ttl = expiry.map(|expiry| expiry.ttl);
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
        let expiry = cx.expiry(claims.lasts)?;
        let (chan_info, data, changed) = (claims.info, claims.data, claims.changed);
        Ok(Grant { server_side: false, expiry, chan_info, data, changed })
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
            Refusal::Error(_) => Refusal::Disconnect(Disconnect::SUBSCRIPTION_EXPIRED),
            other => other,
        };
        let invalid = Disconnect::INVALID_TOKEN.into();
        let claims = self.subscription_claims(cx, &refresh.channel, &refresh.token, invalid).map_err(expired)?;
        let expiry = cx.expiry(claims.lasts).map_err(|error| expired(error.into()))?;
        let server_side = self.is_server_side(channel);
        let grant = Grant { server_side, expiry, chan_info: claims.info, ..Grant::default() };
        self.keep_terms(cx.shared, channel, &grant);
        let ttl = expiry.map(|expiry| expiry.ttl);
        Ok(self.reply(cx, |format, out, _| format.sub_refreshed(out, id, ttl))?)
    }

    /// Remembers what is special about a subscription.
    pub(super) fn keep_terms(&mut self, shared: &mut Shared, channel: LocalId, grant: &Grant) {
        self.drop_terms(channel);
        if grant.is_special() {
            let (expires, chan_info) = (grant.expiry.map(|expiry| expiry.by), grant.chan_info.clone());
            let terms = Terms { channel, server_side: grant.server_side, expires, chan_info };
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

    /// Ends what is over by now.
    pub(crate) fn expire(&mut self, cx: &mut Cx<'_>) -> Result<(), Disconnect> {
        let now = cx.now;
        while self.next_expiry().is_some_and(|at| at.is_due(now)) {
            let Some(identity) = &self.identity else { break };
            if identity.expires.is_some_and(|at| at.is_due(now)) {
                return Err(Disconnect::EXPIRED);
            }
            let is_over = |terms: &&Terms| terms.expires.is_some_and(|at| at.is_due(now));
            let Some(over) = identity.terms.iter().find(is_over) else { break };
            if over.server_side {
                return Err(Disconnect::SUBSCRIPTION_EXPIRED);
            }
            let local = over.channel;
            let channel = cx.shared.local.channel(local).clone();
            self.leave(cx, local);
            self.tell_unsubscribed(cx, &channel, Unsubscribed::EXPIRED)?;
        }
        Ok(())
    }
}

impl Waiting {
    /// Whether input has to wait for a token to be checked.
    pub(super) fn awaits_turn(&self) -> bool {
        self.turn == Turn::Awaited
    }
}

impl Cx<'_> {
    /// The time of the outside world.
    fn unix(&self) -> Duration {
        self.shared.unix_origin + self.now
    }

    /// When what a token allows ends here.
    pub(super) fn expiry(&self, lasts: Lasts) -> Result<Option<Expiry>, ClientError> {
        let Lasts::Until(at) = lasts else { return Ok(None) };
        let left = Duration::from_secs(at).checked_sub(self.unix()).filter(|left| !left.is_zero());
        let left = left.ok_or(ClientError::EXPIRED)?.min(LONGEST);
        // A client refreshes at whole seconds; one that hears 0 would ask at once and for ever.
        let ttl = left.as_secs().clamp(1, u64::from(u32::MAX)) as u32;
        // Who refreshes when it was told to is in time, also where that is later than what is left.
        let left = left.max(Duration::from_secs(ttl.into()));
        let by = Moment::after(self.now, left + self.shared.settings.times.expired_close_delay);
        Ok(Some(Expiry { ttl, by }))
    }
}
