//! Channels with a history: where a client is in each, and whether what it is told when it comes back had to be so.

use crate::checker::MayMiss;
use crate::coverage::Seen;
use crate::planted::Log;
use serde_json::{Value, json};
use std::time::Duration;

/// What a world promises of its histories, and what else may make room in it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub size: u64,
    pub ttl: Duration,
    pub meta_ttl: Duration,
    /// That time is so short that a channel may be forgotten while a client is away. How long it was away cannot be told: what
    /// a client reads late has happened before.
    pub forgets: bool,
    /// Publications that one recovery brings.
    pub limit: u64,
    /// Homes are so small that channels without subscribers are forgotten.
    pub evicts: bool,
    /// Homes hold so few bytes that histories are cut.
    pub empties: bool,
    /// Deliveries are lost on the way to the workers.
    pub loses: bool,
    /// Outboxes are so small that a recovery may find no room.
    pub small_outbox: bool,
    /// Homes know their subscribers by name.
    pub knows: bool,
    /// Everybody is told who comes and goes.
    pub tells_all: bool,
}

/// What a client is judged by.
pub struct View<'a> {
    pub log: &'a Log,
    pub rules: &'a Rules,
    /// The payload id that the test gives out next.
    pub next_id: u64,
    pub now: Duration,
}

/// The channels whose publications are kept.
pub fn is_kept(channel: &str) -> bool {
    channel.starts_with("kept")
}

/// Where a client is in a channel: what it would remember to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub epoch: String,
    pub offset: u64,
}

impl Place {
    pub fn request(&self, channel: &str) -> Value {
        json!({"channel": channel, "recover": true, "epoch": self.epoch, "offset": self.offset})
    }

    /// One more publication, live: the next one, or a later one where some may be missing.
    pub fn live(&mut self, view: &View<'_>, channel: &str, publication: &Value, id: u64) -> Result<(), String> {
        let offset = publication["offset"].as_u64().unwrap_or(0);
        if MayMiss::of(channel).within() && offset > self.offset {
            self.offset = offset - 1;
        }
        self.step(view, channel, publication, id)
    }

    /// One more publication: it must be the next one.
    fn step(&mut self, view: &View<'_>, channel: &str, publication: &Value, id: u64) -> Result<(), String> {
        let offset =
            publication["offset"].as_u64().ok_or_else(|| format!("{channel} brought no offset: {publication}"))?;
        if offset != self.offset + 1 {
            return Err(format!("{channel} brought offset {offset} behind {}", self.offset));
        }
        match view.log.at(channel, &self.epoch, offset) {
            Some((numbered, _)) if numbered == id => {}
            other => return Err(format!("{channel} brought {id} at {offset}; numbered there was {other:?}")),
        }
        self.offset = offset;
        Ok(())
    }
}

/// Judges the result of a subscribe that named `asked`: the client's new place, and the payload ids it recovered.
pub fn judge(
    view: &View<'_>,
    channel: &str,
    asked: Option<&Place>,
    result: &Value,
    seen: &mut Seen,
) -> Result<(Place, Vec<u64>), String> {
    let epoch = result["epoch"].as_str().ok_or_else(|| format!("{channel}: no epoch in {result}"))?.to_owned();
    let offset = result["offset"].as_u64().unwrap_or(0);
    let mut place = Place { epoch, offset };
    if (result["was_recovering"] == true) != asked.is_some() {
        return Err(format!("{channel}: {result} to {asked:?}"));
    }
    let publications = result["publications"].as_array().cloned().unwrap_or_default();
    let Some(asked) = asked else { return Ok((place, Vec::new())) };
    if result["recovered"] == true {
        if (&place.epoch, place.offset) != (&asked.epoch, asked.offset) {
            return Err(format!("{channel}: recovered from {asked:?} to {result}"));
        }
        seen.recovered += 1;
        seen.recovered_publications += publications.len() as u64;
        let ids = publications.iter().map(|publication| {
            let id = publication["data"]["n"].as_u64().ok_or("a publication that is not ours")?;
            place.step(view, channel, publication, id).map(|()| id)
        });
        let ids: Result<Vec<u64>, String> = ids.collect();
        return Ok((place, ids?));
    }
    if !publications.is_empty() {
        return Err(format!("{channel}: publications without recovery in {result}"));
    }
    excuse(view, channel, asked, &place, seen)?;
    Ok((place, Vec::new()))
}

/// A gap must have had a reason.
fn excuse(view: &View<'_>, channel: &str, asked: &Place, top: &Place, seen: &mut Seen) -> Result<(), String> {
    let rules = view.rules;
    if top.epoch != asked.epoch {
        seen.gaps_by_epoch += 1;
        let excused = rules.evicts || rules.forgets;
        return if excused { Ok(()) } else { Err(format!("{channel}: a new epoch for no reason")) };
    }
    let missed = top.offset.checked_sub(asked.offset).ok_or("the channel went back")?;
    if missed > rules.size || missed > rules.limit {
        seen.gaps_by_size += 1;
        return Ok(());
    }
    let oldest = view.log.at(channel, &asked.epoch, asked.offset + 1);
    if oldest.is_some_and(|(_, at)| at + rules.ttl <= view.now) {
        seen.gaps_by_time += 1;
        return Ok(());
    }
    seen.gaps_by_room += 1;
    let excused = missed > 0 && (rules.empties || rules.small_outbox);
    if excused { Ok(()) } else { Err(format!("{channel}: a gap for no reason from {asked:?} to {top:?}")) }
}
