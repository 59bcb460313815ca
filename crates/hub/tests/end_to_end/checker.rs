//! What clients got, held against what the homes numbered.

use std::collections::{BTreeMap, HashMap};

use hub::{Channel, Epoch, Position, Publication, SubscriberId};

/// One way in which a promise was broken.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Fault {
    /// A publication came though an earlier one had not.
    Gap { who: SubscriberId, channel: Channel, expected: u64, got: u64 },
    /// A publication came again, or after a later one.
    Repeated { who: SubscriberId, channel: Channel, expected: u64, got: u64 },
    /// A publication got another numbering than that of a subscription which should have got it.
    Epoch { who: SubscriberId, channel: Channel },
    /// A publication came to a client that has no subscription of the channel.
    Stranger { who: SubscriberId, channel: Channel },
    /// A publication is not what was numbered so.
    Content { channel: Channel, offset: u64 },
    /// All letters are read and a client still lacks publications.
    Missing { who: SubscriberId, channel: Channel, expected: u64, top: u64 },
    /// The home numbers another way than +1, or twice the same.
    Numbering { channel: Channel, offset: u64 },
    /// All clients are gone and a channel is still there.
    Leak { worker: usize, home: usize, local: usize },
}

#[derive(Default)]
pub(crate) struct Checker {
    /// What each home numbered: the data of offset 1, 2, 3 … of each numbering.
    numbered: HashMap<(Channel, Epoch), Vec<u64>>,
    /// Publications accepted so far.
    clock: u64,
    /// The last publication of each channel: when, and in which numbering.
    newest: BTreeMap<Channel, (u64, Epoch)>,
    /// The next offset each subscription must get.
    expected: BTreeMap<(SubscriberId, Channel), (Epoch, u64)>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) received: u64,
}

impl Checker {
    /// The home accepted a publication.
    pub(crate) fn published(&mut self, channel: &Channel, position: Position, data: u64) {
        self.clock += 1;
        self.newest.insert(channel.clone(), (self.clock, position.epoch));
        for ((who, subscribed), &(epoch, _)) in &self.expected {
            if subscribed == channel && epoch != position.epoch {
                self.faults.push(Fault::Epoch { who: *who, channel: channel.clone() });
            }
        }
        let numbered = self.numbered.entry((channel.clone(), position.epoch)).or_default();
        numbered.push(data);
        if numbered.len() as u64 != position.offset.0 {
            self.faults.push(Fault::Numbering { channel: channel.clone(), offset: position.offset.0 });
        }
    }

    /// When it is, in publications accepted.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// A client was told that it is subscribed, as of `position`, which was taken at `taken`.
    pub(crate) fn subscribed(&mut self, who: SubscriberId, channel: &Channel, position: Position, taken: u64) {
        if self.newest.get(channel).is_some_and(|&(at, epoch)| at > taken && epoch != position.epoch) {
            self.faults.push(Fault::Epoch { who, channel: channel.clone() });
        }
        self.expected.insert((who, channel.clone()), (position.epoch, position.offset.0 + 1));
    }

    /// A client's subscription is over.
    pub(crate) fn unsubscribed(&mut self, who: SubscriberId, channel: &Channel) {
        self.expected.remove(&(who, channel.clone()));
    }

    /// A client got a publication.
    pub(crate) fn received(&mut self, who: SubscriberId, publication: &Publication) {
        self.received += 1;
        let channel = publication.channel.clone();
        let got = publication.position.offset.0;
        let Some((epoch, expected)) = self.expected.get_mut(&(who, channel.clone())) else {
            self.faults.push(Fault::Stranger { who, channel });
            return;
        };
        let expected_now = *expected;
        if *epoch != publication.position.epoch {
            self.faults.push(Fault::Epoch { who, channel });
            return;
        }
        if got < expected_now {
            self.faults.push(Fault::Repeated { who, channel, expected: expected_now, got });
            return;
        }
        *expected = got + 1;
        let key = (channel.clone(), publication.position.epoch);
        let data = self.numbered.get(&key).and_then(|all| all.get(got as usize - 1));
        if data.map(|data| data.to_string()).as_deref() != std::str::from_utf8(&publication.data).ok() {
            self.faults.push(Fault::Content { channel: channel.clone(), offset: got });
        }
        if got > expected_now {
            self.faults.push(Fault::Gap { who, channel, expected: expected_now, got });
        }
    }

    /// All letters are read: every subscription has to be at the top of its numbering.
    pub(crate) fn settled(&mut self) {
        for ((who, channel), &(epoch, expected)) in &self.expected {
            let top = self.numbered.get(&(channel.clone(), epoch)).map_or(0, Vec::len) as u64;
            if expected != top + 1 {
                self.faults.push(Fault::Missing { who: *who, channel: channel.clone(), expected, top });
            }
        }
    }
}
