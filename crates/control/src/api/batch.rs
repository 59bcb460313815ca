//! `batch`: several commands in one request, one after the other, or side by side with `parallel`.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::error::{ApiError, Code};
use super::methods::Reply;
use super::{Api, encode};
use crate::backend::{Backend, BackendError};
use crate::limits;
use crate::metrics::Method;

#[derive(Deserialize)]
pub(crate) struct Batch {
    commands: Option<Vec<Command>>,
    parallel: Option<bool>,
}

/// `{"publish":{…}}`
struct Command {
    method: String,
    params: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Command;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with the name of one method")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Command, A::Error> {
                let one = map.next_entry()?;
                let (method, params) = one.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                if map.next_key::<String>()?.is_some() {
                    return Err(serde::de::Error::invalid_length(2, &self));
                }
                Ok(Command { method, params })
            }
        }
        deserializer.deserialize_map(One)
    }
}

/// Runs all of them, whatever becomes of each, and answers in the order asked.
pub(super) async fn run<B: Backend>(api: &Arc<Api<B>>, batch: Batch) -> Result<Reply, ApiError> {
    let commands = batch.commands.unwrap_or_default();
    if commands.is_empty() {
        return Err(ApiError::bad("commands", "`commands` is missing or empty"));
    }
    if commands.len() > limits::BATCH_COMMANDS_MAX {
        let (count, max) = (commands.len(), limits::BATCH_COMMANDS_MAX);
        return Err(ApiError::bad("commands", format!("{count} `commands`, at most {max}")));
    }
    let at_once = if batch.parallel.unwrap_or(false) { limits::BATCH_IN_FLIGHT_MAX } else { 1 };
    let mut replies = Replies { texts: Vec::new(), bytes: 0 };
    replies.texts.resize_with(commands.len(), || None);
    let mut in_flight = JoinSet::new();
    for (index, command) in commands.into_iter().enumerate() {
        if in_flight.len() == at_once {
            replies.take(in_flight.join_next().await);
        }
        if replies.bytes > limits::BATCH_ANSWER_BYTES_MAX {
            let error = ApiError::not_available("commands", "not run: the answers before it are too long together");
            replies.put(index, "error", encode(&error));
            continue;
        }
        let api = Arc::clone(api);
        in_flight.spawn(async move {
            let (key, text) = one(&api, &command).await;
            (index, key, text)
        });
    }
    while let Some(joined) = in_flight.join_next().await {
        replies.take(Some(joined));
    }
    Ok(replies.into_reply())
}

/// The key of a reply and what stands there.
async fn one<B: Backend>(api: &Arc<Api<B>>, command: &Command) -> (&'static str, Vec<u8>) {
    let outcome = match Method::named(&command.method) {
        // One within another would be without end.
        None | Some(Method::Batch) => {
            let error = ApiError::new(Code::MethodNotFound, "commands", "");
            error.log("other");
            Err(error)
        }
        Some(method) => match api.run_one(method, command.params.get().as_bytes()).await {
            Ok(outcome) => outcome.map(|reply| (method.name(), encode(&reply))),
            Err(malformed) => Err(ApiError::bad("commands", malformed.to_string())),
        },
    };
    outcome.unwrap_or_else(|error| ("error", encode(&error)))
}

/// What has been answered so far, each where it belongs.
struct Replies {
    texts: Vec<Option<Vec<u8>>>,
    bytes: usize,
}

type Joined = Result<(usize, &'static str, Vec<u8>), tokio::task::JoinError>;

impl Replies {
    fn take(&mut self, joined: Option<Joined>) {
        match joined {
            Some(Ok((index, key, text))) => self.put(index, key, text),
            Some(Err(error)) => {
                // What is no panic was cancelled by the end of the runtime; its place stays open.
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            None => {}
        }
    }

    fn put(&mut self, index: usize, key: &str, text: Vec<u8>) {
        self.bytes += text.len();
        self.texts[index] = Some([b"{\"", key.as_bytes(), b"\":", &text, b"}"].concat());
    }

    fn into_reply(self) -> Reply {
        let ending = || format!("{{\"error\":{}}}", lossless(encode(&ApiError::from(BackendError::ShuttingDown))));
        let texts = self.texts.into_iter().map(|text| text.map_or_else(ending, lossless));
        let replies = texts.map(|text| RawValue::from_string(text).expect("our own JSON")).collect();
        Reply::Batch { replies }
    }
}

fn lossless(text: Vec<u8>) -> String {
    String::from_utf8(text).expect("JSON is UTF-8")
}
