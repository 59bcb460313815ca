//! Clients that listen, and the check that each gets each publication once, in order, and none of somebody else's.

use crate::dialect::Subscriptions;
use crate::fleet::{ClientNo, Item, Net, Script};
use crate::latency::{Latencies, Recorder};
use crate::loops::Share;
use crate::payload;
use crate::publisher::{Published, Publishing};
use crate::timeline::{Series, Timeline};
use crate::track::{Arrival, Track};
use io::Io;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What is to be published to the listeners; the same for all loops.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    /// See [`payload::Origin::run`].
    pub(super) run: u32,
    /// Bytes of data.
    pub(super) size: usize,
    pub(super) publishers: u32,
    pub(super) clients: u32,
    pub(super) subscriptions: Subscriptions,
    /// Names of the shared channels.
    pub(super) names: Arc<Vec<String>>,
    /// What was published; set before the letter to finish.
    pub(super) published: Arc<OnceLock<Published>>,
    pub(super) timeline: Option<Arc<Timeline>>,
}

impl Announced {
    /// What `publishing` publishes to so many clients.
    pub(super) fn of(
        publishing: &Publishing,
        clients: u32,
        subscriptions: &Subscriptions,
        published: &Arc<OnceLock<Published>>,
        timeline: Option<Arc<Timeline>>,
    ) -> Announced {
        Announced {
            run: publishing.run,
            size: publishing.size,
            publishers: publishing.publishers,
            clients,
            subscriptions: subscriptions.clone(),
            names: Arc::new(publishing.channels.clone()),
            published: Arc::clone(published),
            timeline,
        }
    }
}

/// The listeners of one loop.
#[derive(Debug)]
pub(super) struct Listen {
    announced: Announced,
    share: Share,
    /// By client, then by publisher.
    tracks: Vec<Track>,
    /// By client.
    states: Vec<Listener>,
    latencies: Recorder,
    counts: Counts,
}

#[derive(Clone, Default, Debug)]
struct Listener {
    /// It was ready when publishing began, so it is to get everything.
    is_member: bool,
    /// A digest of everything it got, in the order in which it came. Members of one channel must agree, whichever publisher
    /// was numbered first.
    order: u64,
}

/// What came, all clients together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    pub(super) misdelivered: u64,
    pub(super) foreign: u64,
}

/// The judgement over the listeners of all loops.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) counts: Counts,
    pub(super) lost: u64,
    /// Clients that got the same publications as others of their channel, in another order.
    pub(super) disordered: u64,
    pub(super) latencies: Latencies,
}

impl Listen {
    pub(super) fn new(announced: Announced, share: Share) -> Listen {
        let clients = share.len(announced.clients) as usize;
        Listen {
            share,
            tracks: vec![Track::default(); clients * announced.publishers as usize],
            states: vec![Listener::default(); clients],
            latencies: Recorder::new(announced.timeline.as_ref(), Series::Latency),
            counts: Counts::default(),
            announced,
        }
    }

    /// The channel of a client, by number.
    fn channel(&self, no: ClientNo) -> u32 {
        self.announced.subscriptions.number(self.share.global(no))
    }

    /// What was published, once that is known.
    pub(super) fn published(&self) -> Option<&Published> {
        self.announced.published.get()
    }

    fn tracks(&self, no: ClientNo) -> &[Track] {
        let publishers = self.announced.publishers as usize;
        &self.tracks[no as usize * publishers..][..publishers]
    }

    /// Accepted publications that a client lacks.
    pub(super) fn missing(&self, no: ClientNo, published: &Published) -> u64 {
        let channel = self.channel(no);
        let tracks = self.tracks(no).iter().zip(&published.last);
        let missing: u64 = tracks.map(|(track, last)| track.missing(last[channel as usize])).sum();
        let unknown = published.unknown.iter().filter(|unknown| unknown.channel == channel);
        let lacking = unknown.filter(|unknown| self.tracks(no)[unknown.publisher as usize].lacks(unknown.sequence));
        missing - lacking.count() as u64
    }

    pub(super) fn members(&self) -> impl Iterator<Item = ClientNo> {
        (0..self.states.len() as ClientNo).filter(|&no| self.states[no as usize].is_member)
    }

