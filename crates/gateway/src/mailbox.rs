//! Bounded inboxes between threads: a ring for each (source, destination), a bitmap that says which rings have mail, and
//! a wake for a destination that sleeps.
//!
//! Nobody blocks. Of a ring's slots, `answers` are kept free for answers: a sender has at most that many requests without
//! an answer at one destination, and that destination's ring back has room for all of them. Letters become visible at
//! [`Post::flush`], once per tick, so a destination is woken at most once per tick and source.

use crate::letter::Letter;
use hub::{Announcement, Channel, Publication, SubscriberId};
use io::Wake;
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The number of a thread with a mailbox: workers from 0, then the control thread.
pub type Party = usize;

/// What a thread does with its mailbox. Tests put their own in front of [`Mailbox`] to plant faults.
pub trait Post {
    /// Sends a request; its answer has room from now on.
    ///
    /// # Errors
    /// The letter, when the destination has no room for it or too many requests there wait for answers.
    fn request(&mut self, to: Party, letter: Letter) -> Result<(), Letter>;
    /// Whether `to` takes requests that can wait: those that cannot keep half of its room for answers.
    fn has_room_for_more(&mut self, to: Party) -> bool;
    /// Sends the answer to a request received from `to`.
    fn answer(&mut self, to: Party, letter: Letter);
    /// One subscription of this thread at the home `to` is gone. Never lost.
    fn withdraw(&mut self, to: Party, channel: Channel);
    /// The same of one that its home knows by name.
    fn leave(&mut self, to: Party, channel: Channel, subscriber: SubscriberId);
    /// Whether a publication or an announcement of that many bytes can be delivered to `to` now.
    fn has_room(&mut self, to: Party, bytes: usize) -> bool;
    /// Delivers a publication; `has_room` has just said yes.
    fn deliver(&mut self, to: Party, publication: Arc<Publication>);
    /// The same of who has come or gone.
    fn announce(&mut self, to: Party, announcement: Arc<Announcement>);
    /// The next letter and where it came from.
    fn next(&mut self) -> Option<(Party, Letter)>;
    /// Makes this tick's letters visible and wakes whoever sleeps.
    fn flush(&mut self);
    /// Whether `next` would give something.
    fn has_mail(&self) -> bool;
    /// Letters sent, refused, and withdrawals waiting, since the start (the last: now).
    fn counts(&self) -> Counts;
}

/// What a mailbox has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Letters sent.
    pub sent: u64,
    /// Requests and deliveries refused for want of room.
    pub refused: u64,
    /// Withdrawals that wait for room now.
    pub waiting: u64,
}

/// Sizes of every ring.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Requests, deliveries and withdrawals under way from one thread to another.
    pub letters: usize,
    /// Requests of one thread that wait for another's answer; as many slots come on top of `letters`.
    pub answers: usize,
    /// Bytes of publications under way from one thread to another.
    pub bytes: usize,
}

/// One thread's end of all its rings.
#[derive(Debug)]
pub struct Mailbox {
    me: Party,
    sizes: Sizes,
    out: Vec<Outgoing>,
    inbox: Vec<Incoming>,
    /// Sources whose ring may have letters, as read from the shared bitmap and not yet emptied.
    open: Vec<u64>,
    /// The source whose turn it is, and how many letters it may still bring before the next one's.
    turn: (Party, u32),
    counts: Counts,
}

#[derive(Debug)]
struct Outgoing {
    ring: Producer<Letter>,
    /// Bytes of publications in the ring.
    bytes: Arc<AtomicUsize>,
    /// Requests without an answer.
    unanswered: usize,
    /// Withdrawals that found no room, by channel. Bounded by the channels this thread is subscribed to.
    waiting: HashMap<Channel, u32>,
    /// The same of those that say who goes. Bounded by this thread's subscriptions.
    leaving: VecDeque<(Channel, SubscriberId)>,
    /// Letters were pushed since the last flush.
    touched: bool,
    mail: Arc<[AtomicU64]>,
    wake: Wake,
}

#[derive(Debug)]
struct Incoming {
    ring: Consumer<Letter>,
    bytes: Arc<AtomicUsize>,
}

/// Letters taken from one source before the next one has its turn, so that a flood from one does not silence the others.
const LETTERS_PER_TURN: u32 = 32;

