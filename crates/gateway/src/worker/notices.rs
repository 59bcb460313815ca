//! What a backend wants to be told, from where it happens to the control thread.

use super::Worker;
use crate::letter::Letter;
use crate::mailbox::Post;
use conn::{ClientId, CloseReport, Encoding};
use control::webhook::{Notice, What};
use hub::Channel;
use io::Io;

/// Notices that may wait here for room in the control thread's mailbox. More are dropped, and counted.
const WAITING_MAX: usize = 16_384;

/// Notices of one letter.
const PER_LETTER: usize = 512;

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: Vec<Notice>,
    dropped: u64,
}

impl<P: Post> Worker<P> {
    fn notice(&mut self, io: &Io, what: What) {
        if self.notices.waiting.len() >= WAITING_MAX {
            self.notices.dropped += 1;
            return;
        }
        let time = (self.shared.unix_origin + io.now()).as_millis() as u64;
        self.notices.waiting.push(Notice { time, what });
    }

    /// How many were dropped.
    pub(super) fn notices_dropped(&self) -> u64 {
        self.notices.dropped
    }

    /// Whether the backend wants to be told of the channel's first subscriber and last.
    fn is_watched(&self, channel: &str) -> bool {
        self.shared.settings.namespaces.of(channel).is_some_and(|(_, namespace)| namespace.channel_notices)
    }

    /// A subscriber has come to a channel that is at home here.
    pub(super) fn subscriber_came(&mut self, io: &Io, channel: &Channel) {
        if self.is_watched(channel) && self.home.subscribers(channel) == Some(1) {
            self.notice(io, What::Occupied { channel: channel.to_string() });
        }
    }

    /// Subscribers have left a channel that is at home here.
    pub(super) fn subscribers_left(&mut self, io: &Io, channel: &Channel) {
        if self.is_watched(channel) && self.home.subscribers(channel).unwrap_or_default() == 0 {
            self.notice(io, What::Vacated { channel: channel.to_string() });
        }
    }

    pub(super) fn client_came(&mut self, io: &Io, client: ClientId, user: &str, encoding: Encoding) {
        let (transport, protocol) = encoding.spoken_over();
        let (client, user) = (client.to_string(), user.to_owned());
        self.notice(io, What::Connected { client, user, transport, protocol });
    }

    pub(super) fn client_left(&mut self, io: &Io, report: &CloseReport) {
        let (Some(client), Some(user)) = (report.client, &report.user) else { return };
        if self.shared.settings.client_notices {
            let (client, user) = (client.to_string(), user.to_string());
            let (code, reason) = (report.code, report.reason.to_string());
            self.notice(io, What::Disconnected { client, user, code, reason });
        }
    }

    /// Hands over what waits, as far as there is room. Whether something is left.
    pub(super) fn hand_over_notices(&mut self) -> bool {
        let control = self.control();
        while !self.notices.waiting.is_empty() {
            let rest = self.notices.waiting.split_off(self.notices.waiting.len().min(PER_LETTER));
            let letter = Letter::Notices(std::mem::replace(&mut self.notices.waiting, rest));
            if let Err(Letter::Notices(mut back)) = self.post.request(control, letter) {
                back.append(&mut self.notices.waiting);
                self.notices.waiting = back;
                return true;
            }
        }
        false
    }
}
