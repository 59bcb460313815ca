//! The ring itself: operations in, news out, and batches of receives and sends that are done when the call returns.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};

use super::buffers::Buffers;
use crate::counters::Counters;
use crate::handler::ConnId;

/// Operations queued between two calls of the kernel; one more makes a call of its own.
const SUBMISSIONS: u32 = 1024;

/// Completions that the kernel can post between two calls. More are kept by the kernel until the next one.
const COMPLETIONS: u32 = 8192;

/// The most operations of one batch.
const BATCH_MAX: usize = crate::batch::SENDS_MAX;

const _: () = assert!(super::buffers::RECVS <= BATCH_MAX && BATCH_MAX < COMPLETIONS as usize);

/// What an operation was for: the upper four bits of its user data. The other 28 above the index are the lower ones of
/// the connection's generation, since a slot is not reused while it has operations; a file descriptor for `Close`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// The multishot poll of a connection; the index is its slot.
    Poll = 1,
    /// The one-shot poll for room to send.
    PollOut,
    /// The close of a connection's socket.
    Close,
    /// A cancel, whose own outcome says nothing.
    Cancel,
    /// The multishot accept of a listener; the index is its number.
    Accept,
    /// The multishot poll of the wake's eventfd.
    Wake,
    /// One of a batch; the index is its turn.
    Batch,
}

const KINDS: [Kind; 7] = [Kind::Poll, Kind::PollOut, Kind::Close, Kind::Cancel, Kind::Accept, Kind::Wake, Kind::Batch];

/// The part of a generation, or the file descriptor, that fits into the user data.
const MIDDLE: u64 = (1 << 28) - 1;

/// User data: what comes back with a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag(u64);

impl Tag {
    pub(super) fn new(kind: Kind, index: u32) -> Tag {
        Tag::with(kind, 0, index)
    }

    /// With as much of the generation as there is room for.
    pub(super) fn of(kind: Kind, id: ConnId) -> Tag {
        Tag::with(kind, id.generation(), id.index())
    }

    fn with(kind: Kind, middle: u32, index: u32) -> Tag {
        Tag((kind as u64) << 60 | (u64::from(middle) & MIDDLE) << 32 | u64::from(index))
    }

    /// `None` for a number that is none of ours.
    pub(super) fn kind(self) -> Option<Kind> {
        KINDS.get(((self.0 >> 60) as usize).wrapping_sub(1)).copied()
    }

    pub(super) fn index(self) -> u32 {
        self.0 as u32
    }

    fn middle(self) -> u32 {
        (self.0 >> 32 & MIDDLE) as u32
    }

    /// Whether this is about that connection and not about an earlier one of its slot.
    pub(super) fn is_of(self, id: ConnId) -> bool {
        self.index() == id.index() && u64::from(self.middle()) == u64::from(id.generation()) & MIDDLE
    }
}

/// A completion of anything but a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    pub(super) tag: Tag,
    /// As the system call would have returned it; negative: the error.
    pub(super) result: i32,
    /// No more of this operation follows.
    pub(super) last: bool,
}

/// One ring, used by the thread that made it.
///
/// Only polls and accepts ever stay with the kernel, and they point to no memory. Everything that does is in a batch,
/// and [`Ring::run`] returns when the kernel is done with it.
pub(super) struct Ring {
    ring: IoUring,
    news: VecDeque<News>,
    /// Of the present batch, by turn.
    results: Vec<i32>,
    /// Operations of the present batch that are not done.
    outstanding: usize,
    /// Closes that are not done.
    closes: usize,
    counters: Option<Arc<Counters>>,
}

impl Ring {
    pub(super) fn open() -> io::Result<Ring> {
        Ring::with_queues(SUBMISSIONS, COMPLETIONS)
    }

