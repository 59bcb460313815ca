//! Ids that nobody can guess, without drawing randomness here.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::fmt;
use std::hash::Hasher;

/// A client's id as it appears in `connect` replies and publication info: printed as a UUID (version 4 layout).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId([u8; 16]);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// A worker's supply of ids: a counter under a keyed hash. With a key from the system's random source nobody outside
/// can predict an id, and with a fixed key a test sees the same ones each time.
#[derive(Debug, Clone)]
pub struct IdSource {
    key: [u8; 16],
    worker: u16,
    counter: u64,
}

impl IdSource {
    /// `key` is secret and the same or another for each worker; `worker` keeps workers with one key apart.
    pub fn new(key: [u8; 16], worker: u16) -> Self {
        Self { key, worker, counter: 0 }
    }

    /// The next 128 unpredictable bits.
    pub fn next_bits(&mut self) -> u128 {
        self.counter += 1;
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u16(self.worker);
        hasher.write_u64(self.counter);
        hasher.finish128().as_u128()
    }

    /// A new client id.
    pub fn next_client(&mut self) -> ClientId {
        let mut bytes = self.next_bits().to_be_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        ClientId(bytes)
    }

    /// The session id of a client: the capability to act as it, so only the client itself is told.
    pub fn session_of(&self, client: ClientId) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(b"session");
        hasher.write(&client.0);
        hasher.finish128().as_u128()
    }

    /// What the publications of one channel have in common where they wait for a slow client. Nobody outside can make two
    /// channels meet, and by chance they do so once in 2^64.
    pub fn channel_key(&self, channel: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(b"channel");
        hasher.write(channel.as_bytes());
        hasher.finish128().as_u128() as u64
    }

    /// The same for the publications of a channel that have the same value of a tag, or all do without it. The latter is not
    /// the channel's own key: when the configuration changes, one that takes another's place must not jump over one with a tag.
    pub fn tag_key(&self, channel: &str, value: Option<&str>) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(b"tag");
        hasher.write(channel.as_bytes());
        // No text contains this byte, so none can pass for a channel and a value that are cut elsewhere.
        if let Some(value) = value {
            hasher.write_u8(0xff);
            hasher.write(value.as_bytes());
        }
        hasher.finish128().as_u128() as u64
    }

    /// A number below `below`, for jitter.
    pub fn next_below(&mut self, below: u64) -> u64 {
        (self.next_bits() as u64) % below.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_between_workers_keys_and_draws() {
        let mut seen = std::collections::HashSet::new();
        for key in [[1; 16], [2; 16]] {
            for worker in 0..3 {
                let mut ids = IdSource::new(key, worker);
                assert!((0..1000).all(|_| seen.insert(ids.next_client())));
            }
        }
    }

    #[test]
    fn a_session_id_belongs_to_one_client_and_key() {
        let mut ids = IdSource::new([1; 16], 0);
        let (a, b) = (ids.next_client(), ids.next_client());
        assert_eq!(ids.session_of(a), ids.session_of(a));
        assert_ne!(ids.session_of(a), ids.session_of(b));
        assert_ne!(ids.session_of(a), IdSource::new([2; 16], 0).session_of(a));
    }

    #[test]
    fn keys_differ_between_channels_values_and_processes() {
        let all = |ids: &IdSource| {
            let of = |channel: &str| {
                let tagged = [None, Some(""), Some("d"), Some("d\u{0}")].map(|value| ids.tag_key(channel, value));
                [&[ids.channel_key(channel)][..], &tagged].concat()
            };
            [of("c"), of("cd")].concat()
        };
        let (ids, other) = (IdSource::new([1; 16], 0), IdSource::new([2; 16], 0));
        let keys: std::collections::HashSet<u64> = all(&ids).into_iter().chain(all(&other)).collect();
        assert_eq!(keys.len(), 20);
        assert_eq!(all(&ids), all(&ids.clone()), "the same for the next publication");
    }

    #[test]
    fn a_client_id_prints_as_a_version_4_uuid() {
        let text = IdSource::new([7; 16], 0).next_client().to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
        assert_eq!(text.match_indices('-').map(|(i, _)| i).collect::<Vec<_>>(), [8, 13, 18, 23]);
    }
}
