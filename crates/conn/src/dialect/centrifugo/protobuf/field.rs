//! The numbers of the fields, as in `client.proto`: those that the gateway reads or writes.

/// Makes a module of numbers of each message, and a table of all of them for the comparison with the schema.
macro_rules! fields {
    ($($message:ident { $($field:ident = $number:literal),+ $(,)? })+) => {
        $(pub(in super::super) mod $message {
            $(pub(in super::super::super) const $field: u32 = $number;)+
        })+

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str, u32)] =
            &[$($((stringify!($message), stringify!($field), $number)),+),+];
    };
}

fields! {
    error { CODE = 1, MESSAGE = 2, TEMPORARY = 3 }
    command {
        ID = 1, CONNECT = 4, SUBSCRIBE = 5, UNSUBSCRIBE = 6, PUBLISH = 7, PRESENCE = 8, PRESENCE_STATS = 9, HISTORY = 10,
        PING = 11, SEND = 12, RPC = 13, REFRESH = 14, SUB_REFRESH = 15,
    }
    reply {
        ID = 1, ERROR = 2, PUSH = 4, CONNECT = 5, SUBSCRIBE = 6, UNSUBSCRIBE = 7, PUBLISH = 8, PRESENCE = 9,
        PRESENCE_STATS = 10, HISTORY = 11, RPC = 13, REFRESH = 14, SUB_REFRESH = 15,
    }
    push { CHANNEL = 2, PUB = 4, JOIN = 5, LEAVE = 6, UNSUBSCRIBE = 7, SUBSCRIBE = 9, REFRESH = 12 }
    refresh { EXPIRES = 1, TTL = 2 }
    join { INFO = 1 }
    leave { INFO = 1 }
    subscribe { RECOVERABLE = 1, EPOCH = 4, OFFSET = 5, POSITIONED = 6, DATA = 7 }
    unsubscribe { CODE = 2, REASON = 3 }
    client_info { USER = 1, CLIENT = 2, CONN_INFO = 3, CHAN_INFO = 4 }
    publication { DATA = 4, INFO = 5, OFFSET = 6, TAGS = 7, DELTA = 8, TIME = 9 }
    connect_request { TOKEN = 1, DATA = 2, SUBS = 3, NAME = 4, VERSION = 5, HEADERS = 6 }
    connect_result { CLIENT = 1, VERSION = 2, EXPIRES = 3, TTL = 4, DATA = 5, SUBS = 6, PING = 7, PONG = 8 }
    refresh_request { TOKEN = 1 }
    refresh_result { CLIENT = 1, VERSION = 2, EXPIRES = 3, TTL = 4 }
    sub_refresh_request { CHANNEL = 1, TOKEN = 2 }
    sub_refresh_result { EXPIRES = 1, TTL = 2 }
    subscribe_request {
        CHANNEL = 1, TOKEN = 2, RECOVER = 3, EPOCH = 6, OFFSET = 7, DATA = 8, POSITIONED = 9, RECOVERABLE = 10, JOIN_LEAVE = 11,
        DELTA = 12, TF = 13, FLAG = 14, TYPE = 15,
    }
    subscribe_result {
        EXPIRES = 1, TTL = 2, RECOVERABLE = 3, EPOCH = 6, PUBLICATIONS = 7, RECOVERED = 8, OFFSET = 9, POSITIONED = 10, DATA = 11, WAS_RECOVERING = 12,
        DELTA = 13,
    }
    stream_position { OFFSET = 1, EPOCH = 2 }
    history_request { CHANNEL = 1, LIMIT = 7, SINCE = 8, REVERSE = 9 }
    history_result { PUBLICATIONS = 1, EPOCH = 2, OFFSET = 3 }
    presence_result { PRESENCE = 1 }
    presence_stats_result { NUM_CLIENTS = 1, NUM_USERS = 2 }
    unsubscribe_request { CHANNEL = 1 }
    publish_request { CHANNEL = 1, DATA = 2 }
    rpc_request { DATA = 1, METHOD = 2 }
    rpc_result { DATA = 1 }
}

/// Key and value of a map's entries, in every map.
pub(super) const MAP_KEY: u32 = 1;
pub(super) const MAP_VALUE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// `message` and field names without underscores in lower case, so that both spellings meet.
    fn plain(name: &str) -> String {
        name.replace('_', "").to_lowercase()
    }

    fn schema() -> HashMap<(String, String), u32> {
        let mut fields = HashMap::new();
        let mut message = String::new();
        for line in include_str!("../client.proto").lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("message ").filter(|_| line.contains('{')) {
                message = plain(rest.split_whitespace().next().expect("a name"));
            } else if let Some((declared, number)) = line.strip_suffix(';').and_then(|line| line.rsplit_once(" = "))
                && let Ok(number) = number.parse()
            {
                let name = declared.rsplit(' ').next().expect("a name");
                assert!(fields.insert((message.clone(), plain(name)), number).is_none(), "{message}.{name} twice");
            }
        }
        fields
    }

    #[test]
    fn the_numbers_are_those_of_the_schema() {
        let schema = schema();
        assert!(schema.len() > 100, "the schema was read: {}", schema.len());
        for &(message, field, number) in ALL {
            assert_eq!(schema.get(&(plain(message), plain(field))), Some(&number), "{message}.{field}");
        }
    }
}