    fn with_queues(submissions: u32, completions: u32) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            // Completions are made in our calls only, not in interrupts of whatever this thread does.
            .setup_defer_taskrun()
            // One bad operation must not keep those behind it from the kernel.
            .setup_submit_all()
            .setup_cqsize(completions)
            .dontfork()
            .build(submissions)?;
        let news = VecDeque::with_capacity(completions as usize);
        Ok(Ring { ring, news, results: Vec::with_capacity(BATCH_MAX), outstanding: 0, closes: 0, counters: None })
    }

    pub(super) fn count_into(&mut self, counters: Arc<Counters>) {
        self.counters = Some(counters);
    }

    /// The first of these that the kernel does not know.
    pub(super) fn missing(&self, operations: &[(u8, &'static str)]) -> io::Result<Option<&'static str>> {
        let mut probe = io_uring::Probe::new();
        self.ring.submitter().register_probe(&mut probe)?;
        Ok(operations.iter().find(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name))
    }

    /// Whether the kernel keeps completions that find the queue full, and takes a time limit with a wait.
    pub(super) fn has_features(&self) -> bool {
        self.ring.params().is_feature_nodrop() && self.ring.params().is_feature_ext_arg()
    }

    pub(super) fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Takes out the news of one operation, leaving the others in order.
    pub(super) fn take_news_of(&mut self, tag: Tag) -> Vec<News> {
        let taken = self.news.iter().filter(|news| news.tag == tag).copied().collect();
        self.news.retain(|news| news.tag != tag);
        taken
    }

    /// Polls for input, FIN and errors until cancelled.
    pub(super) fn poll_input(&mut self, fd: BorrowedFd<'_>, tag: Tag) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        self.push_harmless(opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).multi(true).build(), tag);
    }

    /// Polls for room to send, once.
    pub(super) fn poll_output(&mut self, fd: BorrowedFd<'_>, tag: Tag) {
        self.push_harmless(opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLOUT as u32).build(), tag);
    }

    /// Accepts until cancelled or out of something. Every positive result is a file descriptor of the receiver's.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, tag: Tag) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        self.push_harmless(opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(flags).build(), tag);
    }

    pub(super) fn cancel(&mut self, tag: Tag) {
        self.push_harmless(opcode::AsyncCancel::new(tag.0).build(), Tag::new(Kind::Cancel, 0));
    }

    /// Takes the polls of these tags off a socket and closes it; a plain close would send no FIN while an operation holds the
    /// file. The close is reported with `index`.
    ///
    /// By tag and not by descriptor: the kernel finds a tag in a table of hashes, and looks at every operation that is armed
    /// to find a descriptor. With 10,000 connections on a ring that made a close cost more than all else of a connection.
    pub(super) fn cancel_and_close(&mut self, socket: OwnedFd, polls: &[Tag], index: u32) {
        let fd = socket.into_raw_fd();
        self.closes += 1;
        self.reserve(polls.len() + 1); // a link does not reach into the next submission
        for poll in polls {
            // Hard: the close is to be done also if there was nothing to cancel.
            let cancel = opcode::AsyncCancel::new(poll.0).build().flags(Flags::IO_HARDLINK);
            self.push_harmless(cancel, Tag::new(Kind::Cancel, 0));
        }
        debug_assert!(u64::try_from(fd).is_ok_and(|fd| fd <= MIDDLE));
        self.push_harmless(opcode::Close::new(Fd(fd)).build(), Tag::with(Kind::Close, fd as u32, index));
    }

    /// Closes by hand what the ring was asked to close and did not.
    pub(super) fn close_failed(news: News) {
        if news.tag.kind() == Some(Kind::Close) && news.result == -libc::ECANCELED {
            // SAFETY: the descriptor was ours alone when `cancel_and_close` gave it to the kernel, and the kernel says
            // that the close was not even begun, so the descriptor is still open and ours.
            drop(unsafe { OwnedFd::from_raw_fd(news.tag.middle() as RawFd) });
        }
    }

    /// The connection that an accept brought. To be called once for each piece of news.
    pub(super) fn accepted(news: &News) -> Option<OwnedFd> {
        let accepted = news.tag.kind() == Some(Kind::Accept) && news.result >= 0;
        // SAFETY: a positive result of our accept is a descriptor that the kernel made for us; this completion is the
        // only one that names it, and News is taken out of the queue before it is looked at.
        accepted.then(|| unsafe { OwnedFd::from_raw_fd(news.result) })
    }

    /// Takes off everything that was armed on this ring.
    pub(super) fn cancel_all(&mut self) {
        self.push_harmless(opcode::AsyncCancel2::new(CancelBuilder::any().all()).build(), Tag::new(Kind::Cancel, 0));
    }

    /// Receives from all of these sockets, each into the buffer of its turn; those without a socket fail.
    pub(super) fn receive<'a>(&mut self, sockets: impl Iterator<Item = BorrowedFd<'a>>, buffers: &mut Buffers) {
        let entries = sockets.enumerate().map(|(turn, socket)| {
            let buffer = buffers.at(turn);
            opcode::Recv::new(Fd(socket.as_raw_fd()), buffer.as_mut_ptr(), buffer.len() as u32)
                .flags(libc::MSG_DONTWAIT)
                .build()
        });
        // SAFETY: each entry points to a buffer of its own, valid for writes of its length. They belong to `buffers`,
        // which is borrowed exclusively until `run` returns. The receives carry MSG_DONTWAIT.
        unsafe { self.run(entries) };
    }

    /// Sends to all of these sockets.
    pub(super) fn send<'a>(&mut self, sends: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>) {
        let entries = sends.map(|(socket, bytes)| {
            opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
        });
        // SAFETY: each entry points to bytes that are borrowed for 'a, which outlives this call, and so `run`; the
        // kernel only reads them. The sends carry MSG_DONTWAIT.
        unsafe { self.run(entries) };
    }

    /// What became of the batch's operation.
    pub(super) fn result(&self, turn: usize) -> io::Result<usize> {
        match self.results[turn] {
            result @ 0.. => Ok(result as usize),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }

    /// Has the operations done and waits for all of their completions.
    ///
    /// # Safety
    /// The memory that the entries point to is valid, and not used otherwise than the operation allows, until this
    /// returns. This returns (or unwinds) only when the kernel is done with all of them. They carry MSG_DONTWAIT, so that
    /// this is at once.
    unsafe fn run(&mut self, entries: impl Iterator<Item = Entry>) {
        let abort_on_unwind = AbortOnUnwind;
        debug_assert_eq!(self.outstanding, 0);
        self.results.clear();
        for (turn, entry) in entries.take(BATCH_MAX).enumerate() {
            self.results.push(-libc::EINPROGRESS);
            self.outstanding += 1;
            // SAFETY: the caller promises that the memory is valid until `run` returns, and the loop below does not end
            // before the operation is completed.
            unsafe { self.push(entry, Tag::new(Kind::Batch, turn as u32)) };
        }
        while self.outstanding > 0 {
            // As with `closes`: asking for as many completions as there are for sure has as many polls become news.
            if self.enter(self.outstanding, None).is_err() {
                break; // and abort: the kernel may hold addresses, and there is no way left to get them back
            }
        }
        if self.outstanding == 0 {
            std::mem::forget(abort_on_unwind);
        }
    }

    /// Pushes an operation that points to no memory.
    fn push_harmless(&mut self, entry: Entry, tag: Tag) {
        // SAFETY: none of the callers' entries (poll, accept without an address, cancel, close) has a pointer.
        unsafe { self.push(entry, tag) };
    }

    /// # Safety
    /// The memory that the entry points to stays valid until its completion was reaped.
    unsafe fn push(&mut self, entry: Entry, tag: Tag) {
        self.reserve(1);
        if let Some(counters) = &self.counters {
            counters.operations.add(1);
        }
        // SAFETY: the memory is the caller's promise. There is room, so this does not fail.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(tag.0)) };
        assert!(pushed.is_ok(), "room was made");
    }

    /// Makes room for some operations in the submission queue.
    fn reserve(&mut self, room: usize) {
        loop {
            let queue = self.ring.submission();
            if queue.capacity() - queue.len() >= room {
                return;
            }
            drop(queue);
            self.enter(0, None).expect("io_uring takes operations");
        }
    }

    /// How many completions are sure to come at once, without anything happening outside. To ask for as many makes the
    /// kernel do that much of what it has put off in one call: since 6.13 it does 20 pieces otherwise.
    pub(super) fn closes(&self) -> usize {
        self.closes
    }

    /// One call of the kernel: submits what is queued, waits for `want` completions (with a limit, if given) and takes
    /// what there is.
    pub(super) fn enter(&mut self, want: usize, limit: Option<Duration>) -> io::Result<()> {
        let operations = self.ring.submission().len() as u32;
        let want = want as u32;
        let submitter = self.ring.submitter();
        let flags = EnterFlags::GETEVENTS;
        let result = match limit {
            Some(limit) => {
                let limit = Timespec::from(limit);
                let arguments = SubmitArgs::new().timespec(&limit);
                let flags = flags | EnterFlags::EXT_ARG;
                // SAFETY: EXT_ARG says that the argument is what `SubmitArgs` is made for, and it and the time live across
                // the call. The queue holds `operations` entries.
                unsafe { submitter.enter(operations, want, flags.bits(), Some(&arguments)) }
            }
            // SAFETY: no argument. The queue holds `operations` entries.
            None => unsafe { submitter.enter::<libc::sigset_t>(operations, want, flags.bits(), None) },
        };
        if let Some(counters) = &self.counters {
            counters.enters.add(1);
        }
        self.reap();
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // The time is over; a signal; no memory for an operation or a full queue of completions, so that the rest is
            // submitted by a later call, after what was reaped.
            Err((Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    fn reap(&mut self) {
        for completion in self.ring.completion() {
            let tag = Tag(completion.user_data());
            if tag.kind() == Some(Kind::Batch) {
                self.results[tag.index() as usize] = completion.result();
                self.outstanding -= 1;
            } else {
                let last = !cqueue::more(completion.flags());
                self.closes -= usize::from(tag.kind() == Some(Kind::Close));
                self.news.push_back(News { tag, result: completion.result(), last });
            }
        }
    }
}

/// Ends the process when dropped: memory that the kernel may still write to must not be given back.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!("io_uring did not give back a receive or send; the process cannot go on");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn more_news_than_the_queue_holds_is_told_all_the_same() {
        const PAIRS: u32 = 200;
        let mut ring = Ring::with_queues(8, 16).unwrap();
        let mut pairs: Vec<_> = (0..PAIRS).map(|_| UnixStream::pair().unwrap()).collect();
        for (number, (_, far)) in pairs.iter().enumerate() {
            ring.poll_input(far.as_fd(), Tag::new(Kind::Poll, number as u32));
        }
        for round in 0..3 {
            pairs.iter_mut().for_each(|(near, _)| near.write_all(b"x").unwrap());
            let mut told = HashSet::new();
            while told.len() < PAIRS as usize {
                // Many at a time, so that the kernel has more than there is room for.
                ring.enter(16, Some(Duration::from_secs(10))).unwrap();
                assert!(ring.has_news(), "round {round}: {} of {PAIRS} were told", told.len());
                while let Some(news) = ring.next_news() {
                    assert!(news.result > 0, "{news:?}");
                    told.insert(news.tag.index());
                    if news.last {
                        let (_, far) = &pairs[news.tag.index() as usize];
                        ring.poll_input(far.as_fd(), news.tag);
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_larger_than_the_submission_queue_is_done_whole_and_in_order() {
        let mut ring = Ring::with_queues(8, 16).unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..100).collect();
        ring.send(bytes.chunks(1).map(|byte| (near.as_fd(), byte)));
        assert!((0..100).all(|turn| ring.result(turn).unwrap() == 1));
        let mut received = [0; 100];
        far.read_exact(&mut received).unwrap();
        assert_eq!(received[..], bytes, "sends never overtake each other");
        drop(far);
        ring.send([(near.as_fd(), &b"late"[..])].into_iter());
        assert_eq!(ring.result(0).unwrap_err().raw_os_error(), Some(libc::EPIPE), "and no signal");
    }

    #[test]
    fn a_send_to_a_full_socket_says_so_at_once() {
        let mut ring = Ring::open().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let bytes = vec![0; 8 << 20];
        ring.send([(near.as_fd(), &bytes[..]), (near.as_fd(), &bytes[..])].into_iter());
        assert!(ring.result(0).unwrap() < bytes.len());
        assert_eq!(ring.result(1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_close_takes_off_the_polls_that_it_names_and_looks_for_no_others() {
        let mut ring = Ring::open().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let [named, other] = [1, 2].map(|index| Tag::new(Kind::Poll, index));
        [named, other].iter().for_each(|tag| ring.poll_input(near.as_fd(), *tag));
        ring.cancel_and_close(near.into(), &[named], 7);
        ring.enter(ring.closes() + 1, Some(Duration::from_secs(10))).unwrap();
        let mut told = std::iter::from_fn(|| ring.next_news()).map(|news| (news.tag, news.result)).collect::<Vec<_>>();
        told.retain(|(tag, _)| tag.kind() != Some(Kind::Cancel));
        told.sort_by_key(|(tag, _)| tag.index());
        // Who cancels by descriptor has the kernel look at all that is armed, and takes the other one off too.
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], (named, -libc::ECANCELED));
        assert_eq!((told[1].0.kind(), told[1].1), (Some(Kind::Close), 0));
        ring.cancel(other);
        while ring.take_news_of(other).is_empty() {
            ring.enter(1, Some(Duration::from_secs(10))).unwrap();
        }
    }

    #[test]
    fn a_tag_gives_back_what_was_put_in() {
        for kind in KINDS {
            let tag = Tag::with(kind, 0xABC_DEF0, u32::MAX);
            assert_eq!((tag.kind(), tag.middle(), tag.index()), (Some(kind), 0xABC_DEF0, u32::MAX));
        }
        assert_eq!(Tag(0).kind(), None);
        assert_eq!(Tag(u64::MAX).kind(), None);
    }

    #[test]
    fn a_tag_knows_its_connection_from_the_next_one_in_the_slot() {
        let tag = Tag::of(Kind::Poll, ConnId::new(7, 3));
        assert!(tag.is_of(ConnId::new(7, 3)));
        assert!(!tag.is_of(ConnId::new(7, 4)) && !tag.is_of(ConnId::new(8, 3)));
        assert!(Tag::of(Kind::Poll, ConnId::new(7, u32::MAX)).is_of(ConnId::new(7, u32::MAX)));
    }
}
