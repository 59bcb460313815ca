//! The bodies that callers send, checked into what the workers take.
//!
//! Every field is optional to the parser, because clients in some languages write `null` for what they leave out.
//! Fields unknown here are ignored, as Centrifugo does. Fields known but not implemented are refused by name with
//! error 108 where leaving them out would change what the caller gets, and taken where it would not:
//!
//! | Field | Here | Why |
//! |---|---|---|
//! | `delta` | taken | whether patches are made is said by the namespace (`delta_publish`); the payload is the same |
//! | `recover_since` | 108 without a history | what is said to be missing could not be sent |
//! | `version` | 108 without a history | the caller counts on an older version being dropped |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub::{HistoryQuery, Offset, PublishOptions, Since, SinceEpoch, Tags};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::backend::{ClientAction, Clients, ServerSide};
use crate::glob::Glob;
use crate::limits;
use crate::settings::ApiSettings;

/// Close code when the caller names none: disconnected by force, the client stays away.
pub(crate) const FORCE_DISCONNECT: (u16, &str) = (3503, "force disconnect");

/// What a client is told whose time a backend ends: it comes back with a new token.
const EXPIRED: (u16, &str) = (3005, "connection expired");

/// `publish` reads `channel`, `broadcast` reads `channels`; all else is the same.
#[derive(Deserialize)]
pub(crate) struct Publish<'a> {
    pub(crate) channel: Option<String>,
    pub(crate) channels: Option<Vec<String>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    tags: Option<Tags>,
    idempotency_key: Option<String>,
    version: Option<u64>,
    version_epoch: Option<String>,
    skip_history: Option<bool>,
}

/// A checked publication without its channel.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) data: Box<[u8]>,
    pub(crate) tags: Option<Box<Tags>>,
    pub(crate) options: Option<Box<PublishOptions>>,
}

impl Publish<'_> {
    /// Checks everything but the channels.
    pub(crate) fn content(self, settings: &ApiSettings) -> Result<Content, ApiError> {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty()).map(String::into_boxed_str);
        let options = PublishOptions {
            skip_history: self.skip_history.unwrap_or_default(),
            idempotency_key: text(self.idempotency_key),
            version: self.version.unwrap_or_default(),
            version_epoch: text(self.version_epoch),
        };
        let data = attached(settings, ("data", self.data), ("b64data", self.b64data))?
            .ok_or_else(|| ApiError::bad("data", "`data` is missing or null"))?;
        let tags = self.tags.filter(|tags| !tags.is_empty());
        if let Some(tags) = &tags
            && tags.len() > limits::TAGS_MAX
        {
            return Err(ApiError::bad(
                "tags",
                format!("{} `tags`, at most {} are taken", tags.len(), limits::TAGS_MAX),
            ));
        }
        let options = (options != PublishOptions::default()).then(|| Box::new(options));
        Ok(Content { data, tags: tags.map(Box::new), options })
    }
}

