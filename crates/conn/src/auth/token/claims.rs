//! What tokens say.

use super::{TokenError, Tokens};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// JSON text without line breaks.
pub type Json = Arc<[u8]>;

/// How long what a token allows goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// For ever.
    ForEver,
    /// Until this Unix time in seconds.
    Until(u64),
}

/// What a connection token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// The user, "" for none.
    pub user: String,
    /// How long the connection may last.
    pub lasts: Lasts,
    /// What other clients are told of this one.
    pub info: Option<Json>,
    /// Channels that it is subscribed to at once.
    pub channels: Vec<ServerSide>,
}

/// A channel that a connection token subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSide {
    /// The channel.
    pub channel: String,
    /// What other clients are told of this one in that channel.
    pub info: Option<Json>,
    /// What the client is told with the subscription.
    pub data: Option<Json>,
    /// Options of the channel's namespace that are others here.
    pub changed: Changed,
}

/// What a subscription token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionClaims {
    /// Whose it is.
    pub user: String,
    /// For which channel.
    pub channel: String,
    /// For which connection of that user, if not for any.
    pub client: Option<String>,
    /// How long the subscription may last.
    pub lasts: Lasts,
    /// What other clients are told of this one in that channel.
    pub info: Option<Json>,
    /// What the client is told with the subscription.
    pub data: Option<Json>,
    /// Options of the channel's namespace that are others here.
    pub changed: Changed,
}

/// The claim `override`, as far as it names what there is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// `presence`
    pub presence: Option<bool>,
    /// `join_leave`
    pub join_leave: Option<bool>,
    /// `force_recovery`
    pub force_recovery: Option<bool>,
    /// `force_positioning`
    pub force_positioning: Option<bool>,
    /// `force_push_join_leave`
    pub force_push_join_leave: Option<bool>,
}