const WORD: usize = u64::BITS as usize;

/// Makes the mailboxes of all threads; `wakes[i]` wakes thread `i`.
pub fn connect(sizes: Sizes, wakes: &[Wake]) -> Vec<Mailbox> {
    let parties = wakes.len();
    let words = parties.div_ceil(WORD);
    let bitmaps: Vec<Arc<[AtomicU64]>> =
        wakes.iter().map(|_| (0..words).map(|_| AtomicU64::new(0)).collect()).collect();
    let mut boxes: Vec<Mailbox> = (0..parties)
        .map(|me| Mailbox {
            me,
            sizes,
            out: Vec::new(),
            inbox: Vec::new(),
            open: vec![0; words],
            turn: (0, LETTERS_PER_TURN),
            counts: Counts::default(),
        })
        .collect();
    for from in 0..parties {
        for to in 0..parties {
            let (producer, consumer) = RingBuffer::new(sizes.letters + sizes.answers);
            let bytes = Arc::new(AtomicUsize::new(0));
            boxes[from].out.push(Outgoing {
                ring: producer,
                bytes: bytes.clone(),
                unanswered: 0,
                waiting: HashMap::new(),
                leaving: VecDeque::new(),
                touched: false,
                mail: bitmaps[to].clone(),
                wake: wakes[to].clone(),
            });
            // The outer loop runs over sources, so each inbox fills in their order.
            boxes[to].inbox.push(Incoming { ring: consumer, bytes });
        }
    }
    boxes
}

impl Mailbox {
    /// This thread's number.
    pub fn me(&self) -> Party {
        self.me
    }

    /// Whether a letter that is no answer fits.
    fn fits(&self, to: Party) -> bool {
        self.out[to].ring.slots() > self.sizes.answers
    }

    fn push(&mut self, to: Party, letter: Letter) {
        let out = &mut self.out[to];
        out.touched = true;
        self.counts.sent += 1;
        // Room was checked by the caller, and only this thread fills the ring.
        assert!(out.ring.push(letter).is_ok(), "a letter for which room was checked does not fit");
    }

    /// Sends the withdrawals that waited, as far as there is room. Whether all have gone.
    fn send_waiting(&mut self, to: Party) -> bool {
        while !self.out[to].waiting.is_empty() {
            if !self.fits(to) {
                return false;
            }
            let Some(channel) = self.out[to].waiting.keys().next().cloned() else { break };
            let count = self.out[to].waiting.remove(&channel).unwrap_or(0);
            self.counts.waiting -= 1;
            self.push(to, Letter::Unsubscribe { channel, count });
        }
        while !self.out[to].leaving.is_empty() {
            if !self.fits(to) {
                return false;
            }
            let Some((channel, subscriber)) = self.out[to].leaving.pop_front() else { break };
            self.counts.waiting -= 1;
            self.push(to, Letter::Leave { channel, subscriber });
        }
        true
    }

    /// The next source with mail, in turns.
    fn whose_turn(&mut self) -> Option<Party> {
        let is_open = |open: &[u64], party: Party| open[party / WORD] >> (party % WORD) & 1 == 1;
        if self.turn.1 > 0 && is_open(&self.open, self.turn.0) {
            return Some(self.turn.0);
        }
        if self.open.iter().all(|&word| word == 0) {
            return None;
        }
        let parties = self.inbox.len();
        let next = (1..=parties).map(|i| (self.turn.0 + i) % parties).find(|&party| is_open(&self.open, party))?;
        self.turn = (next, LETTERS_PER_TURN);
        Some(next)
    }

    /// Moves the bits of the shared bitmap here. Whether there were any.
    fn look_for_mail(&mut self) -> bool {
        let mut any = false;
        for (open, shared) in self.open.iter_mut().zip(self.out[self.me].mail.iter()) {
            if shared.load(Ordering::Relaxed) != 0 {
                // Acquire: what was pushed before the bit was set is visible when the ring is read.
                *open = shared.swap(0, Ordering::Acquire);
                any |= *open != 0;
            }
        }
        any
    }

