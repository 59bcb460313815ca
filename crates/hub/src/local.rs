//! The subscribers among this worker's connections.

use std::fmt;

use crate::id::{Channel, ChannelHash, LocalId, MemberId, Position, SubscriberId};
use crate::index::Index;
use crate::members::{Member, Members, Part};
use crate::publication::Publication;
use crate::slots::{Slot, Slots};

/// The subscribing half of a worker's hub: for each channel the members that get its publications, and how many
/// subscriptions still wait for their home's answer.
///
/// ```text
///            begin                admit(held)            go_live
///   nothing ───────▶ pending ──┬──────────────▶ held ─────────────▶ live
///                      │       └── admit(!held) ──────────────────▶  │
///                      │ abandon                 │ remove            │ remove
///                      ▼                         ▼                   ▼
///                   nothing                   nothing             nothing
/// ```
///
/// A channel is known here while it has a subscription in any of the three states. How many there can be is bounded by
/// the limit of subscriptions per session, which is checked before [`Local::begin`].
pub struct Local {
    hash: ChannelHash,
    channels: Slots<Entry>,
    index: Index,
    /// Where each member stands, so that it can be removed without a search.
    places: Slots<Place>,
}

struct Entry {
    channel: Channel,
    /// Subscriptions between [`Local::begin`] and their answer.
    pending: u32,
    members: Members,
    /// Where the positioned members are; nothing where there are none.
    followed: Option<Box<Followed>>,
}

/// The publications that come from a home are contiguous. All members of a worker get the same ones, so that one position
/// per channel does for all of them.
struct Followed {
    position: Position,
    members: u32,
}

/// How a publication follows the one before it, for the positioned members of its channel here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is the next one, or there is nobody to whom that matters.
    Next,
    /// They have it already.
    Old,
    /// Something is missing before it.
    Gap,
}

/// INVARIANT: the member at `position` of channel `local` has the id of this place's slot.
struct Place {
    local: LocalId,
    position: u32,
}

const _: () = assert!(size_of::<Slot<Entry>>() == 48, "48 B a channel with at most one subscriber");
const _: () = assert!(size_of::<Slot<Place>>() == 8, "8 B a subscription");

impl Local {
    /// A worker without subscribers.
    #[must_use]
    pub fn new(hash: ChannelHash) -> Local {
        Local { hash, channels: Slots::new(), index: Index::new(), places: Slots::new() }
    }

    /// A subscription is about to be sent to its home: pending from now on. Ends with one [`Local::admit`] or
    /// [`Local::abandon`]. The channel returned shares its text with all subscriptions here and, in the letter, with the
    /// home.
    pub fn begin(&mut self, channel: &str) -> (LocalId, Channel) {
        let hash = self.hash.in_tables(channel);
        if let Some(slot) = self.slot_of(channel, hash) {
            let entry = self.channels.at_mut(slot);
            entry.pending = entry.pending.checked_add(1).expect("fewer than 2^32 subscribes wait on one worker");
            return (LocalId::from_slot(slot), entry.channel.clone());
        }
        let channel = Channel::new(channel);
        let slot = self.channels.insert(Entry {
            channel: channel.clone(),
            pending: 1,
            members: Members::None,
            followed: None,
        });
        self.index.insert(hash, slot);
        (LocalId::from_slot(slot), channel)
    }

    /// A pending subscription came to nothing: refused, or nobody waits for its answer any more. In the second case the
    /// home counts it and has to get a withdrawal.
    pub fn abandon(&mut self, id: LocalId) {
        let entry = self.channels.at_mut(id.slot());
        entry.pending = entry.pending.checked_sub(1).expect("each begin is abandoned or admitted once");
        self.forget_if_unused(id);
    }

    /// A pending subscription was accepted: `subscriber` is a member from now on, held or live.
    pub fn admit(&mut self, id: LocalId, subscriber: SubscriberId, encoding: u8, held: bool) -> MemberId {
        let entry = self.channels.at_mut(id.slot());
        entry.pending = entry.pending.checked_sub(1).expect("each begin is abandoned or admitted once");
        let position = u32::try_from(entry.members.len()).expect("places end below 2^32");
        let member = MemberId::from_slot(self.places.insert(Place { local: id, position }));
        entry.members.push(Member { subscriber, member, encoding, held, positioned: false, part: Part::None });
        member
    }

    /// The reply that announces the subscription is queued: publications follow it directly.
    pub fn go_live(&mut self, member: MemberId) {
        let &Place { local, position } = self.places.at(member.slot());
        self.channels.at_mut(local.slot()).members.at_mut(position).held = false;
    }