/// The claims that say whether a token counts.
#[derive(Deserialize)]
pub(super) struct Registered {
    exp: Option<f64>,
    nbf: Option<f64>,
    aud: Option<Audience>,
    iss: Option<String>,
    expire_at: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Registered {
    pub(super) fn check(&self, tokens: &Tokens, unix: Duration) -> Result<(), TokenError> {
        let (now, leeway) = (unix.as_secs_f64(), tokens.leeway.as_secs_f64());
        if let Some(wanted) = &tokens.audience {
            let named = match &self.aud {
                Some(Audience::One(one)) => one == wanted,
                Some(Audience::Several(several)) => several.contains(wanted),
                None => false,
            };
            if !named {
                return Err(TokenError::Invalid("its audience is another"));
            }
        }
        if tokens.issuer.is_some() && self.iss != tokens.issuer {
            return Err(TokenError::Invalid("its issuer is another"));
        }
        let is_over = self.exp.is_some_and(|exp| now >= exp + leeway);
        let is_to_come = self.nbf.is_some_and(|nbf| now < nbf - leeway);
        if is_over || is_to_come { Err(TokenError::Expired) } else { Ok(()) }
    }

    /// `expire_at` counts for what the token allows, `exp` for itself; without the former it counts for both.
    fn lasts(&self) -> Lasts {
        match (self.expire_at, self.exp) {
            (Some(0), _) | (None, None) => Lasts::ForEver,
            (Some(at), _) => Lasts::Until(at.max(0) as u64),
            // A conversion that cannot fail: what does not fit becomes the nearest that does.
            (None, Some(exp)) => Lasts::Until(exp as u64),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RawConnection {
    sub: Option<String>,
    channel: Option<serde::de::IgnoredAny>,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, Option<RawServerSide>>>,
}

/// What goes with a channel that somebody is subscribed to.
#[derive(Deserialize, Default)]
pub(crate) struct RawServerSide {
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    changed: Option<RawChanged>,
}

#[derive(Deserialize)]
pub(super) struct RawSubscription {
    sub: Option<String>,
    channel: Option<String>,
    client: Option<String>,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    changed: Option<RawChanged>,
}

/// The JSON of [`Changed`].
#[derive(Deserialize, Default, Clone, Copy)]
pub(crate) struct RawChanged {
    presence: Option<RawSwitch>,
    join_leave: Option<RawSwitch>,
    force_recovery: Option<RawSwitch>,
    force_positioning: Option<RawSwitch>,
    force_push_join_leave: Option<RawSwitch>,
}

#[derive(Deserialize, Clone, Copy)]
struct RawSwitch {
    value: bool,
}

impl From<Option<RawChanged>> for Changed {
    fn from(raw: Option<RawChanged>) -> Self {
        let raw = raw.unwrap_or_default();
        Self {
            presence: raw.presence.map(|switch| switch.value),
            join_leave: raw.join_leave.map(|switch| switch.value),
            force_recovery: raw.force_recovery.map(|switch| switch.value),
            force_positioning: raw.force_positioning.map(|switch| switch.value),
            force_push_join_leave: raw.force_push_join_leave.map(|switch| switch.value),
        }
    }
}

impl ConnectionClaims {
    pub(super) fn read(registered: Registered, raw: RawConnection) -> Result<Self, TokenError> {
        if raw.channel.is_some() {
            return Err(TokenError::Invalid("it is a subscription token"));
        }
        let channels = server_side(raw.subs, raw.channels)?;
        let (user, lasts) = (raw.sub.unwrap_or_default(), registered.lasts());
        Ok(Self { user, lasts, info: json(raw.info, raw.b64info)?, channels })
    }
}

impl ServerSide {
    /// The channel with nothing said about it.
    pub fn plain(channel: String) -> Self {
        Self { channel, info: None, data: None, changed: Changed::default() }
    }

    fn read(channel: String, raw: RawServerSide) -> Result<Self, NotJson> {
        let (info, data) = (json(raw.info, raw.b64info)?, json(raw.data, raw.b64data)?);
        Ok(Self { channel, info, data, changed: raw.changed.into() })
    }
}

impl SubscriptionClaims {
    pub(super) fn read(registered: Registered, raw: RawSubscription) -> Result<Self, TokenError> {
        Ok(Self {
            user: raw.sub.unwrap_or_default(),
            channel: raw.channel.ok_or(TokenError::Invalid("it names no channel"))?,
            client: raw.client.filter(|client| !client.is_empty()),
            lasts: registered.lasts(),
            info: json(raw.info, raw.b64info)?,
            data: json(raw.data, raw.b64data)?,
            changed: raw.changed.into(),
        })
    }
}

/// The channels of `subs`, or where there is none those of `channels`.
pub(crate) fn server_side(
    subs: Option<BTreeMap<String, Option<RawServerSide>>>,
    channels: Option<Vec<String>>,
) -> Result<Vec<ServerSide>, NotJson> {
    if let Some(subs) = subs {
        return subs.into_iter().map(|(channel, sub)| ServerSide::read(channel, sub.unwrap_or_default())).collect();
    }
    let mut names = channels.unwrap_or_default();
    names.sort();
    names.dedup();
    Ok(names.into_iter().map(ServerSide::plain).collect())
}

/// Why a value in base64 does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJson(pub(crate) &'static str);

impl From<NotJson> for TokenError {
    fn from(NotJson(why): NotJson) -> Self {
        Self::Invalid(why)
    }
}

/// A value as it stands, or in base64, which has to be JSON as well: it goes into other clients' JSON.
pub(crate) fn json(raw: Option<Box<RawValue>>, base64: Option<String>) -> Result<Option<Json>, NotJson> {
    let decoded;
    let text = match (&raw, base64) {
        (Some(raw), _) => raw.get(),
        (None, None) => return Ok(None),
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64).map_err(|_| NotJson("it has bad base64"))?;
            decoded = serde_json::from_slice::<Box<RawValue>>(&bytes);
            decoded.as_ref().map_err(|_| NotJson("its base64 is not JSON"))?.get()
        }
    };
    Ok(Some(one_line(text)))
}

/// JSON text without the line breaks between its tokens: inside of strings JSON has them escaped.
pub(crate) fn one_line(json: &str) -> Json {
    let line: String = json.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    line.into_bytes().into()
}
