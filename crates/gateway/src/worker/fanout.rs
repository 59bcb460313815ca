//! One publication to this worker's subscribers: encoded once per encoding, then pushed to each outbox.

use super::Worker;
use crate::mailbox::Post;
use conn::compression::frames::Frames;
use conn::encoded::Encoding;
use conn::outbox::Standing;
use conn::{Delivered, Disconnect, Settings, settings};
use hub::{LocalId, MemberId, Publication, SlowClient, Step};
use io::{Class, ConnId, Io};
use std::sync::Arc;

/// Room from the start for connections set aside, 6 KiB: of an audience of slow readers any number can cross a mark with the
/// same publication, and until all of them once have, a vector that follows them would grow in the midst of a fan-out.
const ASIDES: usize = 256;

/// Memory reused from one fan-out to the next.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    /// Connections that could not simply be pushed to, and why. Handled after the walk over the members.
    aside: Vec<(ConnId, Aside)>,
    /// Members that take deltas and got a publication for the first time: from now on they read patches.
    begun: Vec<(MemberId, Encoding)>,
}

impl Fanout {
    pub(super) fn new() -> Self {
        Self { aside: Vec::with_capacity(ASIDES), ..Self::default() }
    }
}

const _: () = assert!(size_of::<(ConnId, Aside)>() * ASIDES <= 6 * 1024);

#[derive(Debug, Clone, Copy)]
enum Aside {
    /// The outbox is full.
    Slow(Standing),
    /// The push crossed high water, or publications were skipped.
    Attend,
    /// The subscription is not announced yet.
    Held,
    /// Something is missing before the publication, and the subscription is one that is told so.
    Gap(LocalId),
}

/// How a publication is compressed, where its namespace says so.
fn compression<'s>(settings: &'s Settings, publication: &Publication) -> Option<&'s settings::Compression> {
    let namespace = settings.namespaces.of(&publication.channel);
    // Where namespaces need not exist, those that do not have the defaults.
    settings.compression.as_ref().filter(|_| namespace.is_none_or(|(_, namespace)| namespace.compress))
}

impl<P: Post> Worker<P> {
    /// Pushes a publication to every member of its channel here. Returns how many members were visited.
    pub(super) fn fan_out(&mut self, io: &mut Io, publication: &Arc<Publication>) -> usize {
        // Subscribers may all have left while the letter was under way.
        let Some(channel) = self.shared.local.find(&publication.channel) else { return 0 };
        let is_gap = match self.shared.local.step(channel, publication) {
            Step::Next => false,
            Step::Gap => true,
            Step::Old => return 0,
        };
        let settings = Arc::clone(&self.shared.settings);
        let standing = self.standing(&settings, publication);
        let (stays, bytes_max) = (standing == Standing::Firm, settings.limits.delta_bytes_max);
        let patch = self.shared.deltas.advance(channel, publication, stays, bytes_max);
        // What a patch is made from may be dropped before it is sent: only who waits for nothing surely has it.
        let is_for_empty = patch.is_some_and(|patch| !patch.base_stays);
        let patch = patch.map(|patch| patch.text);
        let mut frames = Frames::new(publication, channel, patch, standing, compression(&settings, publication));
        let mut fanout = std::mem::take(&mut self.fanout);
        let (mut visited, mut delivered) = (0, 0);
        for member in self.shared.local.members(channel) {
            visited += 1;
            let id = ConnId::from_bits(member.subscriber.0);
            if is_gap && member.positioned {
                fanout.aside.push((id, Aside::Gap(channel)));
                continue;
            }
            if member.held {
                fanout.aside.push((id, Aside::Held));
                continue;
            }
            let Some(connection) = self.table.find(id) else { continue };
            let is_whole = is_for_empty && connection.backlog() > 0;
            let number = if is_whole { Encoding::set_back(member.encoding) } else { member.encoding };
            let (compression, outboxes) = (&mut self.shared.compression, &mut self.shared.outboxes);
            let encodings = &mut self.shared.counters.encodings;
            let chosen = frames.choose(number, connection, compression, outboxes, encodings);
            let outcome = connection.deliver(chosen.body, outboxes, &settings.limits);
            if matches!(outcome, Delivered::Queued | Delivered::First | Delivered::Attend) {
                Frames::delivered(chosen, compression);
                if let Some(next) = Encoding::after_first(member.encoding) {
                    fanout.begun.push((member.member, next));
                }
            }
            match outcome {
                Delivered::Queued => delivered += 1,
                Delivered::First => {
                    delivered += 1;
                    io.dirty(id, Class::Broadcast);
                }
                Delivered::Attend => {
                    delivered += 1;
                    fanout.aside.push((id, Aside::Attend));
                }
                Delivered::Skipped => fanout.aside.push((id, Aside::Attend)),
                Delivered::Slow => fanout.aside.push((id, Aside::Slow(standing))),
                Delivered::Gone => {}
            }
        }
        frames.finish(&mut self.shared.compression, &mut self.shared.outboxes);
        fanout.begun.drain(..).for_each(|(member, next)| self.shared.local.set_encoding(member, next as u8));
        self.shared.counters.deliveries += delivered;
        self.shared.counters.messages_out += delivered;
        for (id, aside) in fanout.aside.drain(..) {
            self.handle_aside(io, id, aside, publication);
        }
        self.fanout = fanout;
        visited
    }

    /// What may be done with the publication where it waits for a client that reads too slowly.
    fn standing(&self, settings: &Settings, publication: &Publication) -> Standing {
        let Some((_, namespace)) = settings.namespaces.of(&publication.channel) else { return Standing::Firm };
        let (ids, channel) = (&self.shared.ids, &publication.channel);
        match (namespace.slow_client, &namespace.conflate_by_tag) {
            (SlowClient::Disconnect, _) => Standing::Firm,
            (SlowClient::DropOldest, _) => Standing::Oldest { channel: ids.channel_key(channel) },
            (SlowClient::Conflate, None) => Standing::Latest { key: ids.channel_key(channel), in_place: true },
            (SlowClient::Conflate, Some(tag)) => {
                let value = publication.tags.as_ref().and_then(|tags| tags.get(&**tag)).map(String::as_str);
                // Other values may wait between two of one, and what a client gets of a channel is in order.
                Standing::Latest { key: ids.tag_key(channel, value), in_place: false }
            }
        }
    }

    fn handle_aside(&mut self, io: &mut Io, id: ConnId, aside: Aside, publication: &Arc<Publication>) {
        let now = io.now();
        let Some(connection) = self.table.find(id) else { return };
        let directions = match aside {
            Aside::Slow(standing) => {
                let counters = &mut self.shared.counters;
                match standing {
                    Standing::Latest { .. } => counters.slow_by_conflated += 1,
                    Standing::Firm | Standing::Oldest { .. } => counters.slow_by_firm += 1,
                }
                connection.disconnect(now, Disconnect::SLOW, &mut self.shared)
            }
            Aside::Attend => connection.attend(now, &mut self.shared),
            Aside::Held => connection.hold(now, publication, &mut self.shared),
            Aside::Gap(channel) => connection.missed_something(now, channel, &mut self.shared),
        };
        self.carry_out(io, id, directions);
    }
}
