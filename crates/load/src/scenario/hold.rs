//! Opens clients and keeps them; at the end perhaps one publication to all.

use super::listen::{Announced, Listen, Verdict};
use super::publish::{fill, publish};
use super::stage::Stage;
use crate::cli::HoldArgs;
use crate::crew::{Crew, Failure};
use crate::dialect::Subscriptions;
use crate::endpoint::Endpoint;
use crate::fleet::{ClientNo, Event, Item, Net, Reading, Script};
use crate::progress::Count;
use crate::publisher::{Api, Publishing};
use crate::report::{Pings, Report};
use io::Io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Bytes of the one publication's data.
const BROADCAST_BYTES: usize = 128;

/// Clients that answer pings, and may listen.
#[derive(Debug)]
struct Hold {
    listen: Option<Listen>,
    /// By client that was ready when the measured part began: the pings it had got by then.
    before: Vec<Option<u32>>,
    /// The pings of those that were ready throughout the measured part.
    held: Vec<u32>,
}

impl Script for Hold {
    fn received(&mut self, net: &mut Net, io: &mut Io, now: Duration, no: ClientNo, item: Item<'_>) {
        if let Some(listen) = &mut self.listen {
            listen.received(net, io, now, no, item);
        }
    }

    fn gone(&mut self, _: &mut Net, no: ClientNo) {
        if let Some(before) = self.before.get_mut(no as usize) {
            *before = None;
        }
    }

    fn go(&mut self, net: &mut Net, io: &mut Io, at: Duration) {
        self.before = (0..net.len()).map(|no| net.is_ready(no).then(|| net.pings(no))).collect();
        if let Some(listen) = &mut self.listen {
            listen.go(net, io, at);
        }
    }

    fn measured(&mut self, net: &Net) {
        let before = std::mem::take(&mut self.before);
        let held = before.iter().enumerate().filter_map(|(no, before)| Some((no as ClientNo, (*before)?)));
        self.held = held.map(|(no, before)| net.pings(no) - before).collect();
    }

    fn is_settled(&self, net: &Net) -> bool {
        self.listen.as_ref().is_none_or(|listen| listen.is_settled(net))
    }
}

pub(super) fn run(args: &HoldArgs, stage: &mut Stage<'_>) -> Result<Report, Failure> {
    let subscriptions = args.subscribe.subscriptions(args.dialect)?;
    let broadcast = args.broadcast.as_ref().map(|api| broadcast(args, api, &subscriptions)).transpose()?;
    let published = Arc::new(OnceLock::new());
    let announced = broadcast.as_ref().map(|plan| Announced {
        run: plan.run,
        size: plan.size,
        publishers: plan.publishers,
        clients: args.common.connections,
        subscriptions: subscriptions.clone(),
        names: Arc::new(plan.channels.clone()),
        published: Arc::clone(&published),
        timeline: stage.timeline.clone(),
    });
    let plan = stage.plan(args.dialect, subscriptions, Some(&args.open), 1)?;
    let mut crew = stage.start(plan, |share| Hold {
        listen: announced.clone().map(|announced| Listen::new(announced, share)),
        before: Vec::new(),
        held: Vec::new(),
    })?;
    let opened = stage.open(&mut crew)?;
    stage.measure(&crew);
    let seconds = hold(args, stage, &mut crew, opened)?;
    stage.measured(&crew);
    crew.measured();
    let received = crew.reading().received;
    if let Some(mut plan) = broadcast {
        if !opened {
            plan.publications = 0;
        }
        let was_published = publish(stage, &mut crew, plan)?;
        published.get_or_init(|| was_published);
        crew.finish();
        stage.settle(&mut crew)?;
    }
    let remains = stage.close(crew)?;
    let (mut report, mut loops) = stage.report("hold", remains);
    report.seconds = seconds;
    report.received = received;
    report.latency_us = report.opening_us;
    report.pings_held = Some(Pings::of(loops.iter_mut().flat_map(|hold| std::mem::take(&mut hold.held)).collect()));
    if let Some(published) = published.get() {
        let loops = loops.into_iter().filter_map(|hold| hold.listen).collect();
        fill(&mut report, &Verdict::over(loops, published), published);
    }
    Ok(report)
}

/// Keeps the clients. Returns for how many seconds.
fn hold(args: &HoldArgs, stage: &Stage<'_>, crew: &mut Crew<Hold>, opened: bool) -> Result<f64, Failure> {
    let started = Instant::now();
    crew.go();
    if opened {
        let mut progress = stage.timed("holding", args.duration);
        crew.wait(Event::Empty, Some(started + args.duration), |&Reading { ready, lost, pings, .. }| {
            let counts = [Count::Still("held", ready), Count::Still("lost", lost), Count::Growing("pings", pings)];
            progress.at(started.elapsed().as_secs(), &counts);
        })?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// One publication to each shared channel, no faster than the clients come.
fn broadcast(args: &HoldArgs, api: &Endpoint, subscriptions: &Subscriptions) -> Result<Publishing, Failure> {
    let (api, key) = (api.clone(), args.key.clone());
    let api = Api::new(args.dialect, api, key, subscriptions.channels).map_err(Failure::usage)?;
    Ok(Publishing {
        api,
        channels: subscriptions.all_shared(),
        publishers: 1,
        rate: args.open.open_rate,
        burst: 1,
        publications: u64::from(subscriptions.channels),
        size: BROADCAST_BYTES,
        run: fastrand::u32(..),
    })
}
