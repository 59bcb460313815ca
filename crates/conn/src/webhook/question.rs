//! What is asked, as JSON.

use super::Event;
use crate::auth::token::Json;
use crate::ids::ClientId;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A name in lower case, with its value.
pub type Header = (Box<str>, Zeroizing<Box<str>>);

/// What is passed on of a handshake: most likely what a client shows to say who it is. `Debug` names the headers alone, and the
/// values are overwritten when the last one lets go.
#[derive(Clone, PartialEq, Eq)]
pub struct Headers(Arc<[Header]>);

impl Deref for Headers {
    type Target = [Header];

    fn deref(&self) -> &[Header] {
        &self.0
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// One question of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub client: ClientId,
    /// `websocket` or `uni_websocket`.
    pub transport: &'static str,
    /// `json` or `protobuf`.
    pub protocol: &'static str,
    /// The user, "" for none. Nobody yet at connect.
    pub user: Arc<str>,
    /// What the backend gave at connect to be told again; JSON.
    pub meta: Option<Json>,
    /// What is passed on of the client's handshake.
    pub headers: Option<Headers>,
    /// What it is about.
    pub about: About,
}

/// What a question is about. `data` is JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// May this client connect, and who is it?
    Connect {
        /// What the application calls itself.
        name: String,
        /// Its version.
        version: String,
        /// What the client says.
        data: Option<Json>,
        /// Channels that it wants at once.
        channels: Vec<String>,
    },
    /// May it stay?
    Refresh,
    /// May it subscribe?
    Subscribe {
        /// The channel.
        channel: String,
        /// What the client says.
        data: Option<Json>,
    },
    /// May it publish this?
    Publish {
        /// The channel.
        channel: String,
        /// The payload.
        data: Json,
    },
    /// May it stay subscribed?
    SubRefresh {
        /// The channel.
        channel: String,
    },
    /// Do this.
    Rpc {
        /// What.
        method: String,
        /// With what.
        data: Option<Json>,
    },
}

impl About {
    /// Which of the events it is.
    #[must_use]
    pub fn event(&self) -> Event {
        match self {
            About::Connect { .. } => Event::Connect,
            About::Refresh => Event::Refresh,
            About::Subscribe { .. } => Event::Subscribe,
            About::Publish { .. } => Event::Publish,
            About::SubRefresh { .. } => Event::SubRefresh,
            About::Rpc { .. } => Event::Rpc,
        }
    }
}

/// The body of a request. What an event does not have is left out.
#[derive(Serialize)]
struct Body<'a> {
    client: String,
    transport: &'static str,
    protocol: &'static str,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    #[serde(flatten)]
    about: Fields<'a>,
}

#[derive(Default, Serialize)]
struct Fields<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl Question {
    /// The body of the request that asks it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let about = match &self.about {
            About::Connect { name, version, data, channels } => {
                Fields { name, version, channels, data: raw(data.as_ref()), ..Fields::default() }
            }
            About::Refresh => Fields::default(),
            About::Subscribe { channel, data } => {
                Fields { channel: Some(channel), data: raw(data.as_ref()), ..Fields::default() }
            }
            About::Publish { channel, data } => {
                Fields { channel: Some(channel), data: raw(Some(data)), ..Fields::default() }
            }
            About::SubRefresh { channel } => Fields { channel: Some(channel), ..Fields::default() },
            About::Rpc { method, data } => {
                Fields { method: Some(method), data: raw(data.as_ref()), ..Fields::default() }
            }
        };
        let body = Body {
            client: self.client.to_string(),
            transport: self.transport,
            protocol: self.protocol,
            encoding: "json",
            user: (self.about.event() != Event::Connect).then_some(&*self.user),
            meta: raw(self.meta.as_ref()),
            about,
        };
        serde_json::to_vec(&body).expect("texts and numbers are written into memory")
    }
}

/// JSON text as it stands. What is none was never let in.
fn raw(json: Option<&Json>) -> Option<&RawValue> {
    json.and_then(|json| serde_json::from_slice(json).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdSource;
    use serde_json::{Value, json};

    fn asked(about: About) -> Value {
        let question = Question {
            client: IdSource::new([1; 16], 0).next_client(),
            transport: "websocket",
            protocol: "json",
            user: "42".into(),
            meta: Some(b"{\"t\":1}".as_slice().into()),
            headers: None,
            about,
        };
        let mut body: Value = serde_json::from_slice(&question.to_json()).expect("a JSON body");
        assert_eq!(body["client"].take(), json!(question.client.to_string()));
        body.as_object_mut().expect("an object").remove("client");
        body
    }

    #[test]
    fn a_question_says_what_its_event_has_and_nothing_else() {
        let common = json!({"transport": "websocket", "protocol": "json", "encoding": "json", "meta": {"t": 1}});
        let (channel, data) = (|| "a\"b".to_owned(), || Some(Json::from(b"[1.0]".as_slice())));
        let (name, version) = ("page".to_owned(), "7".to_owned());
        for (about, more) in [
            (
                About::Connect { name, version, data: data(), channels: vec![channel()] },
                json!({"name": "page", "version": "7", "data": [1.0], "channels": ["a\"b"]}),
            ),
            (
                About::Connect { name: String::new(), version: String::new(), data: None, channels: Vec::new() },
                json!({}),
            ),
            (About::Refresh, json!({"user": "42"})),
            (About::Subscribe { channel: channel(), data: None }, json!({"user": "42", "channel": "a\"b"})),
            (
                About::Publish { channel: channel(), data: data().unwrap() },
                json!({"user": "42", "channel": "a\"b", "data": [1.0]}),
            ),
            (About::SubRefresh { channel: channel() }, json!({"user": "42", "channel": "a\"b"})),
            (About::Rpc { method: String::new(), data: data() }, json!({"user": "42", "method": "", "data": [1.0]})),
        ] {
            let mut expected = common.clone();
            expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(asked(about), expected);
        }
    }
}
