//! The frames of one publication: made when the first connection needs them, at most three for all that look alike.

use super::{Compression, Counts, clear, compressor};
use crate::connection::Connection;
use crate::encoded::Encoding;
use crate::outbox::{BodyId, Outboxes, Standing};
use crate::settings;
use hub::{LocalId, Publication};
use wire::ws::OpCode;
use wire::ws::deflate::{Compressed, Mark, Previous, START_BYTES};

/// A connection whose last compressed message was of another channel is sent one in so many publications that is no shorter
/// than plain, so that later ones can refer to it. More often would not pay where two channels take turns.
const STARTS_EVERY: u64 = 8;

/// One publication on its way to the members of its channel.
#[derive(Debug)]
pub struct Frames<'p> {
    publication: &'p Publication,
    patch: Option<&'p str>,
    standing: Standing,
    looks: [Encoding; Encoding::COUNT],
    /// Its namespace's publications may be compressed.
    rules: Option<&'p settings::Compression>,
    channel: LocalId,
    made: [Made; Encoding::COUNT],
}

/// What was made for one encoding.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    plain: Option<BodyId>,
    packing: Option<Packing>,
}

/// A publication that some connection would take compressed.
#[derive(Clone, Copy, Debug)]
struct Packing {
    opcode: OpCode,
    mark: Mark,
    payload_bytes: usize,
    alone: Attempt,
    after: Attempt,
}

#[derive(Clone, Copy, Debug)]
enum Attempt {
    Untried,
    /// It would take too many bytes.
    Failed,
    Made {
        body: BodyId,
        packed: Compressed,
        bytes: usize,
    },
}

/// The frame for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// It is held by [`Frames`] until [`Frames::finish`].
    pub body: BodyId,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing was agreed.
    Plain,
    /// The connection would have taken it compressed.
    AsItIs,
    Alone {
        before: usize,
        after: usize,
    },
    After {
        before: usize,
        after: usize,
    },
}

impl<'p> Frames<'p> {
    /// Nothing is made yet. `rules`: of compression, where the namespace has it.
    pub fn new(
        publication: &'p Publication,
        channel: LocalId,
        patch: Option<&'p str>,
        standing: Standing,
        rules: Option<&'p settings::Compression>,
    ) -> Self {
        let looks = Encoding::looks_like(patch.is_some());
        Self { publication, patch, standing, looks, rules, channel, made: Default::default() }
    }

    /// The frame for a connection whose encoding has that number. `encodings` counts how often it was encoded.
    pub fn choose(
        &mut self,
        encoding: u8,
        connection: &Connection,
        compression: &mut Compression,
        outboxes: &mut Outboxes,
        encodings: &mut u64,
    ) -> Chosen {
        let look = self.looks[usize::from(encoding)];
        let Some(rules) = self.rules.filter(|_| connection.agreed().is_some()) else {
            let body = self.plain(look, compression, outboxes, encodings);
            return Chosen { body, kind: Kind::Plain };
        };
        if self.made[look as usize].packing.is_none() {
            self.begin(look, compression, encodings);
        }
        self.packed(look, rules, connection, compression, outboxes).unwrap_or_else(|| {
            let body = self.plain(look, compression, outboxes, encodings);
            Chosen { body, kind: Kind::AsItIs }
        })
    }

    /// The frame that everybody can read.
    fn plain(
        &mut self,
        look: Encoding,
        compression: &mut Compression,
        outboxes: &mut Outboxes,
        encodings: &mut u64,
    ) -> BodyId {
        let made = &mut self.made[look as usize];
        let (publication, patch, standing) = (self.publication, self.patch, self.standing);
        *made.plain.get_or_insert_with(|| {
            let payload = &mut compression.payloads[look as usize];
            if let Some(Packing { opcode, .. }) = made.packing {
                // It was encoded already, to be compressed.
                return outboxes.shared_as(standing, |out| wire::ws::write_frame(out, opcode, true, payload, None));
            }
            *encodings += 1;
            outboxes.shared_as(standing, |out| look.publication(publication, patch, payload, out))
        })
    }

    fn begin(&mut self, look: Encoding, compression: &mut Compression, encodings: &mut u64) {
        let payload = &mut compression.payloads[look as usize];
        // If it was made into a frame already it still lies there.
        let is_encoded = self.made[look as usize].plain.is_some();
        let opcode = if is_encoded {
            look.opcode()
        } else {
            *encodings += 1;
            look.payload(self.publication, self.patch, payload)
        };
        let (mark, payload_bytes) = (compression.marks.draw(), payload.len());
        let (alone, after) = (Attempt::Untried, Attempt::Untried);
        self.made[look as usize].packing = Some(Packing { opcode, mark, payload_bytes, alone, after });
    }

