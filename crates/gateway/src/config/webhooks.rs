//! `[webhooks]`: what a backend is asked.

use super::values::{Bytes, Secret, Time, from_string, whole, with_hint};
use conn::webhook::Event;
use control::webhook::Target;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::str::FromStr;

/// `[webhooks]`: what a backend is asked, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Who a client without a token is.
    pub connect: Url,
    /// Whether such a client may stay when its time is over.
    pub refresh: Url,
    /// Whether a client may subscribe.
    pub subscribe: Url,
    /// Whether a client may publish, and what.
    pub publish: Url,
    /// Whether a client may stay subscribed when the time of a subscription is over.
    pub sub_refresh: Url,
    /// What clients call.
    pub rpc: Url,
    /// Who is told what it has not asked for.
    pub notices: Url,
    /// It is told who comes and goes.
    pub client_notices: bool,
    /// Notices that may wait.
    #[serde(deserialize_with = "whole")]
    pub notices_max: u32,
    /// Longest time of a call.
    pub timeout: Time,
    /// Calls at the same time.
    #[serde(deserialize_with = "whole")]
    pub calls_max: u32,
    /// Bytes of an answer.
    pub answer_bytes_max: Bytes,
    /// Headers of a client's handshake that are passed on.
    pub headers: Vec<HeaderName>,
    /// Headers that clients may make up, which are passed on.
    pub emulated_headers: Vec<HeaderName>,
    /// What calls are signed with.
    pub signing_keys: Vec<Secret>,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            connect: Url::default(),
            refresh: Url::default(),
            subscribe: Url::default(),
            publish: Url::default(),
            sub_refresh: Url::default(),
            rpc: Url::default(),
            notices: Url::default(),
            client_notices: false,
            notices_max: 100_000,
            timeout: Time::secs(1),
            calls_max: 256,
            answer_bytes_max: Bytes::kib(64),
            headers: Vec::new(),
            emulated_headers: Vec::new(),
            signing_keys: Vec::new(),
        }
    }
}

impl Webhooks {
    /// Where a backend is asked about that.
    pub fn target(&self, event: Event) -> Option<&Target> {
        let url = match event {
            Event::Connect => &self.connect,
            Event::Refresh => &self.refresh,
            Event::Subscribe => &self.subscribe,
            Event::Publish => &self.publish,
            Event::SubRefresh => &self.sub_refresh,
            Event::Rpc => &self.rpc,
        };
        url.target()
    }

    /// What a backend is asked about, and where.
    pub fn targets(&self) -> impl Iterator<Item = (Event, &Target)> {
        Event::ALL.into_iter().filter_map(|event| Some((event, self.target(event)?)))
    }
}

/// Where a backend is asked; written `""` where nobody is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url(Option<Target>);

impl Url {
    /// Where that is, if anywhere.
    pub fn target(&self) -> Option<&Target> {
        self.0.as_ref()
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let hint = "write it in full, such as \"http://127.0.0.1:3000/hooks/connect\"";
        text.parse().map(|target| Self(Some(target))).map_err(|error| with_hint(error, hint))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "a URL, or \"\"")
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(target) => serializer.collect_str(target),
            None => serializer.serialize_str(""),
        }
    }
}

/// The name of a header that may be passed on, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct HeaderName(String);

/// Headers that are about one connection or one body, so that they mean nothing in another request (RFC 9110, 7.6.1), and those
/// that are ours.
const NOT_PASSED_ON: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    control::webhook::SIGNATURE_HEADER,
];

impl HeaderName {
    /// The name.
    pub fn get(&self) -> &str {
        &self.0
    }
}

impl FromStr for HeaderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if let Some((name, _)) = text.split_once(':') {
            // Its value is most likely a secret.
            return Err(with_hint(
                format_args!("a header is named here, without its value"),
                format_args!("write {:?}", name.trim().to_ascii_lowercase()),
            ));
        }
        if text.is_empty() || !text.bytes().all(is_token) {
            return Err(with_hint(
                format_args!("{text:?} is not the name of a header"),
                "write for example \"cookie\"",
            ));
        }
        let name = text.to_ascii_lowercase();
        if NOT_PASSED_ON.contains(&&*name) {
            return Err(format!("{text:?} belongs to one request and cannot be passed on"));
        }
        Ok(Self(name))
    }
}

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer, "the name of a header")
    }
}
