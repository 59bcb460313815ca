//! What one subscription of one client has received, held against what the homes have numbered.

use crate::planted::Log;
use std::collections::BTreeMap;

/// What a channel's namespace lets a slow client miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayMiss {
    Nothing,
    /// `drop_oldest` with a history: nothing within one subscription; a client that may miss some is told, and comes back.
    Announced,
    /// `drop_oldest`
    Oldest,
    /// `conflate`
    ButTheNewest,
}

impl MayMiss {
    /// By the channel's name; [`crate::world`] configures the namespaces so.
    pub fn of(channel: &str) -> Self {
        match channel.split_once(':') {
            Some(("keptskip", _)) => Self::Announced,
            Some(("skip", _)) => Self::Oldest,
            Some(("newest" | "keptnewest" | "tagged" | "kepttagged", _)) => Self::ButTheNewest,
            _ => Self::Nothing,
        }
    }

    /// Whether some may be missing between two publications of one subscription.
    pub fn within(self) -> bool {
        matches!(self, Self::Oldest | Self::ButTheNewest)
    }
}

/// One subscription, from *subscribed* to its end.
#[derive(Debug)]
pub struct Received {
    /// Publications asked for by the test from here on were asked for after the client knew that it is subscribed.
    floor: u64,
    ids: Vec<u64>,
}

impl Received {
    pub fn new(floor: u64) -> Self {
        Self { floor, ids: Vec::new() }
    }

    /// Whether the subscription began after the test had asked for that publication.
    pub fn is_after(&self, id: u64) -> bool {
        self.floor > id
    }

    /// One more publication: the next one of the same numbering, or it is a finding; where some may be missed, a later one.
    /// Returns how many are missing before it.
    pub fn take(&mut self, log: &Log, channel: &str, id: u64) -> Result<u64, String> {
        let Some((numbered, place)) = log.place(channel, id) else {
            return Err(format!("{channel} brought {id}, which was never published there"));
        };
        let mut missed = 0;
        if let Some(&before) = self.ids.last() {
            let expected = numbered.iter().position(|(_, known)| *known == before).map(|place| place + 1);
            let may_miss = MayMiss::of(channel).within();
            match expected {
                Some(expected) if place == expected || may_miss && place > expected => missed = place - expected,
                _ => {
                    let order: Vec<u64> = numbered.iter().map(|(_, id)| *id).collect();
                    return Err(format!("{channel} brought {id} behind {before}; numbered were {order:?}"));
                }
            }
        }
        self.ids.push(id);
        Ok(missed as u64)
    }

    /// The subscription has ended before the world did: nothing may be missing in front of what came.
    pub fn end_early(&self, log: &Log, channel: &str) -> Result<(), String> {
        let Some(&first) = self.ids.first() else { return Ok(()) };
        if MayMiss::of(channel).within() {
            return Ok(());
        }
        let Some((numbered, place)) = log.place(channel, first) else { return Ok(()) };
        match numbered[..place].iter().find(|(_, id)| *id >= self.floor) {
            Some((_, missed)) => Err(format!("{channel} began with {first} and lost {missed}")),
            None => Ok(()),
        }
    }

    /// The subscription has lasted, and `sentinel` was the last publication: it must be the last one received.
    pub fn end_complete(&self, log: &Log, channel: &str, sentinel: u64) -> Result<(), String> {
        if self.ids.last() != Some(&sentinel) {
            return Err(format!("{channel} ended with {:?} and not with the last one, {sentinel}", self.ids.last()));
        }
        if channel.split_once(':').is_some_and(|(namespace, _)| namespace.ends_with("tagged")) {
            self.has_newest_of_each_tag(log, channel)?;
        }
        self.end_early(log, channel)
    }

    /// Whatever was left out was replaced by one with the same tag.
    fn has_newest_of_each_tag(&self, log: &Log, channel: &str) -> Result<(), String> {
        let Some((numbered, first)) = self.ids.first().and_then(|first| log.place(channel, *first)) else {
            return Ok(());
        };
        let newest: BTreeMap<_, u64> = numbered[first..].iter().map(|(_, id)| (log.tag(*id), *id)).collect();
        match newest.iter().find(|(_, id)| !self.ids.contains(id)) {
            Some((tag, missed)) => Err(format!("{channel} did not bring {missed}, the newest with {tag:?}")),
            None => Ok(()),
        }
    }
}
