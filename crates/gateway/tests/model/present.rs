//! Who is present, as the clients are told and as it is.

use crate::checker::MayMiss;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What one client was told of the others since it is subscribed.
#[derive(Debug, Default)]
pub struct Others {
    /// By channel and client: it has come, or gone.
    told: BTreeMap<String, BTreeMap<String, bool>>,
}

/// Whether every join and leave has to reach whoever listens: its policy leaves nothing out.
pub fn is_strict(channel: &str) -> bool {
    MayMiss::of(channel) == MayMiss::Nothing
}

impl Others {
    /// A subscription begins.
    pub fn begin(&mut self, channel: &str) {
        self.told.remove(channel);
    }

    /// A join or leave push.
    pub fn take(&mut self, channel: &str, has_come: bool, push: &Value) -> Result<(), String> {
        let client = push["info"]["client"].as_str().ok_or("a join or leave of nobody")?;
        let before = self.told.entry(channel.to_owned()).or_default().insert(client.to_owned(), has_come);
        if before == Some(has_come) && is_strict(channel) {
            let what = if has_come { "come" } else { "gone" };
            return Err(format!("{channel}: told twice that {client} has {what}"));
        }
        Ok(())
    }

    /// It is quiet, and `present` are there: what was told last must be so.
    pub fn agree(&self, channel: &str, me: &str, present: &BTreeSet<String>) -> Result<(), String> {
        if !is_strict(channel) {
            return Ok(());
        }
        let told = self.told.get(channel);
        if told.and_then(|told| told.get(me)) != Some(&true) {
            return Err(format!("{channel}: {me} was not told of its own join"));
        }
        for (client, has_come) in told.into_iter().flatten() {
            if *has_come != present.contains(client) {
                return Err(format!("{channel}: {me} was told last of {client}: {has_come}, which is not so"));
            }
        }
        Ok(())
    }
}
