//! The client protocol as the tests' clients speak it: the schema once more, read and written by the crate `prost`, which
//! shares no line with the gateway's own code. What a test says and sees is JSON in both formats.

use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A `bytes` field that holds JSON text, or a patch of some.
mod json_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};
    use serde_json::Value;

    pub(crate) fn serialize<S: Serializer>(text: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_slice::<Value>(text) {
            Ok(value) => value.serialize(serializer),
            // A patch; anything else that is no JSON is not what a test expects either.
            Err(_) => str::from_utf8(text).map_err(S::Error::custom)?.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(Value::deserialize(deserializer)?.to_string().into_bytes())
    }
}

/// Messages of whose fields JSON has none that is zero.
macro_rules! messages {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* })+) => {whole_messages! {$(
        $name { $($(#[$attribute])* #[serde(skip_serializing_if = "is_zero")] $field: $kind,)* }
    )+}};
}

/// Messages of whose fields JSON has all.
macro_rules! whole_messages {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* })+) => {$(
        #[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
        #[serde(default)]
        pub(crate) struct $name {
            $($(#[$attribute])* pub(crate) $field: $kind,)*
        }
    )+};
}

messages! {
    Error {
        #[prost(uint32, tag = "1")] code: u32,
        #[prost(string, tag = "2")] message: String,
        #[prost(bool, tag = "3")] temporary: bool,
    }
    Command {
        #[prost(uint32, tag = "1")] id: u32,
        #[prost(message, optional, tag = "4")] connect: Option<ConnectRequest>,
        #[prost(message, optional, tag = "5")] subscribe: Option<SubscribeRequest>,
        #[prost(message, optional, tag = "6")] unsubscribe: Option<Channel>,
        #[prost(message, optional, tag = "7")] publish: Option<PublishRequest>,
        #[prost(message, optional, tag = "8")] presence: Option<Channel>,
        #[prost(message, optional, tag = "9")] presence_stats: Option<Channel>,
        #[prost(message, optional, tag = "10")] history: Option<HistoryRequest>,
        #[prost(message, optional, tag = "11")] ping: Option<Empty>,
        #[prost(message, optional, tag = "12")] send: Option<Data>,
        #[prost(message, optional, tag = "13")] rpc: Option<RpcRequest>,
        #[prost(message, optional, tag = "14")] refresh: Option<ConnectRequest>,
        #[prost(message, optional, tag = "15")] sub_refresh: Option<SubRefreshRequest>,
    }
    Reply {
        #[prost(uint32, tag = "1")] id: u32,
        #[prost(message, optional, tag = "2")] error: Option<Error>,
        #[prost(message, optional, tag = "4")] push: Option<Push>,
        #[prost(message, optional, tag = "5")] connect: Option<ConnectResult>,
        #[prost(message, optional, tag = "6")] subscribe: Option<SubscribeResult>,
        #[prost(message, optional, tag = "7")] unsubscribe: Option<Empty>,
        #[prost(message, optional, tag = "8")] publish: Option<Empty>,
        #[prost(message, optional, tag = "9")] presence: Option<PresenceResult>,
        #[prost(message, optional, tag = "10")] presence_stats: Option<PresenceStatsResult>,
        #[prost(message, optional, tag = "11")] history: Option<HistoryResult>,
        #[prost(message, optional, tag = "13")] rpc: Option<Data>,
        #[prost(message, optional, tag = "14")] refresh: Option<ConnectResult>,
        #[prost(message, optional, tag = "15")] sub_refresh: Option<SubRefreshResult>,
    }
    Push {
        #[prost(string, tag = "2")] channel: String,
        #[prost(message, optional, tag = "4")] #[serde(rename = "pub")] publication: Option<Publication>,
        #[prost(message, optional, tag = "5")] join: Option<Coming>,
        #[prost(message, optional, tag = "6")] leave: Option<Coming>,
        #[prost(message, optional, tag = "7")] unsubscribe: Option<Unsubscribe>,
        #[prost(message, optional, tag = "9")] subscribe: Option<GivenSubscription>,
        #[prost(message, optional, tag = "12")] refresh: Option<SubRefreshResult>,
    }
    GivenSubscription {
        #[prost(bool, tag = "1")] recoverable: bool,
        #[prost(string, tag = "4")] epoch: String,
        #[prost(uint64, tag = "5")] offset: u64,
        #[prost(bool, tag = "6")] positioned: bool,
        #[prost(bytes = "vec", tag = "7")] #[serde(with = "json_text")] data: Vec<u8>,
    }
    Coming {
        #[prost(message, optional, tag = "1")] info: Option<ClientInfo>,
    }
    Publication {
        #[prost(bytes = "vec", tag = "4")] #[serde(with = "json_text")] data: Vec<u8>,
        #[prost(message, optional, tag = "5")] info: Option<ClientInfo>,
        #[prost(uint64, tag = "6")] offset: u64,
        #[prost(btree_map = "string, string", tag = "7")] tags: BTreeMap<String, String>,
        #[prost(bool, tag = "8")] delta: bool,
        #[prost(int64, tag = "9")] time: i64,
    }
    Unsubscribe {
        #[prost(uint32, tag = "2")] code: u32,
        #[prost(string, tag = "3")] reason: String,
    }
    ConnectRequest {
        #[prost(string, tag = "1")] token: String,
        #[prost(bytes = "vec", tag = "2")] #[serde(with = "json_text")] data: Vec<u8>,
        #[prost(btree_map = "string, message", tag = "3")] subs: BTreeMap<String, SubscribeRequest>,
        #[prost(string, tag = "4")] name: String,
        #[prost(string, tag = "5")] version: String,
        #[prost(btree_map = "string, string", tag = "6")] headers: BTreeMap<String, String>,
    }
    ConnectResult {
        #[prost(string, tag = "1")] client: String,
        #[prost(string, tag = "2")] version: String,
        #[prost(bool, tag = "3")] expires: bool,
        #[prost(uint32, tag = "4")] ttl: u32,
        #[prost(bytes = "vec", tag = "5")] #[serde(with = "json_text")] data: Vec<u8>,
        #[prost(btree_map = "string, message", tag = "6")] subs: BTreeMap<String, SubscribeResult>,
        #[prost(uint32, tag = "7")] ping: u32,
        #[prost(bool, tag = "8")] pong: bool,
    }
    SubscribeRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(string, tag = "2")] token: String,
        #[prost(bool, tag = "3")] recover: bool,
        #[prost(string, tag = "6")] epoch: String,
        #[prost(uint64, tag = "7")] offset: u64,
        #[prost(bytes = "vec", tag = "8")] #[serde(with = "json_text")] data: Vec<u8>,
        #[prost(bool, tag = "9")] positioned: bool,
        #[prost(bool, tag = "10")] recoverable: bool,
        #[prost(bool, tag = "11")] join_leave: bool,
        #[prost(string, tag = "12")] delta: String,
        #[prost(message, optional, tag = "13")] tf: Option<Empty>,
        #[prost(int64, tag = "14")] flag: i64,
        #[prost(int32, tag = "15")] #[serde(rename = "type")] kind: i32,
    }
    SubRefreshRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(string, tag = "2")] token: String,
    }
    SubRefreshResult {
        #[prost(bool, tag = "1")] expires: bool,
        #[prost(uint32, tag = "2")] ttl: u32,
    }
    SubscribeResult {
        #[prost(bool, tag = "1")] expires: bool,
        #[prost(uint32, tag = "2")] ttl: u32,
        #[prost(bool, tag = "3")] recoverable: bool,
        #[prost(string, tag = "6")] epoch: String,
        #[prost(message, repeated, tag = "7")] publications: Vec<Publication>,
        #[prost(bool, tag = "8")] recovered: bool,
        #[prost(uint64, tag = "9")] offset: u64,
        #[prost(bool, tag = "10")] positioned: bool,
        #[prost(bytes = "vec", tag = "11")] #[serde(with = "json_text")] data: Vec<u8>,
        #[prost(bool, tag = "12")] was_recovering: bool,
        #[prost(bool, tag = "13")] delta: bool,
    }
    StreamPosition {
        #[prost(uint64, tag = "1")] offset: u64,
        #[prost(string, tag = "2")] epoch: String,
    }
    HistoryRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(int32, tag = "7")] limit: i32,
        #[prost(message, optional, tag = "8")] since: Option<StreamPosition>,
        #[prost(bool, tag = "9")] reverse: bool,
    }
    PublishRequest {
        #[prost(string, tag = "1")] channel: String,
        #[prost(bytes = "vec", tag = "2")] #[serde(with = "json_text")] data: Vec<u8>,
    }
    Channel {
        #[prost(string, tag = "1")] channel: String,
    }
    Data {
        #[prost(bytes = "vec", tag = "1")] #[serde(with = "json_text")] data: Vec<u8>,
    }
    RpcRequest {
        #[prost(bytes = "vec", tag = "1")] #[serde(with = "json_text")] data: Vec<u8>,
        #[prost(string, tag = "2")] method: String,
    }
    Empty {}
}