    /// The home's answer to `member` named a position: from now on the member is told when something is missing behind it.
    pub fn follow(&mut self, member: MemberId, position: Position) {
        let &Place { local, position: at } = self.places.at(member.slot());
        let entry = self.channels.at_mut(local.slot());
        entry.members.at_mut(at).positioned = true;
        match &mut entry.followed {
            // Their position and this one are the same, unless something was lost; then the next publication shows it.
            Some(followed) => followed.members += 1,
            None => entry.followed = Some(Box::new(Followed { position, members: 1 })),
        }
    }

    /// What the member has to do with those who come and go; nothing without a call of this.
    pub fn take_part(&mut self, member: MemberId, part: Part) {
        let &Place { local, position } = self.places.at(member.slot());
        self.channels.at_mut(local.slot()).members.at_mut(position).part = part;
    }

    /// One member.
    #[must_use]
    pub fn member(&self, member: MemberId) -> Member {
        let &Place { local, position } = self.places.at(member.slot());
        *self.channels.at(local.slot()).members.at(position)
    }

    /// A publication has come from the home.
    pub fn step(&mut self, id: LocalId, publication: &Publication) -> Step {
        let Some(followed) = &mut self.channels.at_mut(id.slot()).followed else { return Step::Next };
        // What is published past the history has no place of its own.
        let (Some(offset), new) = (publication.offset(), publication.position) else { return Step::Next };
        let before = followed.position;
        if new.epoch == before.epoch && offset <= before.offset {
            return Step::Old;
        }
        followed.position = new;
        if new.epoch == before.epoch && offset == before.offset.next() { Step::Next } else { Step::Gap }
    }

    /// Whether `member` is told when something is missing.
    #[must_use]
    pub fn is_positioned(&self, member: MemberId) -> bool {
        let &Place { local, position } = self.places.at(member.slot());
        self.channels.at(local.slot()).members.at(position).positioned
    }

    /// What a member reads, as given to [`Local::admit`] or set since.
    #[must_use]
    pub fn encoding(&self, member: MemberId) -> u8 {
        let &Place { local, position } = self.places.at(member.slot());
        self.channels.at(local.slot()).members.at(position).encoding
    }

    /// A member reads something else from now on.
    pub fn set_encoding(&mut self, member: MemberId, encoding: u8) {
        let &Place { local, position } = self.places.at(member.slot());
        self.channels.at_mut(local.slot()).members.at_mut(position).encoding = encoding;
    }

    /// Ends an admitted subscription, in constant time. The channel returned names it in the withdrawal that the home has
    /// to get.
    pub fn remove(&mut self, member: MemberId) -> Channel {
        let Place { local, position } = self.places.remove(member.slot());
        let entry = self.channels.at_mut(local.slot());
        let leaver = entry.members.at_mut(position);
        debug_assert_eq!(leaver.member, member, "a place and its member name each other");
        if leaver.positioned {
            entry.followed.take_if(|followed| {
                followed.members -= 1;
                followed.members == 0
            });
        }
        if let Some(moved) = entry.members.swap_remove(position) {
            self.places.at_mut(moved.slot()).position = position;
        }
        let channel = entry.channel.clone();
        self.forget_if_unused(local);
        channel
    }

    /// The channel with this name, if anyone here subscribes to it.
    #[must_use]
    pub fn find(&self, channel: &str) -> Option<LocalId> {
        self.slot_of(channel, self.hash.in_tables(channel)).map(LocalId::from_slot)
    }

    /// The name of a channel.
    #[must_use]
    pub fn channel(&self, id: LocalId) -> &Channel {
        &self.channels.at(id.slot()).channel
    }

    /// The channel that `member` belongs to.
    #[must_use]
    pub fn local_of(&self, member: MemberId) -> LocalId {
        self.places.at(member.slot()).local
    }

    /// How many members a channel has, held or live.
    #[must_use]
    pub fn live(&self, id: LocalId) -> u32 {
        u32::try_from(self.channels.at(id.slot()).members.len()).expect("places end below 2^32")
    }

    /// How many subscriptions of a channel wait for their answer.
    #[must_use]
    pub fn pending(&self, id: LocalId) -> u32 {
        self.channels.at(id.slot()).pending
    }

    /// The members of a channel, held or live, in no particular order: a walk over dense memory.
    pub fn members(&self, id: LocalId) -> impl Iterator<Item = Member> {
        self.channels.at(id.slot()).members.iter()
    }

    /// How many channels have a subscription here, pending ones included.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// How many subscriptions are held or live, over all channels.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.places.len()
    }

    fn slot_of(&self, channel: &str, hash: u32) -> Option<u32> {
        self.index.find(hash, |slot| *self.channels.at(slot).channel == *channel)
    }

    fn forget_if_unused(&mut self, id: LocalId) {
        let entry = self.channels.at(id.slot());
        if entry.pending == 0 && matches!(entry.members, Members::None) {
            let entry = self.channels.remove(id.slot());
            self.index.remove(self.hash.in_tables(&entry.channel), id.slot());
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("channels", &self.channels())
            .field("subscriptions", &self.subscriptions())
            .finish()
    }
}
