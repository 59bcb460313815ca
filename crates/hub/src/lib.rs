//! The channels of one worker: publications in, numbered; deliveries out, to whoever has subscribers.
//!
//! No sockets, no clock, no randomness, no threads: `now` and seeds are arguments, effects are return values or
//! calls on a [`Route`] that the caller supplies.
//!
//! A worker owns two halves. Its [`Home`] numbers the channels whose hash falls to this worker and knows the
//! *interest* in them: how many subscriptions each worker has. Its [`Local`] knows the subscribers among the
//! worker's own connections, whichever worker numbers their channels. Letters join the two, first in first out per
//! pair of workers.
//!
//! # The contract: a subscription never misses a publication
//!
//! 1. The subscriber's worker counts the subscription as pending ([`Local::begin`]) and sends a letter home.
//! 2. The home counts it and takes the position in one step ([`Home::subscribe`]), then answers. Every later
//!    publication therefore travels behind the answer, on the same queue.
//! 3. The answer admits the subscriber ([`Local::admit`]), or only lowers the pending count when nobody waits for
//!    it any more ([`Local::abandon`]).
//! 4. Each subscription the home *accepted* is withdrawn exactly once ([`Home::unsubscribe`]), after
//!    [`Local::remove`] or [`Local::abandon`]. Withdrawals may be delayed and added up. They are counted, not
//!    flagged: a withdrawal never ends the interest of a subscription that is still on its way. A subscription the
//!    home refused was never counted and is never withdrawn.
//!
//! ```
//! use hub::{ChannelHash, Draft, Home, HomeLimits, Local, Publication, Route, SubscriberId, WorkerId};
//! use std::{sync::Arc, time::Duration};
//!
//! struct Queue(Vec<(WorkerId, Arc<Publication>)>);
//! impl Route for Queue {
//!     fn has_room(&mut self, _: WorkerId, _bytes: usize) -> bool {
//!         self.0.len() < 1024
//!     }
//!     fn deliver(&mut self, worker: WorkerId, publication: Arc<Publication>) {
//!         self.0.push((worker, publication));
//!     }
//! }
//!
//! let hash = ChannelHash::new([7; 16]);
//! let (mut home, mut local) = (Home::new(hash, HomeLimits::default(), 42), Local::new(hash));
//! let (now, worker, mut queue) = (Duration::ZERO, WorkerId(0), Queue(Vec::new()));
//!
//! let (id, channel) = local.begin("news");
//! let position = home.subscribe(now, &channel, worker, None, None).unwrap().position;
//! let member = local.admit(id, SubscriberId(1), 0, false);
//!
//! let published = home.publish(now, Draft::new(channel, *b"{\"t\":\"hi\"}"), None, &mut queue).unwrap();
//! assert_eq!(published.position.offset.0, position.offset.0 + 1);
//! assert_eq!(local.members(id).map(|m| m.subscriber).collect::<Vec<_>>(), [SubscriberId(1)]);
//!
//! let channel = local.remove(member);
//! home.unsubscribe(now, &channel, worker, 1);
//! assert_eq!((home.channels(), local.channels()), (0, 0));
//! ```
//!
//! # What is kept
//!
//! A channel whose namespace has a history ([`Retention`]) remembers its recent publications and, for longer, its position.
//! A client that was away names the position it has seen, and gets what it missed with the answer to its subscribe
//! ([`Recover`], [`Recovery`]), or learns that there is a gap. Memory has limits ([`HomeLimits`]); [`Home`] says what goes first.
//!
//! # Modules
//!
//! `id` names things, `publication` is what travels, [`namespace`] carries the options of channels, `home` and
//! `interest` are the numbering half, with `shelf`, `history`, `recovery` and `repeats` for what it keeps and `presence` for
//! whom it knows; `local` and `members` are the subscribing half, `index` and `slots` the dense tables below both.
#![forbid(unsafe_code)]

mod history;
mod home;
mod id;
mod index;
mod interest;
mod local;
mod members;
pub mod namespace;
mod presence;
mod publication;
mod recovery;
mod repeats;
mod shelf;
mod slots;

pub use history::{ENTRY_BYTES, HISTORY_SIZE_MAX, HistoryPage, HistoryQuery, Retention};
pub use home::{
    ChannelsMax, HistoryRefusal, Home, HomeCounts, HomeLimits, PublishRefusal, Published, Route, SubscribeRefusal,
    Subscribed,
};
pub use id::{Channel, ChannelHash, Epoch, LocalId, MemberId, Offset, Position, SubscriberId, WorkerId};
pub use local::{Local, Step};
pub use members::{Member, Part};
pub use namespace::{Namespace, NamespaceError, NamespaceId, Namespaces, SlowClient};
pub use presence::{
    ANNOUNCEMENTS_WAITING_MAX, Announcement, Change, Entrance, Guest, Herald, PRESENCE_CLIENTS_MAX, Presence,
    PresenceCounts, PresenceQuery, PresenceStats, TooManyPresent,
};
pub use publication::{ClientInfo, Draft, Publication, PublishOptions, Tags, Unnumbered};
pub use recovery::{Missed, Recover, Recovery, RecoveryMode, Since, SinceEpoch};
pub use shelf::Stock;
