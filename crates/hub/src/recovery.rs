//! What a client that comes back has missed, and whether that is all still there.
//!
//! A client names the last position that it has seen. It is *recovered* when everything above it is kept, within the limits
//! of what one answer may hold; otherwise there is a gap, it is told so, and it has to load its state anew.

use std::sync::Arc;

use crate::history::History;
use crate::id::{Channel, Epoch, Offset, Position};
use crate::publication::Publication;

/// A position as a client names it. Its text is not to be trusted: epochs that nobody drew are just never equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Since {
    /// The last publication seen.
    pub offset: Offset,
    /// The numbering it was seen in.
    pub epoch: SinceEpoch,
}

/// The epoch that a client names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SinceEpoch {
    /// None: whatever the epoch is now.
    Any,
    /// One that could be ours.
    Known(Epoch),
    /// A text that is no epoch of ours, such as the `_` of clients whose position was taken away.
    Foreign,
}

impl SinceEpoch {
    /// Reads what a client sent; empty is any.
    #[must_use]
    pub fn read(text: &str) -> SinceEpoch {
        match Epoch::parse(text) {
            _ if text.is_empty() => SinceEpoch::Any,
            Some(epoch) => SinceEpoch::Known(epoch),
            None => SinceEpoch::Foreign,
        }
    }

    pub(crate) fn accepts(self, epoch: Epoch) -> bool {
        match self {
            SinceEpoch::Any => true,
            SinceEpoch::Known(known) => known == epoch,
            SinceEpoch::Foreign => false,
        }
    }
}

/// What a namespace's channels recover.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RecoveryMode {
    /// Every publication that was missed.
    #[default]
    Stream,
    /// The newest publication alone: the channel carries a state, not events.
    Cache,
}

/// A subscription's wish to go on where it left off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recover {
    /// Where it left off.
    pub since: Since,
    /// What is recovered.
    pub mode: RecoveryMode,
    /// Publications that one answer may hold.
    pub publications_max: usize,
    /// Bytes of their texts.
    pub bytes_max: usize,
}

/// What became of the wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// There was none.
    NotAsked,
    /// Something may have been missed that cannot be had any more, or it is too much for one answer.
    Failed,
    /// These were missed and nothing else; `None` is nothing at all.
    Recovered(Option<Arc<Missed>>),
}

/// A run of publications that clients have missed: the last ones up to a position. Position and number say what it holds,
/// so an encoding of it can be shared.
#[derive(PartialEq, Eq, Debug)]
pub struct Missed {
    /// The channel.
    pub channel: Channel,
    /// The position of the last one.
    pub to: Position,
    /// In order; at least one.
    pub publications: Box<[Arc<Publication>]>,
}

/// The verdict, and how many of the newest publications go with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Failed,
    Recovered { newest: usize },
}

/// Judges a wish by what is kept of a channel that is at `top`.
pub(crate) fn judge(history: &History, top: Position, recover: &Recover) -> Verdict {
    let Recover { since, mode, publications_max, bytes_max } = *recover;
    let missed = match mode {
        RecoveryMode::Stream => {
            if !since.epoch.accepts(top.epoch) {
                return Verdict::Failed;
            }
            // Above the top: a position that never was; nothing can be said about it.
            let Some(missed) = top.offset.0.checked_sub(since.offset.0) else { return Verdict::Failed };
            usize::try_from(missed).unwrap_or(usize::MAX)
        }
        RecoveryMode::Cache => {
            let is_at_top = since.offset == top.offset && since.epoch == SinceEpoch::Known(top.epoch);
            usize::from(!is_at_top)
        }
    };
    // The ring ends at the top, or is empty, so its length decides.
    if missed > history.len() || missed > publications_max {
        return Verdict::Failed;
    }
    let mut bytes = 0_usize;
    let fits = history.newest_of(missed).all(|publication| {
        bytes += publication.text_bytes();
        bytes <= bytes_max
    });
    if fits { Verdict::Recovered { newest: missed } } else { Verdict::Failed }
}