/// JSON from one of two fields, the second in base64.
fn attached(
    settings: &ApiSettings,
    (field, raw): (&'static str, Option<&RawValue>),
    (encoded_field, encoded): (&'static str, Option<String>),
) -> Result<Option<Box<[u8]>>, ApiError> {
    let json = match (encoded, raw) {
        (Some(encoded), _) if !encoded.is_empty() => decode(encoded_field, &encoded)?,
        (_, Some(raw)) => compact(raw.get()),
        (_, None) => return Ok(None),
    };
    if json.len() > settings.data_bytes_max {
        let max = settings.data_bytes_max;
        return Err(ApiError::bad(
            "api.data_bytes_max",
            format!("`{field}` has {} bytes, at most {max} are taken", json.len()),
        ));
    }
    Ok(Some(json))
}

/// JSON text without its line breaks. A JSON string cannot hold a raw line break, so each one stands between two
/// tokens; everything else stays byte for byte (numbers beyond f64, escapes, duplicate keys).
fn compact(json: &str) -> Box<[u8]> {
    if !json.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return json.as_bytes().into();
    }
    json.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect()
}

/// Every client of this node reads JSON, so the decoded bytes must be JSON.
fn decode(field: &'static str, encoded: &str) -> Result<Box<[u8]>, ApiError> {
    let bytes =
        STANDARD.decode(encoded).map_err(|error| ApiError::bad(field, format!("`{field}` is not base64: {error}")))?;
    match serde_json::from_slice::<&RawValue>(&bytes) {
        Ok(raw) => Ok(compact(raw.get())),
        Err(error) => Err(ApiError::bad(
            field,
            format!("`{field}` does not hold JSON, which is all that clients of this node read: {error}"),
        )),
    }
}

#[derive(Deserialize)]
pub(crate) struct Channels {
    pattern: Option<String>,
}

impl Channels {
    pub(crate) fn check(self) -> Result<Option<Glob>, ApiError> {
        match self.pattern.filter(|pattern| !pattern.is_empty()) {
            None => Ok(None),
            Some(pattern) => Glob::new(&pattern).map(Some).map_err(|error| ApiError::bad("pattern", error.to_string())),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Info {}

#[derive(Deserialize)]
pub(crate) struct History {
    channel: Option<String>,
    limit: Option<i64>,
    since: Option<Position>,
    reverse: Option<bool>,
}

#[derive(Deserialize)]
struct Position {
    offset: Option<u64>,
    epoch: Option<String>,
}

impl Position {
    fn since(self) -> Since {
        let epoch = SinceEpoch::read(self.epoch.as_deref().unwrap_or_default());
        Since { offset: Offset(self.offset.unwrap_or_default()), epoch }
    }
}

impl History {
    /// The channel, unchecked, and what is wanted of it.
    pub(crate) fn check(self, settings: &ApiSettings) -> (String, HistoryQuery) {
        let since = self.since.map(Position::since);
        // Below 0 is as many as there may be.
        let wanted = usize::try_from(self.limit.unwrap_or_default()).unwrap_or(usize::MAX);
        let query = HistoryQuery {
            since,
            reverse: self.reverse.unwrap_or_default(),
            publications_max: wanted.min(settings.history_publications_max),
            bytes_max: limits::HISTORY_BYTES_MAX,
        };
        (self.channel.unwrap_or_default(), query)
    }
}

#[derive(Deserialize)]
pub(crate) struct Presence {
    pub(crate) channel: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct HistoryRemove {
    pub(crate) channel: Option<String>,
}

/// Which connections of a user.
#[derive(Deserialize)]
struct Whose {
    user: Option<String>,
    client: Option<String>,
    session: Option<String>,
    whitelist: Option<Vec<String>>,
}

impl Whose {
    fn check(self) -> Result<Clients, ApiError> {
        let client = self.client.filter(|client| !client.is_empty());
        let session = self.session.filter(|session| !session.is_empty());
        if self.user.is_none() && client.is_none() && session.is_none() {
            // An empty user is the anonymous ones; leaving all three out must not mean everybody.
            return Err(ApiError::bad("user", "`user` is missing (\"\" means anonymous users)"));
        }
        let whitelist = self.whitelist.unwrap_or_default();
        if whitelist.len() > limits::WHITELIST_MAX {
            return Err(ApiError::bad(
                "whitelist",
                format!("`whitelist` of {}, at most {}", whitelist.len(), limits::WHITELIST_MAX),
            ));
        }
        Ok(Clients { user: self.user, client, session, whitelist })
    }
}

#[derive(Deserialize)]
pub(crate) struct Connections {
    #[serde(flatten)]
    whose: Whose,
}

impl Connections {
    pub(crate) fn check(self) -> Result<Clients, ApiError> {
        self.whose.check()
    }
}

#[derive(Deserialize)]
pub(crate) struct Disconnect {
    #[serde(flatten)]
    whose: Whose,
    disconnect: Option<CloseWith>,
}

#[derive(Deserialize)]
pub(crate) struct Unsubscribe {
    #[serde(flatten)]
    whose: Whose,
    pub(crate) channel: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Subscribe<'a> {
    #[serde(flatten)]
    whose: Whose,
    pub(crate) channel: Option<String>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    expire_at: Option<u64>,
    recover_since: Option<Position>,
    r#override: Option<Override>,
}

/// `{"force_recovery":{"value":true}}`
#[derive(Deserialize, Default)]
struct Override {
    presence: Option<Switch>,
    join_leave: Option<Switch>,
    force_recovery: Option<Switch>,
    force_positioning: Option<Switch>,
    force_push_join_leave: Option<Switch>,
}

#[derive(Deserialize)]
struct Switch {
    value: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct Refresh {
    #[serde(flatten)]
    whose: Whose,
    expired: Option<bool>,
    expire_at: Option<u64>,
}

#[derive(Deserialize)]
struct CloseWith {
    code: Option<u32>,
    reason: Option<String>,
}

impl Disconnect {
    pub(crate) fn check(self) -> Result<(Clients, ClientAction), ApiError> {
        let clients = self.whose.check()?;
        let (code, reason) = close_with(self.disconnect)?;
        Ok((clients, ClientAction::Disconnect { code, reason }))
    }
}

impl Subscribe<'_> {
    /// The channel has been looked at; `now` is Unix time in seconds.
    pub(crate) fn check(
        self,
        settings: &ApiSettings,
        keeps_history: bool,
        now: u64,
    ) -> Result<(Clients, ClientAction), ApiError> {
        let clients = self.whose.check()?;
        if self.recover_since.is_some() && !keeps_history {
            return Err(ApiError::not_available(
                "recover_since",
                "`recover_since` needs a channel with a history, without one nothing could be sent again",
            ));
        }
        let changed = self.r#override.unwrap_or_default();
        let expire_at = self.expire_at.filter(|&at| at > 0);
        if expire_at.is_some_and(|at| at <= now) {
            return Err(ApiError::bad("expire_at", "`expire_at` is over"));
        }
        let value = |value: Option<Switch>| value.and_then(|value| value.value);
        let to = ServerSide {
            channel: self.channel.unwrap_or_default(),
            info: attached(settings, ("info", self.info), ("b64info", self.b64info))?,
            data: attached(settings, ("data", self.data), ("b64data", self.b64data))?,
            expire_at,
            recover_since: self.recover_since.map(Position::since),
            presence: value(changed.presence),
            join_leave: value(changed.join_leave),
            force_recovery: value(changed.force_recovery),
            force_positioning: value(changed.force_positioning),
            force_push_join_leave: value(changed.force_push_join_leave),
        };
        Ok((clients, ClientAction::Subscribe(Box::new(to))))
    }
}

impl Unsubscribe {
    /// The channel has been looked at.
    pub(crate) fn check(self) -> Result<(Clients, ClientAction), ApiError> {
        Ok((self.whose.check()?, ClientAction::Unsubscribe(self.channel.unwrap_or_default())))
    }
}

impl Refresh {
    pub(crate) fn check(self) -> Result<(Clients, ClientAction), ApiError> {
        let clients = self.whose.check()?;
        let action = if self.expired.unwrap_or(false) {
            let (code, reason) = EXPIRED;
            ClientAction::Disconnect { code, reason: reason.to_owned() }
        } else {
            ClientAction::Refresh(self.expire_at.filter(|&at| at > 0))
        };
        Ok((clients, action))
    }
}

fn close_with(wanted: Option<CloseWith>) -> Result<(u16, String), ApiError> {
    let wanted = wanted.unwrap_or(CloseWith { code: None, reason: None });
    let code = match wanted.code {
        None | Some(0) => FORCE_DISCONNECT.0,
        Some(code @ 3000..=4999) => code as u16,
        Some(code) => {
            return Err(ApiError::bad("disconnect.code", format!("`disconnect.code` {code} is not within 3000..4999")));
        }
    };
    let reason = match wanted.reason {
        // Our own words belong to our own code only.
        None if code == FORCE_DISCONNECT.0 => FORCE_DISCONNECT.1.to_owned(),
        None => String::new(),
        Some(reason) => reason,
    };
    if reason.len() > limits::CLOSE_REASON_BYTES_MAX {
        return Err(ApiError::bad(
            "disconnect.reason",
            format!(
                "`disconnect.reason` has {} bytes, at most {} fit a close frame",
                reason.len(),
                limits::CLOSE_REASON_BYTES_MAX
            ),
        ));
    }
    // Client SDKs read a reason that is JSON as the advice object of an older protocol.
    if serde_json::from_str::<&RawValue>(&reason).is_ok() {
        return Err(ApiError::bad(
            "disconnect.reason",
            "`disconnect.reason` is JSON, which clients take for an old protocol's advice",
        ));
    }
    Ok((code, reason))
}