// As Centrifugo's JSON has them: a count of 0 is a count.
whole_messages! {
    ClientInfo {
        #[prost(string, tag = "1")] user: String,
        #[prost(string, tag = "2")] client: String,
        #[prost(bytes = "vec", tag = "3")] #[serde(with = "json_text", skip_serializing_if = "is_zero")] conn_info: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")] #[serde(with = "json_text", skip_serializing_if = "is_zero")] chan_info: Vec<u8>,
    }
    HistoryResult {
        #[prost(message, repeated, tag = "1")] publications: Vec<Publication>,
        #[prost(string, tag = "2")] epoch: String,
        #[prost(uint64, tag = "3")] offset: u64,
    }
    PresenceResult {
        #[prost(btree_map = "string, message", tag = "1")] presence: BTreeMap<String, ClientInfo>,
    }
    PresenceStatsResult {
        #[prost(uint32, tag = "1")] num_clients: u32,
        #[prost(uint32, tag = "2")] num_users: u32,
    }
}

/// Commands, one JSON object a line, as one message in Protobuf.
pub(crate) fn commands(lines: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.lines() {
        let command: Command = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        command.encode_length_delimited(&mut out).expect("memory has room");
    }
    out
}

/// The replies of one message in Protobuf, as JSON objects.
pub(crate) fn replies(mut message: &[u8]) -> Result<Vec<Value>, prost::DecodeError> {
    let mut replies = Vec::new();
    while !message.is_empty() {
        let reply = Reply::decode_length_delimited(&mut message)?;
        replies.push(serde_json::to_value(reply).expect("a reply is an object"));
    }
    Ok(replies)
}
