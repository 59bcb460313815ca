//! What is answered, from JSON.

use super::Event;
use crate::auth::token::{
    Changed, ConnectionClaims, Json, Lasts, NotJson, RawChanged, RawServerSide, json, server_side,
};
use crate::disconnect::{ClientError, Disconnect};
use hub::{PublishOptions, Tags};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Bytes of a backend's error message.
const MESSAGE_BYTES_MAX: usize = 256;

/// Bytes of a close reason (RFC 6455, 5.5: 125 with the code in front).
const REASON_BYTES_MAX: usize = 123;

/// What a backend says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, or a no that has a form of its own.
    Result(Verdict),
    /// The command fails with this.
    Error(ClientError),
    /// The connection is closed with this.
    Disconnect(Disconnect),
    /// There was no answer, or none that counts.
    None,
}

/// The result, by event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Who the client is; `None`: nobody in particular.
    Connect(Option<Box<Admission>>),
    /// Whether it may stay.
    Refresh(Renewal),
    /// It may subscribe.
    Subscribe(Given),
    /// It may publish.
    Publish(Rewritten),
    /// Whether it may stay subscribed.
    SubRefresh(Renewal),
    /// It was done.
    Rpc(Option<Json>),
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The same as a token says.
    pub claims: ConnectionClaims,
    /// What the client is told.
    pub data: Option<Json>,
    /// What later questions repeat.
    pub meta: Option<Json>,
}

/// Whether something goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// How long, if it does.
    pub lasts: Option<Lasts>,
    /// What others are told of the client from now on, where that changes.
    pub info: Option<Json>,
    /// What later questions repeat, where that changes.
    pub meta: Option<Json>,
}

/// What goes with a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// How long it may last.
    pub lasts: Lasts,
    /// What other clients are told of this one in the channel.
    pub info: Option<Json>,
    /// What the client is told with it.
    pub data: Option<Json>,
    /// Options of the channel's namespace that are others here.
    pub changed: Changed,
}

/// What is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Instead of what the client sent.
    pub data: Option<Json>,
    /// Labels, if any.
    pub tags: Option<Box<Tags>>,
    /// What the home is asked beside.
    pub options: Option<Box<PublishOptions>>,
}

/// Why a body is no answer, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ill(pub &'static str);

impl std::fmt::Display for Ill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl From<NotJson> for Ill {
    fn from(NotJson(why): NotJson) -> Self {
        Self(why)
    }
}

#[derive(Deserialize)]
struct Body {
    result: Option<Box<RawValue>>,
    error: Option<RawError>,
    disconnect: Option<RawDisconnect>,
}

