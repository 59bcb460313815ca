//! What travels through a channel.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::id::{Channel, Epoch, Offset, Position};

/// Labels of a publication, for filters and for the application. Ordered, so that every encoding lists them alike.
pub type Tags = BTreeMap<String, String>;

/// Which client published. Absent on publications from a backend.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientInfo {
    /// The user, empty when anonymous.
    pub user: Box<str>,
    /// The client's id, as its connect reply named it.
    pub client: Box<str>,
    /// JSON text that belongs to the connection.
    pub conn_info: Option<Box<[u8]>>,
    /// JSON text that belongs to the client's subscription of this channel.
    pub chan_info: Option<Box<[u8]>>,
}

/// A publication that has no number yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// Where it is to be published.
    pub channel: Channel,
    /// The payload as for [`Publication::data`].
    pub data: Box<[u8]>,
    /// The client that publishes, if one does.
    pub info: Option<Box<ClientInfo>>,
    /// Labels, if any.
    pub tags: Option<Box<Tags>>,
    /// What the publisher asks beside the publication itself, if anything.
    pub options: Option<Box<PublishOptions>>,
}

/// What a publisher may ask of the home.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PublishOptions {
    /// Deliver only: the publication gets no offset and is not kept. Whoever is away misses it.
    pub skip_history: bool,
    /// A second publication with the same key in the same channel is not published; it gets the first one's answer. For
    /// as long as [`HomeLimits::idempotency_ttl`](crate::HomeLimits::idempotency_ttl) says.
    pub idempotency_key: Option<Box<str>>,
    /// Above 0: publish only if it is higher than the version published last into the channel. Needs a history.
    pub version: u64,
    /// Versions of different epochs do not compare: the newer publication wins.
    pub version_epoch: Option<Box<str>>,
}

impl Draft {
    /// A draft as a backend sends it: without client, tags and wishes.
    #[must_use]
    pub fn new(channel: Channel, data: impl Into<Box<[u8]>>) -> Draft {
        Draft { channel, data: data.into(), info: None, tags: None, options: None }
    }

    /// What [`Publication::cost`] will be.
    #[must_use]
    pub fn cost(&self) -> usize {
        cost(&self.channel, &self.data, self.info.as_deref(), self.tags.as_deref())
    }
}

/// A draft in the memory that its publication will have.
///
/// Whoever publishes makes it, so that the home has nothing left to allocate: it writes the number into what it got.
///
/// INVARIANT: `publication` has this one owner; there is no way to get a second `Arc` of it or to clone this.
#[derive(Debug)]
pub struct Unnumbered {
    publication: Arc<Publication>,
    options: Option<Box<PublishOptions>>,
}

const _: () = assert!(size_of::<Unnumbered>() == 16, "part of a letter");

impl From<Draft> for Unnumbered {
    fn from(draft: Draft) -> Unnumbered {
        let Draft { channel, data, info, tags, options } = draft;
        let position = Position { offset: Offset::default(), epoch: Epoch::from_seed(0) };
        Unnumbered { publication: Arc::new(Publication { channel, data, info, tags, position, time: None }), options }
    }
}

impl Unnumbered {
    /// As in [`Draft::channel`].
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.publication.channel
    }

    /// As in [`Draft::data`].
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.publication.data
    }

    /// As in [`Draft::options`].
    #[must_use]
    pub fn options(&self) -> Option<&PublishOptions> {
        self.options.as_deref()
    }

    /// What [`Publication::cost`] will be.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.publication.cost()
    }

    /// The publication at `position`; `time` as in [`Publication::time`].
    pub(crate) fn numbered(mut self, position: Position, time: Option<NonZeroU64>) -> Arc<Publication> {
        let publication = Arc::get_mut(&mut self.publication).expect("it has one owner until it is numbered");
        (publication.position, publication.time) = (position, time);
        self.publication
    }
}

