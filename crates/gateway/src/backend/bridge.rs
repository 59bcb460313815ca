//! The control thread's mailbox: carries the calls of the API to the workers and their answers back, and the questions of
//! connections the other way.

use super::Reach;
use super::questions::Questions;
use crate::letter::{
    Act, Action, Described, HistoryRead, Letter, List, Listed, Matching, Order, PresenceRead, Publish, ReadHistory,
    ReadPresence, Refused, RemoveHistory, Ticket,
};
use crate::mailbox::{Mailbox, Party, Post};
use control::BackendError;
use hub::{Channel, ChannelHash, Draft, HistoryPage, HistoryQuery, Presence, PresenceQuery, Published};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// Letters read between two looks at the API's calls.
const LETTERS_PER_TURN: usize = 256;

/// What became of the connections of one worker.
pub(super) struct Acted {
    pub(super) count: u64,
    pub(super) described: Vec<Described>,
}

/// Whom to tell.
type Caller<T> = oneshot::Sender<Result<T, BackendError>>;

/// Those who wait for one kind of answer, by ticket.
struct Callers<T>(HashMap<u64, Caller<T>>);

impl<T> Default for Callers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Callers<T> {
    /// Sends a request. Its caller waits from now on, or is told that the mailbox is full.
    fn ask(&mut self, mailbox: &mut Mailbox, to: Party, letter: Letter, ticket: u64, caller: Caller<T>) {
        match mailbox.request(to, letter) {
            Ok(()) => drop(self.0.insert(ticket, caller)),
            Err(_) => drop(caller.send(Err(BackendError::Busy))),
        }
    }

    /// One that has given up has dropped its receiver; the answer goes nowhere.
    fn tell(&mut self, ticket: u64, answer: Result<T, BackendError>) {
        if let Some(caller) = self.0.remove(&ticket) {
            let _ = caller.send(answer);
        }
    }
}

/// One call.
pub(super) enum Ask {
    Publish {
        draft: Draft,
        answer: Caller<Published>,
    },
    History {
        channel: Channel,
        query: HistoryQuery,
        answer: Caller<HistoryPage>,
    },
    Presence {
        channel: Channel,
        query: PresenceQuery,
        answer: Caller<Presence>,
    },
    RemoveHistory {
        channel: Channel,
        answer: Caller<()>,
    },
    List {
        worker: Party,
        cursor: u32,
        answer: Caller<Listed>,
    },
    Act {
        worker: Party,
        matching: Matching,
        action: Action,
        answer: Caller<Acted>,
    },
    Order {
        worker: Party,
        order: Order,
    },
    /// Have everything read that the workers have sent.
    ReadAll {
        answer: Caller<()>,
    },
}

/// Carries calls of the API to the workers and their answers back.
pub struct Bridge {
    wake: io::WakeReceiver,
    desk: Desk,
}

/// The bridge without what wakes it.
struct Desk {
    mailbox: Mailbox,
    asked: mpsc::Receiver<Ask>,
    hash: ChannelHash,
    workers: u16,
    clock: io::Clock,
    request_timeout: Duration,
    tickets: u64,
    publishing: Callers<Published>,
    reading: Callers<HistoryPage>,
    present: Callers<Presence>,
    removing: Callers<()>,
    listing: Callers<Listed>,
    acting: Callers<Acted>,
    questions: Questions,
}

impl Bridge {
    /// The mailbox is that of the party after the last worker.
    pub(super) fn new(
        mailbox: Mailbox,
        wake: io::WakeReceiver,
        asked: mpsc::Receiver<Ask>,
        workers: u16,
        reach: &Reach,
        questions: Questions,
    ) -> Self {
        let desk = Desk {
            mailbox,
            asked,
            hash: reach.hash,
            workers,
            clock: reach.clock,
            request_timeout: reach.request_timeout,
            tickets: 0,
            publishing: Callers::default(),
            reading: Callers::default(),
            present: Callers::default(),
            removing: Callers::default(),
            listing: Callers::default(),
            acting: Callers::default(),
            questions,
        };
        Self { wake, desk }
    }

    /// Runs until the handle is gone.
    ///
    /// # Errors
    /// When the wake cannot be watched.
    pub async fn run(self) -> std::io::Result<()> {
        // The safe constructor is deprecated because AsRawFd may name a descriptor that is closed meanwhile. This one is
        // the eventfd that the receiver itself keeps open; the new constructor would need `unsafe` for the same promise.
        #[allow(deprecated)]
        let wake = AsyncFd::with_interest(self.wake, tokio::io::Interest::READABLE)?;
        let mut desk = self.desk;
        loop {
            let read = desk.read_answers();
            desk.mailbox.flush();
            if read == LETTERS_PER_TURN {
                // More may wait; let the API's tasks run first.
                tokio::task::yield_now().await;
                desk.post_all();
                continue;
            }
            wake.get_ref().begin_sleep();
            if desk.mailbox.has_mail() {
                wake.get_ref().end_sleep();
                continue;
            }
            tokio::select! {
                ready = wake.readable() => ready?.clear_ready(),
                ask = desk.asked.recv() => match ask {
                    Some(ask) => desk.post(ask),
                    None => return Ok(()),
                },
                answered = desk.questions.answered() => desk.answer(answered),
            }
            wake.get_ref().end_sleep();
            desk.post_all();
        }
    }
}

