//! Names: of workers, subscribers, channels and of places in a channel.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

/// A worker of this process, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(pub u16);

/// Who subscribed. Opaque here, so that sessions without a socket can subscribe as well as connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriberId(pub u64);

/// The number of a publication in its channel: the first is 1, each next one is 1 higher. 0 is "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset of the next publication.
    #[must_use]
    pub fn next(self) -> Offset {
        // 2^64 publications take 584 years at one per nanosecond.
        Offset(self.0 + 1)
    }
}

/// The identity of a channel's numbering, drawn anew whenever the numbering starts over at 1.
///
/// Why offsets alone do not do: a client leaves at offset 5, the channel is forgotten and numbered again up to 9. By
/// offset the client missed four publications; in truth it missed all nine. The epoch tells the two apart.
///
/// Displayed as eight letters, which is also its form on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch([u8; 8]);

const _: () = assert!(size_of::<Epoch>() == 8, "one per channel");

impl Epoch {
    /// The epoch that belongs to `seed`. Seeds below 52^8 give different epochs.
    #[must_use]
    pub fn from_seed(seed: u64) -> Epoch {
        const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut rest = seed;
        Epoch(std::array::from_fn(|_| {
            let letter = LETTERS[(rest % 52) as usize];
            rest /= 52;
            letter
        }))
    }

    /// The epoch that is written like this: eight letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Epoch> {
        let letters: [u8; 8] = text.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_alphabetic).then_some(Epoch(letters))
    }

    /// The eight letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an epoch is made of ASCII letters")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// A place in a channel: everything up to and including `offset`, as numbered in `epoch`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The newest publication included.
    pub offset: Offset,
    /// The numbering that `offset` belongs to.
    pub epoch: Epoch,
}

/// The full name of a channel. A clone shares the text and may go to another thread.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Copies `name`. How long a name may be is checked by whoever reads it from a client.
    #[must_use]
    pub fn new(name: &str) -> Channel {
        Channel(Arc::from(name))
    }
}

impl Deref for Channel {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Channel {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

// Sound because the derived Eq, Ord and Hash are those of the text.
impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Channel {
    fn from(name: &str) -> Channel {
        Channel::new(name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:?})", &*self.0)
    }
}

/// The keyed hash that chooses a channel's home worker and its place in the tables.
///
/// The key is drawn once per process and the same in all its workers. Clients choose channel names; without the key
/// they could choose ones that all fall to one worker or into one bucket.
#[derive(Clone, Copy)]
pub struct ChannelHash(SipHasher13);

impl ChannelHash {
    /// A hash with the process's key.
    #[must_use]
    pub fn new(key: [u8; 16]) -> ChannelHash {
        ChannelHash(SipHasher13::new_with_key(&key))
    }

    /// The worker, of `workers`, that numbers `channel`.
    ///
    /// # Panics
    ///
    /// When `workers` is 0.
    #[must_use]
    pub fn home(&self, channel: &str, workers: u16) -> WorkerId {
        assert!(workers > 0, "a process has at least one worker");
        // The high half scaled to the range: no division. Tables use the low half, which stays uniform among the
        // channels of one home.
        let high = self.0.hash(channel.as_bytes()) >> 32;
        WorkerId(((high * u64::from(workers)) >> 32) as u16)
    }

    /// The hash by which the tables of one worker find `channel`.
    pub(crate) fn in_tables(&self, channel: &str) -> u32 {
        self.0.hash(channel.as_bytes()) as u32
    }
}

impl fmt::Debug for ChannelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelHash(key hidden)")
    }
}

/// A slot of a table as a public id. Off by one, so that an `Option` or a small enum around the id costs nothing.
macro_rules! slot_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            pub(crate) fn from_slot(slot: u32) -> $name {
                $name(NonZeroU32::MIN.checked_add(slot).expect("slots end below u32::MAX"))
            }

            pub(crate) fn slot(self) -> u32 {
                self.0.get() - 1
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.slot())
            }
        }
    };
}

slot_id! {
    /// A channel that this worker's connections subscribe to. Valid while one of its subscriptions, pending or
    /// admitted, exists; reused afterwards.
    LocalId
}
slot_id! {
    /// One admitted subscription of this worker. Valid until it is removed; reused afterwards.
    MemberId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_eight_letters() {
        for seed in [0, 1, 51, 52, 53, u64::MAX] {
            let epoch = Epoch::from_seed(seed).to_string();
            assert_eq!(epoch.len(), 8, "{epoch}");
            assert!(epoch.bytes().all(|b| b.is_ascii_alphabetic()), "{epoch}");
        }
        assert_ne!(Epoch::from_seed(0), Epoch::from_seed(1));
        assert_ne!(Epoch::from_seed(51), Epoch::from_seed(52));
    }

    #[test]
    fn an_epoch_is_read_as_it_is_written_and_nothing_else_is() {
        let epoch = Epoch::from_seed(7);
        assert_eq!(Epoch::parse(epoch.as_str()), Some(epoch));
        assert_eq!(Epoch::parse("abcdefgh").map(|epoch| epoch.to_string()).as_deref(), Some("abcdefgh"));
        for text in ["", "_", "abcdefg", "abcdefghi", "abcdefg1", "abcdef\u{e9}"] {
            assert_eq!(Epoch::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn homes_are_even_over_the_workers() {
        let hash = ChannelHash::new([3; 16]);
        for workers in [1_u16, 2, 3, 7, 64] {
            let mut counts = vec![0_u32; usize::from(workers)];
            for n in 0..64_000 {
                counts[usize::from(hash.home(&format!("user:{n}"), workers).0)] += 1;
            }
            let fair = 64_000 / u32::from(workers);
            assert!(counts.iter().all(|&n| n.abs_diff(fair) <= fair / 5), "{workers} workers: {counts:?}");
        }
    }

    #[test]
    fn another_key_gives_other_homes() {
        let (a, b) = (ChannelHash::new([1; 16]), ChannelHash::new([2; 16]));
        let moved = (0..1000).map(|n| format!("c{n}")).filter(|c| a.home(c, 16) != b.home(c, 16)).count();
        assert!(moved > 800, "{moved} of 1000 moved");
    }

    #[test]
    fn the_key_is_not_printed() {
        assert!(!format!("{:?}", ChannelHash::new([0xAB; 16])).contains("171"));
    }
}