/// One item of a channel, numbered. All workers share one copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Where it was published.
    pub channel: Channel,
    /// JSON text. Whoever made the draft has removed line breaks between its tokens, so that line-based transports can
    /// carry it as it is.
    pub data: Box<[u8]>,
    /// The client that published, if one did.
    pub info: Option<Box<ClientInfo>>,
    /// Labels, if any.
    pub tags: Option<Box<Tags>>,
    /// Its number and the numbering that this belongs to. Clients see it only where `time` is set.
    pub position: Position,
    /// When it was numbered, in milliseconds of Unix time, if its channel keeps a history and it is part of that. In other
    /// channels a position leads nowhere, and one published past the history has the position of the one before it.
    pub time: Option<NonZeroU64>,
}

const _: () = assert!(size_of::<Publication>() <= 72, "one for each entry of each history");

impl Publication {
    /// The offset that clients are told.
    #[must_use]
    pub fn offset(&self) -> Option<Offset> {
        self.time.map(|_| self.position.offset)
    }

    /// Bytes of what its publisher wrote: about what it takes on the wire.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        texts(&self.data, self.info.as_deref(), self.tags.as_deref())
    }

    /// Bytes for which the publication counts in a mailbox: about what it occupies.
    ///
    /// Every mailbox counts it in full though workers share one copy: the last of them frees it, and which one that is
    /// cannot be known beforehand.
    #[must_use]
    pub fn cost(&self) -> usize {
        cost(&self.channel, &self.data, self.info.as_deref(), self.tags.as_deref())
    }
}

/// Bytes of a publication besides the texts it holds: the struct, its reference counts and its heap blocks.
const PUBLICATION_BYTES: usize = size_of::<Publication>() + 64;
/// Bytes of one tag besides its texts: two `String` headers and its part of a tree node.
const TAG_BYTES: usize = 64;

fn cost(channel: &str, data: &[u8], info: Option<&ClientInfo>, tags: Option<&Tags>) -> usize {
    let structs = info.map_or(0, |_| size_of::<ClientInfo>()) + tags.map_or(0, |tags| tags.len() * TAG_BYTES);
    PUBLICATION_BYTES + structs + channel.len() + texts(data, info, tags)
}

fn texts(data: &[u8], info: Option<&ClientInfo>, tags: Option<&Tags>) -> usize {
    let json = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |bytes| bytes.len());
    let info =
        info.map_or(0, |info| info.user.len() + info.client.len() + json(&info.conn_info) + json(&info.chan_info));
    let tags = tags.map_or(0, |tags| tags.iter().map(|(key, value)| key.len() + value.len()).sum());
    data.len() + info + tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Offset};

    #[test]
    fn cost_counts_every_byte_a_publisher_controls() {
        let plain = Draft::new(Channel::new("c"), *b"1");
        let mut big = plain.clone();
        big.channel = Channel::new(&"c".repeat(101));
        assert_eq!(big.cost() - plain.cost(), 100);
        big.data = vec![b'1'; 1001].into();
        assert_eq!(big.cost() - plain.cost(), 1100);

        let mut info = ClientInfo { user: "u".into(), client: "client".into(), ..ClientInfo::default() };
        big.info = Some(Box::new(info.clone()));
        let before = big.cost();
        info.conn_info = Some(vec![b'1'; 10].into());
        info.chan_info = Some(vec![b'1'; 20].into());
        big.info = Some(Box::new(info));
        assert_eq!(big.cost() - before, 30);

        let before = big.cost();
        big.tags = Some(Box::new(Tags::from([("key".into(), "value".into())])));
        assert_eq!(big.cost() - before, TAG_BYTES + 8);
    }

    #[test]
    fn numbering_does_not_change_the_cost() {
        let draft = Draft::new(Channel::new("news"), *b"{}");
        let position = Position { offset: Offset(1), epoch: Epoch::from_seed(1) };
        assert_eq!(draft.cost(), Unnumbered::from(draft.clone()).numbered(position, None).cost());
    }
}