impl Desk {
    fn post_all(&mut self) {
        while let Ok(ask) = self.asked.try_recv() {
            self.post(ask);
        }
        while let Some(answered) = self.questions.next_answered() {
            self.answer(answered);
        }
    }

    fn answer(&mut self, (worker, letter): (Party, Letter)) {
        self.mailbox.answer(worker, letter);
    }

    fn post(&mut self, ask: Ask) {
        self.tickets += 1;
        let ticket = self.tickets;
        match ask {
            Ask::Publish { draft, answer } => {
                let (home, expires) = (self.home_of(&draft.channel), self.clock.now() + self.request_timeout);
                let publish = Publish { ticket: Ticket::Control(ticket), draft: draft.into(), expires };
                self.publishing.ask(&mut self.mailbox, home, Letter::Publish(publish), ticket, answer);
            }
            Ask::History { channel, query, answer } => {
                let (home, expires) = (self.home_of(&channel), self.clock.now() + self.request_timeout);
                let read = ReadHistory { ticket: Ticket::Control(ticket), channel, query, expires };
                self.reading.ask(&mut self.mailbox, home, Letter::History(Box::new(read)), ticket, answer);
            }
            Ask::Presence { channel, query, answer } => {
                let (home, expires) = (self.home_of(&channel), self.clock.now() + self.request_timeout);
                let read = ReadPresence { ticket: Ticket::Control(ticket), channel, query, expires };
                self.present.ask(&mut self.mailbox, home, Letter::Presence(Box::new(read)), ticket, answer);
            }
            Ask::RemoveHistory { channel, answer } => {
                let (home, expires) = (self.home_of(&channel), self.clock.now() + self.request_timeout);
                let remove = RemoveHistory { ticket, channel, expires };
                self.removing.ask(&mut self.mailbox, home, Letter::RemoveHistory(Box::new(remove)), ticket, answer);
            }
            Ask::List { worker, cursor, answer } => {
                let letter = Letter::List(Box::new(List { ticket, cursor }));
                self.listing.ask(&mut self.mailbox, worker, letter, ticket, answer);
            }
            Ask::Act { worker, matching, action, answer } => {
                let letter = Letter::Act(Box::new(Act { ticket, matching, action }));
                self.acting.ask(&mut self.mailbox, worker, letter, ticket, answer);
            }
            Ask::ReadAll { answer } => {
                while self.read_answers() > 0 {}
                let _ = answer.send(Ok(()));
            }
            Ask::Order { worker, order } => {
                if self.mailbox.request(worker, Letter::Order(order)).is_err() {
                    tracing::error!(worker, "an order found a full mailbox: the worker has stopped reading its mail");
                }
            }
        }
    }

    fn home_of(&self, channel: &str) -> Party {
        usize::from(self.hash.home(channel, self.workers).0)
    }

    fn read_answers(&mut self) -> usize {
        for read in 0..LETTERS_PER_TURN {
            let Some((from, letter)) = self.mailbox.next() else { return read };
            match letter {
                Letter::Notices(notices) => self.questions.tell(notices),
                Letter::FetchKeys => self.questions.want_keys(),
                Letter::AskBackend(ask) => self.questions.carry(from, *ask),
                Letter::Published { ticket: Ticket::Control(ticket), answer } => {
                    self.publishing.tell(ticket, answer.map_err(to_backend));
                }
                Letter::HistoryRead(read) => {
                    let HistoryRead { ticket, answer } = *read;
                    let Ticket::Control(ticket) = ticket else { continue };
                    self.reading.tell(ticket, answer.map_err(to_backend));
                }
                Letter::PresenceRead(read) => {
                    let PresenceRead { ticket, answer } = *read;
                    let Ticket::Control(ticket) = ticket else { continue };
                    self.present.tell(ticket, answer.map_err(to_backend));
                }
                Letter::HistoryRemoved { ticket, answer } => {
                    self.removing.tell(ticket, answer.map_err(to_backend));
                }
                Letter::Listed(listed) => {
                    self.listing.tell(listed.ticket, Ok(*listed));
                }
                Letter::Acted { ticket, count, described } => {
                    self.acting.tell(ticket, Ok(Acted { count, described }));
                }
                _ => debug_assert!(false, "the control thread gets answers and questions only"),
            }
        }
        LETTERS_PER_TURN
    }
}

fn to_backend(refused: Refused) -> BackendError {
    match refused {
        Refused::Busy | Refused::ChannelsMax => BackendError::Busy,
        Refused::Expired => BackendError::Timeout,
        Refused::Unrecoverable => BackendError::Unrecoverable,
        Refused::NoHistory => BackendError::NoHistory,
        Refused::NoPresence => BackendError::NoPresence,
        Refused::TooManyPresent => BackendError::TooManyPresent,
    }
}