    /// The frame to be sent compressed, if there is one that this connection can read and that is worth it.
    fn packed(
        &mut self,
        look: Encoding,
        rules: &settings::Compression,
        connection: &Connection,
        compression: &mut Compression,
        outboxes: &mut Outboxes,
    ) -> Option<Chosen> {
        let (agreed, packing) = (connection.agreed()?, self.made[look as usize].packing.as_mut()?);
        let before = packing.payload_bytes;
        if before < rules.publication_bytes_min {
            return None;
        }
        let mut work = Work { compression, outboxes, rules, standing: self.standing, look };
        let waits = connection.backlog() > 0;
        let mut is_chained = false;
        if rules.after_previous {
            let channel = &self.publication.channel;
            let previous = work.compression.previous.find(self.channel, look as u8, channel);
            // What is still waiting may be dropped, unless nothing drops it.
            let may_refer = previous.map(|previous| (previous.mark, previous.stays || !waits));
            if let Some((mark, is_sure)) = may_refer
                && agreed.marks.is_at(mark)
            {
                is_chained = true;
                if is_sure
                    && let Attempt::Made { body, packed, bytes } = work.after(packing, self.channel, channel)
                    && agreed.marks.accepts(&packed)
                {
                    return Some(Chosen { body, kind: Kind::After { before, after: bytes } });
                }
            }
        }
        let Attempt::Made { body, packed, bytes } = work.alone(packing) else { return None };
        let is_shorter = bytes < before;
        // One that is not can only be a start: for a connection that can refer to it, and does not refer to another.
        let is_start = || {
            let is_due = agreed.marks.is_at_none() || packing.mark.number().is_multiple_of(STARTS_EVERY);
            let may_go = self.standing != Standing::Firm && waits;
            is_due && !(is_chained || may_go || agreed.marks.forgets())
        };
        let is_wanted = agreed.marks.accepts(&packed) && (is_shorter || is_start());
        is_wanted.then_some(Chosen { body, kind: Kind::Alone { before, after: bytes } })
    }

    /// The connection has taken the frame into its outbox.
    pub fn delivered(chosen: Chosen, compression: &mut Compression) {
        let Counts { alone, after, as_they_are, .. } = &mut compression.counts;
        match chosen.kind {
            Kind::Plain => {}
            Kind::AsItIs => *as_they_are += 1,
            Kind::Alone { before, after } => alone.count(before, after),
            Kind::After { before, after: bytes } => after.count(before, bytes),
        }
    }

    /// All members have been visited. The next publication may refer to what was compressed.
    pub fn finish(self, compression: &mut Compression, outboxes: &mut Outboxes) {
        for (number, made) in (0..).zip(self.made) {
            made.plain.into_iter().for_each(|body| outboxes.release(body));
            if let Some(packing) = made.packing {
                self.keep(number, &packing, compression, outboxes);
            }
            if made.plain.is_some() || made.packing.is_some() {
                clear(&mut compression.payloads[usize::from(number)]);
            }
        }
    }

    /// Gives back what was compressed, and keeps it for the next publication to refer to.
    fn keep(&self, number: u8, packing: &Packing, compression: &mut Compression, outboxes: &mut Outboxes) {
        let mut is_compressed = false;
        for attempt in [packing.alone, packing.after] {
            if let Attempt::Made { body, .. } = attempt {
                is_compressed = true;
                outboxes.release(body);
            }
        }
        let Some(rules) = self.rules.filter(|rules| rules.after_previous && is_compressed) else { return };
        let identity = (packing.mark, self.standing == Standing::Firm);
        let Compression { previous, payloads, .. } = compression;
        let payload = &payloads[usize::from(number)];
        let (key, channel) = ((self.channel, number), &self.publication.channel);
        previous.keep(key, channel, identity, payload, rules.previous_bytes_max);
    }
}

/// What an attempt needs.
struct Work<'w> {
    compression: &'w mut Compression,
    outboxes: &'w mut Outboxes,
    rules: &'w settings::Compression,
    standing: Standing,
    look: Encoding,
}

impl Work<'_> {
    fn alone(&mut self, packing: &mut Packing) -> Attempt {
        if matches!(packing.alone, Attempt::Untried) {
            let start = if self.rules.after_previous { START_BYTES } else { 0 };
            // Without a chain to begin it has to become shorter.
            let bytes_max =
                if start > 0 { packing.payload_bytes + start } else { packing.payload_bytes.saturating_sub(1) };
            packing.alone = self.compress(packing, None, bytes_max);
        }
        packing.alone
    }

    fn after(&mut self, packing: &mut Packing, channel: LocalId, name: &hub::Channel) -> Attempt {
        if matches!(packing.after, Attempt::Untried) {
            packing.after = self.compress(packing, Some((channel, name)), packing.payload_bytes.saturating_sub(1));
        }
        packing.after
    }

    fn compress(&mut self, packing: &Packing, channel: Option<(LocalId, &hub::Channel)>, bytes_max: usize) -> Attempt {
        let number = self.look as u8;
        let Compression { compressor: slot, previous, payloads, packed, counts, .. } = &mut *self.compression;
        let previous = channel.and_then(|(local, name)| previous.find(local, number, name));
        let previous = previous.map(|kept| Previous { mark: kept.mark, payload: &kept.payload });
        let is_first = matches!((packing.alone, packing.after), (Attempt::Untried, Attempt::Untried));
        counts.publications += u64::from(is_first);
        counts.publication_runs += 1;
        clear(packed);
        let payload = &payloads[usize::from(number)];
        let compressor = compressor(slot, self.rules.level);
        let Some(compressed) = compressor.compress(payload, previous, bytes_max, packed) else {
            return Attempt::Failed;
        };
        let body = self.outboxes.shared_compressed(self.standing, packing.mark, |out| {
            wire::ws::write_compressed_header(out, packing.opcode, packed.len(), None);
            out.extend_from_slice(packed);
        });
        Attempt::Made { body, packed: compressed, bytes: packed.len() }
    }
}
