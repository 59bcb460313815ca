//! A socket whose peer cannot hold it for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Bytes discarded per read while lingering.
const DISCARD_BYTES: usize = 4096;

/// Adds two deadlines that hyper does not have.
///
/// - *Stall*: a peer that takes no byte of an answer for `stall` gets an error instead, which ends the connection.
/// - *Linger*: after our side is shut down, what the peer still sends is read and thrown away until it closes too, at
///   most for `linger`. Closing with unread bytes makes the kernel send a reset, and a reset discards the answer if
///   the peer has not read it yet.
pub(crate) struct Guarded<S> {
    stream: S,
    stall: Duration,
    linger: Duration,
    /// Runs while a write waits, and again while lingering.
    timer: Option<Pin<Box<Sleep>>>,
    /// The peer's end was read; nothing more can arrive.
    ended: bool,
    /// Our side is shut down.
    shut: bool,
}

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, stall: Duration, linger: Duration) -> Guarded<S> {
        Guarded { stream, stall, linger, timer: None, ended: false, shut: false }
    }

    /// Passes on what a write said, with the stall deadline running while it says nothing.
    fn watched<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.timer = None;
            return outcome;
        }
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(context));
        self.timer = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let room = buffer.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.ended |= room > 0 && buffer.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watched(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.shut = true;
            this.timer = Some(Box::pin(sleep_until(Instant::now() + this.linger)));
        }
        let mut discarded = [0; DISCARD_BYTES];
        while !this.ended {
            if let Some(timer) = &mut this.timer
                && timer.as_mut().poll(context).is_ready()
            {
                break;
            }
            let mut buffer = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ended_or_reset => this.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const STALL: Duration = Duration::from_secs(10);
    const LINGER: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_ends_the_write_and_one_that_takes_a_byte_does_not() {
        let (ours, mut theirs) = duplex(4);
        let mut guarded = Guarded::new(ours, STALL, LINGER);
        let started = Instant::now();
        let error = guarded.write_all(b"12345").await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (io::ErrorKind::TimedOut, STALL));

        let reading = tokio::spawn(async move {
            // Each byte comes just in time, so the deadline must start anew with each.
            for _ in 0..5 {
                sleep(STALL - Duration::from_millis(1)).await;
                theirs.read_u8().await.unwrap();
            }
            theirs
        });
        let started = Instant::now();
        guarded.write_all(b"67890").await.unwrap();
        assert!(started.elapsed() > 3 * STALL, "{:?}", started.elapsed());
        reading.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_discards_until_the_peer_closes() {
        let (ours, mut theirs) = duplex(4);
        let mut guarded = Guarded::new(ours, STALL, LINGER);
        let sending = tokio::spawn(async move { theirs.write_all(&[0; 100_000]).await });
        let started = Instant::now();
        guarded.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO, "the peer closed when it had sent all");
        sending.await.unwrap().expect("all was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_does_not_wait_for_ever() {
        let (ours, theirs) = duplex(4);
        let mut guarded = Guarded::new(ours, STALL, LINGER);
        let started = Instant::now();
        guarded.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), LINGER);
        drop(theirs);
    }
}