    /// Something that says of itself that it is ours. `channel` is the name under which it came, where the dialect has one.
    pub(super) fn publication(&mut self, now: Duration, no: ClientNo, channel: Option<&str>, data: &[u8]) {
        let Announced { run, size, publishers, .. } = self.announced;
        let ours = payload::read_data(data, size).filter(|(origin, mark)| {
            origin.run == run && u32::from(origin.publisher) < publishers && mark.sequence > 0
        });
        let Some((origin, mark)) = ours else {
            self.counts.foreign += 1;
            return;
        };
        let number = self.channel(no);
        if origin.channel != number || channel.is_some_and(|name| name != self.announced.names[number as usize]) {
            self.counts.misdelivered += 1;
            return;
        }
        match self.tracks[no as usize * publishers as usize + usize::from(origin.publisher)].arrived(mark.sequence) {
            Arrival::Duplicate => {
                self.counts.duplicated += 1;
                return;
            }
            Arrival::OutOfOrder => self.counts.out_of_order += 1,
            Arrival::InOrder => {}
        }
        self.counts.received += 1;
        self.latencies.record(now, now.saturating_sub(mark.at));
        let state = &mut self.states[no as usize];
        let item = u64::from(origin.publisher) << 32 | u64::from(mark.sequence);
        // An odd factor near 2^64 divided by the golden ratio spreads every bit upwards; the rotation brings it down again.
        state.order = (state.order.rotate_left(23) ^ item).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Script for Listen {
    fn go(&mut self, net: &mut Net, _: &mut Io, _: Duration) {
        for (no, state) in self.states.iter_mut().enumerate() {
            state.is_member = net.is_ready(no as ClientNo);
        }
    }

    fn received(&mut self, _: &mut Net, _: &mut Io, now: Duration, no: ClientNo, item: Item<'_>) {
        match item {
            Item::Publication(channel, data, _) => self.publication(now, no, Some(&channel), data),
            Item::Message(data) => self.publication(now, no, None, data),
            Item::Subscribed(_) => {}
        }
    }

    fn is_settled(&self, net: &Net) -> bool {
        let Some(published) = self.announced.published.get() else { return true };
        !self.members().any(|no| net.is_ready(no) && self.missing(no, published) > 0)
    }
}

impl Verdict {
    /// Judges what all clients got by what was published.
    pub(super) fn over(loops: Vec<Listen>, published: &Published) -> Verdict {
        let mut counts = Counts::default();
        loops.iter().for_each(|listen| counts.add(listen.counts));
        let lost_of = |listen: &Listen| listen.members().map(|no| listen.missing(no, published)).sum::<u64>();
        let lost = loops.iter().map(lost_of).sum::<u64>() + lost_unknown(&loops, published);
        let faults = lost + counts.duplicated + counts.out_of_order;
        let disordered = if faults == 0 { disordered(&loops) } else { 0 };
        let mut latencies = Latencies::default();
        loops.into_iter().for_each(|listen| latencies.merge(&listen.latencies.finish()));
        Verdict { counts, lost, disordered, latencies }
    }
}

/// Nobody told us of some publications whether they exist; but if one member got it, all were to get it.
fn lost_unknown(loops: &[Listen], published: &Published) -> u64 {
    let mut lost = 0;
    for unknown in &published.unknown {
        let lacks = |listen: &Listen, no| listen.tracks(no)[unknown.publisher as usize].lacks(unknown.sequence);
        let all = loops.iter().flat_map(|listen| listen.members().map(move |no| (listen, no)));
        let members = all.filter(|(listen, no)| listen.channel(*no) == unknown.channel);
        let (lacking, having): (Vec<bool>, Vec<bool>) = members.map(|(l, no)| lacks(l, no)).partition(|&lacks| lacks);
        if !having.is_empty() {
            lost += lacking.len() as u64;
        }
    }
    lost
}

/// Members that disagree with most of their channel on the order. Only of use where all got the same.
fn disordered(loops: &[Listen]) -> u64 {
    let mut orders: HashMap<u32, HashMap<u64, u64>> = HashMap::new();
    for listen in loops {
        for no in listen.members() {
            let channel = orders.entry(listen.channel(no)).or_default();
            *channel.entry(listen.states[no as usize].order).or_default() += 1;
        }
    }
    orders.values().map(|counts| counts.values().sum::<u64>() - counts.values().max().copied().unwrap_or(0)).sum()
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.received += other.received;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.misdelivered += other.misdelivered;
        self.foreign += other.foreign;
    }
}