    fn is_answer(letter: &Letter) -> bool {
        matches!(
            letter,
            Letter::Subscribed { .. }
                | Letter::Published { .. }
                | Letter::HistoryRead(_)
                | Letter::PresenceRead(_)
                | Letter::HistoryRemoved { .. }
                | Letter::Listed(_)
                | Letter::Acted { .. }
                | Letter::BackendAnswered { .. }
        )
    }
}

impl Post for Mailbox {
    fn request(&mut self, to: Party, letter: Letter) -> Result<(), Letter> {
        let room = self.send_waiting(to) && self.fits(to);
        // What only goes from or to the control thread.
        let answered = !matches!(letter, Letter::Order(_) | Letter::Notices(_) | Letter::FetchKeys);
        if !room || (answered && self.out[to].unanswered >= self.sizes.answers) {
            self.counts.refused += 1;
            return Err(letter);
        }
        self.out[to].unanswered += usize::from(answered);
        self.push(to, letter);
        Ok(())
    }

    fn has_room_for_more(&mut self, to: Party) -> bool {
        self.send_waiting(to) && self.fits(to) && self.out[to].unanswered <= self.sizes.answers / 2
    }

    fn answer(&mut self, to: Party, letter: Letter) {
        debug_assert!(Self::is_answer(&letter), "only answers may use the reserved room");
        self.push(to, letter);
    }

    fn withdraw(&mut self, to: Party, channel: Channel) {
        if self.send_waiting(to) && self.fits(to) {
            self.push(to, Letter::Unsubscribe { channel, count: 1 });
            return;
        }
        let before = self.out[to].waiting.len();
        *self.out[to].waiting.entry(channel).or_insert(0) += 1;
        self.counts.waiting += (self.out[to].waiting.len() - before) as u64;
    }

    fn leave(&mut self, to: Party, channel: Channel, subscriber: SubscriberId) {
        if self.send_waiting(to) && self.fits(to) {
            self.push(to, Letter::Leave { channel, subscriber });
            return;
        }
        self.out[to].leaving.push_back((channel, subscriber));
        self.counts.waiting += 1;
    }

    fn has_room(&mut self, to: Party, bytes: usize) -> bool {
        let under_way = self.out[to].bytes.load(Ordering::Relaxed);
        // A publication larger than the whole budget passes alone.
        let room = self.send_waiting(to) && self.fits(to) && (under_way == 0 || under_way + bytes <= self.sizes.bytes);
        self.counts.refused += u64::from(!room);
        room
    }

    fn deliver(&mut self, to: Party, publication: Arc<Publication>) {
        self.out[to].bytes.fetch_add(publication.cost(), Ordering::Relaxed);
        self.push(to, Letter::Deliver(publication));
    }

    fn announce(&mut self, to: Party, announcement: Arc<Announcement>) {
        self.out[to].bytes.fetch_add(announcement.cost(), Ordering::Relaxed);
        self.push(to, Letter::Announce(announcement));
    }

    fn next(&mut self) -> Option<(Party, Letter)> {
        loop {
            let Some(from) = self.whose_turn() else {
                if self.look_for_mail() {
                    continue;
                }
                return None;
            };
            let Ok(letter) = self.inbox[from].ring.pop() else {
                self.open[from / WORD] &= !(1 << (from % WORD));
                continue;
            };
            self.turn.1 -= 1;
            let bytes = match &letter {
                Letter::Deliver(publication) => publication.cost(),
                Letter::Announce(announcement) => announcement.cost(),
                _ => 0,
            };
            if bytes > 0 {
                self.inbox[from].bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            if Self::is_answer(&letter) {
                self.out[from].unanswered -= 1;
            }
            return Some((from, letter));
        }
    }

    fn flush(&mut self) {
        for to in 0..self.out.len() {
            if self.counts.waiting > 0 {
                self.send_waiting(to);
            }
            let me = self.me;
            let out = &mut self.out[to];
            if std::mem::take(&mut out.touched) {
                out.mail[me / WORD].fetch_or(1 << (me % WORD), Ordering::Release);
                if to != me {
                    out.wake.wake();
                }
            }
        }
    }

    fn has_mail(&self) -> bool {
        // SeqCst pairs with the sleeper's flag: either the sender sees the flag, or we see the bit.
        self.open.iter().any(|&w| w != 0) || self.out[self.me].mail.iter().any(|w| w.load(Ordering::SeqCst) != 0)
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
