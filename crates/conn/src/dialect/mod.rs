//! The client protocols. Each turns received messages into [`crate::command::Command`]s and our answers into messages;
//! none knows sockets, subscriptions or limits.

pub(crate) mod centrifugo;
pub(crate) mod plain;

use std::io::Write as _;

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string into memory cannot fail");
}

/// Appends formatted text.
pub(crate) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into memory cannot fail");
}

/// Appends the members of a JSON `Publication` object, without its braces.
pub(crate) fn json_publication(out: &mut Vec<u8>, publication: &hub::Publication) {
    out.extend_from_slice(b"\"data\":");
    out.extend_from_slice(&publication.data);
    if let Some(info) = &publication.info {
        out.extend_from_slice(b",\"info\":{\"client\":");
        json_string(out, &info.client);
        if !info.user.is_empty() {
            out.extend_from_slice(b",\"user\":");
            json_string(out, &info.user);
        }
        for (key, raw) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
            if let Some(raw) = raw {
                put(out, format_args!(",\"{key}\":"));
                out.extend_from_slice(raw);
            }
        }
        out.push(b'}');
    }
    if let Some(tags) = &publication.tags {
        out.extend_from_slice(b",\"tags\":{");
        for (i, (key, value)) in tags.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json_string(out, key);
            out.push(b':');
            json_string(out, value);
        }
        out.push(b'}');
    }
}