#[derive(Deserialize)]
struct RawError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct RawDisconnect {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAdmission {
    user: String,
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, Option<RawServerSide>>>,
    meta: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRenewal {
    expired: bool,
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    meta: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawGiven {
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    changed: Option<RawChanged>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRewritten {
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    skip_history: bool,
    tags: Option<Tags>,
    idempotency_key: String,
    version: u64,
    version_epoch: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawCalled {
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
}

impl Answer {
    /// Reads the body of an answer with status 200.
    ///
    /// # Errors
    /// When it is none; says why.
    pub fn read(event: Event, body: &[u8]) -> Result<Answer, Ill> {
        let body = str::from_utf8(body).map_err(|_| Ill("it is not UTF-8"))?;
        let body: Body = object(body).ok_or(Ill("it is not JSON with the right fields"))?;
        if let Some(RawDisconnect { code, reason }) = body.disconnect {
            let code = u16::try_from(code).ok().filter(|code| Disconnect::BACKEND_CODES.contains(code));
            let code = code.ok_or(Ill("the code of its disconnect is not one of 4000 to 4999"))?;
            if reason.len() > REASON_BYTES_MAX {
                return Err(Ill("the reason of its disconnect is longer than 123 bytes"));
            }
            return Ok(Answer::Disconnect(Disconnect { code, reason: reason.into() }));
        }
        if let Some(RawError { code, message, temporary }) = body.error {
            let code = u16::try_from(code).ok().filter(|code| ClientError::BACKEND_CODES.contains(code));
            let code = code.ok_or(Ill("the code of its error is not one of 400 to 1999"))?;
            if message.len() > MESSAGE_BYTES_MAX {
                return Err(Ill("the message of its error is longer than 256 bytes"));
            }
            return Ok(Answer::Error(ClientError { code, message: message.into(), temporary }));
        }
        let result = body.result.as_deref().map(RawValue::get);
        Verdict::read(event, result).map(Answer::Result)
    }
}

impl Verdict {
    fn read(event: Event, result: Option<&str>) -> Result<Verdict, Ill> {
        match (event, result) {
            (Event::Connect, None) => Ok(Verdict::Connect(None)),
            (Event::Refresh, None) => Ok(Verdict::Refresh(Renewal::OVER)),
            (Event::SubRefresh, None) => Ok(Verdict::SubRefresh(Renewal::OVER)),
            // What says nothing allows nothing: a page that answers `{}` to everything is no backend.
            (_, None) => Err(Ill("it has none of result, error and disconnect")),
            (Event::Connect, Some(result)) => {
                Admission::read(parsed(result)?).map(|it| Verdict::Connect(Some(it.into())))
            }
            (Event::Refresh, Some(result)) => Renewal::read(parsed(result)?).map(Verdict::Refresh),
            (Event::SubRefresh, Some(result)) => Renewal::read(parsed(result)?).map(Verdict::SubRefresh),
            (Event::Subscribe, Some(result)) => Given::read(parsed(result)?).map(Verdict::Subscribe),
            (Event::Publish, Some(result)) => Rewritten::read(parsed(result)?).map(Verdict::Publish),
            (Event::Rpc, Some(result)) => {
                let RawCalled { data, b64data } = parsed(result)?;
                Ok(Verdict::Rpc(json(data, b64data)?))
            }
        }
    }
}

fn parsed<'a, T: Deserialize<'a>>(result: &'a str) -> Result<T, Ill> {
    object(result).ok_or(Ill("its result does not have the right fields"))
}

/// What has fields would be read from a list as well.
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok().filter(|_| json.trim_start().starts_with('{'))
}

/// 0 is never.
fn lasts(expire_at: i64) -> Lasts {
    if expire_at == 0 { Lasts::ForEver } else { Lasts::Until(expire_at.max(0) as u64) }
}

impl Admission {
    fn read(raw: RawAdmission) -> Result<Self, Ill> {
        let channels = server_side(raw.subs, raw.channels)?;
        let (info, lasts) = (json(raw.info, raw.b64info)?, lasts(raw.expire_at));
        let claims = ConnectionClaims { user: raw.user, lasts, info, channels };
        Ok(Self { claims, data: json(raw.data, raw.b64data)?, meta: json(raw.meta, None)? })
    }
}

impl Renewal {
    const OVER: Self = Self { lasts: None, info: None, meta: None };

    fn read(raw: RawRenewal) -> Result<Self, Ill> {
        let lasts = (!raw.expired).then_some(lasts(raw.expire_at));
        Ok(Self { lasts, info: json(raw.info, raw.b64info)?, meta: json(raw.meta, None)? })
    }
}

impl Given {
    fn read(raw: RawGiven) -> Result<Self, Ill> {
        let (info, data) = (json(raw.info, raw.b64info)?, json(raw.data, raw.b64data)?);
        Ok(Self { lasts: lasts(raw.expire_at), info, data, changed: raw.changed.into() })
    }
}

impl Rewritten {
    fn read(raw: RawRewritten) -> Result<Self, Ill> {
        let some = |text: String| (!text.is_empty()).then(|| text.into_boxed_str());
        let options = PublishOptions {
            skip_history: raw.skip_history,
            idempotency_key: some(raw.idempotency_key),
            version: raw.version,
            version_epoch: some(raw.version_epoch),
        };
        Ok(Self {
            data: json(raw.data, raw.b64data)?,
            tags: raw.tags.filter(|tags| !tags.is_empty()).map(Box::new),
            options: (options != PublishOptions::default()).then(|| Box::new(options)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &Json) -> &str {
        str::from_utf8(json).expect("UTF-8")
    }

    #[test]
    fn a_client_is_who_the_answer_says() {
        let body = br#"{"result":{"user":"42","expire_at":1900000000,"info":{"name":
            "A"},"data":[1],"meta":{"t":7},"channels":["b"],"subs":{"a":{"info":1,"override":{"force_recovery":{"value":true}}}}}}"#;
        let Ok(Answer::Result(Verdict::Connect(Some(admission)))) = Answer::read(Event::Connect, body) else {
            panic!()
        };
        let Admission { claims, data, meta } = *admission;
        assert_eq!((&*claims.user, claims.lasts), ("42", Lasts::Until(1_900_000_000)));
        assert_eq!(claims.channels.len(), 1, "`subs` wins over `channels`");
        assert_eq!(claims.channels[0].changed.force_recovery, Some(true));
        assert_eq!(text(&claims.info.unwrap()), r#"{"name":            "A"}"#);
        assert_eq!((text(&data.unwrap()), text(&meta.unwrap())), ("[1]", r#"{"t":7}"#));
        assert_eq!(Answer::read(Event::Connect, b"{}"), Ok(Answer::Result(Verdict::Connect(None))));
        let nobody = Answer::read(Event::Connect, br#"{"result":{}}"#).unwrap();
        assert!(matches!(nobody, Answer::Result(Verdict::Connect(Some(a))) if a.claims.user.is_empty()));
    }

    #[test]
    fn what_is_over_goes_on_only_where_that_is_said() {
        let renewed = |event, body: &[u8]| match Answer::read(event, body).unwrap() {
            Answer::Result(Verdict::Refresh(renewal) | Verdict::SubRefresh(renewal)) => renewal.lasts,
            other => panic!("{other:?}"),
        };
        for event in [Event::Refresh, Event::SubRefresh] {
            assert_eq!(renewed(event, b"{}"), None);
            assert_eq!(renewed(event, br#"{"result":{"expired":true}}"#), None);
            assert_eq!(renewed(event, br#"{"result":{"expire_at":5}}"#), Some(Lasts::Until(5)));
            assert_eq!(renewed(event, br#"{"result":{}}"#), Some(Lasts::ForEver));
        }
    }

    #[test]
    fn a_publication_may_be_rewritten() {
        let body =
            br#"{"result":{"b64data":"eyJhIjogMX0=","tags":{"k":"v"},"skip_history":true,"idempotency_key":"i"}}"#;
        let Ok(Answer::Result(Verdict::Publish(rewritten))) = Answer::read(Event::Publish, body) else { panic!() };
        assert_eq!(text(&rewritten.data.unwrap()), r#"{"a": 1}"#);
        assert_eq!(rewritten.tags.unwrap()["k"], "v");
        let options = rewritten.options.unwrap();
        assert!(options.skip_history && options.idempotency_key.as_deref() == Some("i"));
        let as_it_is = Answer::read(Event::Publish, br#"{"result":{}}"#).unwrap();
        assert_eq!(as_it_is, Answer::Result(Verdict::Publish(Rewritten::default())));
    }

    #[test]
    fn what_is_no_answer_is_told_from_its_twin() {
        let (long, longest) = ("x".repeat(REASON_BYTES_MAX + 1), "x".repeat(REASON_BYTES_MAX));
        for (bad, good) in [
            ("{}".to_owned(), r#"{"result":{}}"#.to_owned()),
            (r#"{"result":[]}"#.into(), r#"{"result":{}}"#.into()),
            (r#"[{},null,null]"#.into(), r#"{"result":{},"error":null}"#.into()),
            (r#"{"result":null}"#.into(), r#"{"result":{"data":null}}"#.into()),
            (r#"{"result":{}"#.into(), r#"{"result":{}}"#.into()),
            (r#"{"error":{"code":399}}"#.into(), r#"{"error":{"code":400}}"#.into()),
            (r#"{"error":{"code":2000}}"#.into(), r#"{"error":{"code":1999}}"#.into()),
            (r#"{"error":{"code":66000}}"#.into(), r#"{"error":{"code":464}}"#.into()),
            (r#"{"error":{}}"#.into(), r#"{"error":null,"result":{}}"#.into()),
            (r#"{"disconnect":{"code":3999}}"#.into(), r#"{"disconnect":{"code":4000}}"#.into()),
            (r#"{"disconnect":{"code":5000}}"#.into(), r#"{"disconnect":{"code":4999}}"#.into()),
            (
                format!(r#"{{"disconnect":{{"code":4000,"reason":"{long}"}}}}"#),
                format!(r#"{{"disconnect":{{"code":4000,"reason":"{longest}"}}}}"#),
            ),
            (r#"{"result":{"b64data":"e30"}}"#.into(), r#"{"result":{"b64data":"e30="}}"#.into()),
            (r#"{"result":{"b64data":"e3s="}}"#.into(), r#"{"result":{"b64data":"e30="}}"#.into()),
        ] {
            assert!(Answer::read(Event::Rpc, bad.as_bytes()).is_err(), "{bad}");
            assert!(Answer::read(Event::Rpc, good.as_bytes()).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_refusal_wins_over_a_result() {
        let body = br#"{"result":{},"error":{"code":403,"message":"no \"x\"","temporary":true},"disconnect":null}"#;
        let error = ClientError { code: 403, message: "no \"x\"".into(), temporary: true };
        assert_eq!(Answer::read(Event::Subscribe, body), Ok(Answer::Error(error)));
        let body = br#"{"result":{},"error":{"code":403},"disconnect":{"code":4001,"reason":"go"}}"#;
        let end = Disconnect { code: 4001, reason: "go".into() };
        assert_eq!(Answer::read(Event::Subscribe, body), Ok(Answer::Disconnect(end)));
    }
}
