//! Every interleaving of a small story on two workers, once for each rule by which interest may end.
//!
//! The story: on the subscribing worker client A is subscribed and leaves, client B subscribes, in either order; on
//! the home three publications are made. Letters between the workers are read whenever the schedule says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hub::{
    Channel, ChannelHash, Draft, Home, HomeLimits, Local, LocalId, MemberId, Offset, Publication, Route, SubscriberId,
    WorkerId,
};

const NOW: Duration = Duration::ZERO;
const CHANNEL: &str = "news";
const PUBLICATIONS: usize = 3;
const WORKER: WorkerId = WorkerId(1);
const A: SubscriberId = SubscriberId(1);
const B: SubscriberId = SubscriberId(2);

/// By which rule a worker ends the home's interest.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// One withdrawal for each subscription that was counted.
    Counting,
    /// "Uninterested" as soon as no member is left, whatever is pending.
    Naive,
}

/// From the subscribing worker to the home.
enum Up {
    Subscribe(Channel, LocalId),
    Withdraw(Channel),
    Uninterested(Channel),
}

/// From the home to the subscribing worker.
enum Down {
    Answer(LocalId),
    Deliver(Arc<Publication>),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    ALeaves,
    BSubscribes,
    Publish,
    HomeReads,
    WorkerReads,
}

struct Story {
    rule: Rule,
    home: Home,
    local: Local,
    up: VecDeque<Up>,
    down: Mailbox,
    a: Option<MemberId>,
    b_began: bool,
    published: usize,
    /// Publications made since the home took B's subscription: what B must get.
    owed: Option<Vec<u64>>,
    received: Vec<u64>,
}

struct Mailbox(VecDeque<Down>);

impl Route for Mailbox {
    fn has_room(&mut self, _: WorkerId, _: usize) -> bool {
        true
    }

    fn deliver(&mut self, worker: WorkerId, publication: Arc<Publication>) {
        assert_eq!(worker, WORKER);
        self.0.push_back(Down::Deliver(publication));
    }
}

impl Story {
    fn new(rule: Rule) -> Story {
        let hash = ChannelHash::new([5; 16]);
        let (mut home, mut local) = (Home::new(hash, HomeLimits::default(), 1), Local::new(hash));
        let (id, channel) = local.begin(CHANNEL);
        home.subscribe(NOW, &channel, WORKER, None, None).expect("below the limit");
        let a = Some(local.admit(id, A, 0, false));
        let (up, down) = (VecDeque::new(), Mailbox(VecDeque::new()));
        Story { rule, home, local, up, down, a, b_began: false, published: 0, owed: None, received: Vec::new() }
    }

    /// What can happen next.
    fn steps(&self) -> Vec<Step> {
        let possible = [
            (self.a.is_some(), Step::ALeaves),
            (!self.b_began, Step::BSubscribes),
            (self.published < PUBLICATIONS, Step::Publish),
            (!self.up.is_empty(), Step::HomeReads),
            (!self.down.0.is_empty(), Step::WorkerReads),
        ];
        possible.into_iter().filter_map(|(possible, step)| possible.then_some(step)).collect()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::ALeaves => self.a_leaves(),
            Step::BSubscribes => {
                self.b_began = true;
                let (id, channel) = self.local.begin(CHANNEL);
                self.up.push_back(Up::Subscribe(channel, id));
            }
            Step::Publish => {
                self.published += 1;
                let data = (self.published as u64).to_le_bytes();
                let draft = Draft::new(Channel::new(CHANNEL), data);
                self.home.publish(NOW, draft, None, &mut self.down).expect("there is room");
                if let Some(owed) = &mut self.owed {
                    owed.push(self.published as u64);
                }
            }
            Step::HomeReads => self.home_reads(),
            Step::WorkerReads => self.worker_reads(),
        }
    }

    fn a_leaves(&mut self) {
        let channel = self.local.remove(self.a.take().expect("A is subscribed"));
        match self.rule {
            Rule::Counting => self.up.push_back(Up::Withdraw(channel)),
            Rule::Naive if self.local.find(CHANNEL).is_none_or(|id| self.local.live(id) == 0) => {
                self.up.push_back(Up::Uninterested(channel));
            }
            Rule::Naive => {}
        }
    }

    fn home_reads(&mut self) {
        match self.up.pop_front().expect("a letter waits") {
            Up::Subscribe(channel, id) => {
                self.home.subscribe(NOW, &channel, WORKER, None, None).expect("below the limit");
                self.owed = Some(Vec::new());
                self.down.0.push_back(Down::Answer(id));
            }
            Up::Withdraw(channel) => self.home.unsubscribe(NOW, &channel, WORKER, 1),
            Up::Uninterested(channel) => {
                let all = self.home.subscribers(&channel).unwrap_or(0);
                self.home.unsubscribe(NOW, &channel, WORKER, all);
            }
        }
    }

    fn worker_reads(&mut self) {
        match self.down.0.pop_front().expect("a letter waits") {
            Down::Answer(id) => {
                self.local.admit(id, B, 0, false);
            }
            Down::Deliver(publication) => {
                let Some(id) = self.local.find(CHANNEL) else { return };
                if self.local.members(id).any(|member| member.subscriber == B) {
                    let data = publication.data[..].try_into().expect("eight bytes");
                    self.received.push(u64::from_le_bytes(data));
                    assert_ne!(publication.position.offset, Offset(0));
                }
            }
        }
    }

    fn lost(&self) -> bool {
        self.owed.as_deref() != Some(&self.received)
    }
}

/// Runs every schedule, each from the start; returns how many there are and how many of them lose a publication.
fn explore(rule: Rule) -> (u32, u32) {
    let (mut schedules, mut losing) = (0, 0);
    // The step taken at each point and how many there were to choose from.
    let mut choices: Vec<(usize, usize)> = Vec::new();
    loop {
        let mut story = Story::new(rule);
        for depth in 0.. {
            let steps = story.steps();
            if steps.is_empty() {
                break;
            }
            if depth == choices.len() {
                choices.push((0, steps.len()));
            }
            story.take(steps[choices[depth].0]);
        }
        schedules += 1;
        losing += u32::from(story.lost());
        while choices.last().is_some_and(|&(choice, of)| choice + 1 == of) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => return (schedules, losing),
        }
    }
}

#[test]
fn counting_loses_nothing_in_any_interleaving_where_the_naive_rule_does() {
    let (schedules, losing) = explore(Rule::Counting);
    assert!(schedules > 1_000, "{schedules} interleavings are no storm");
    assert_eq!(losing, 0, "of {schedules} interleavings");

    let (naive_schedules, naive_losing) = explore(Rule::Naive);
    println!("{schedules} interleavings without loss; the naive rule loses in {naive_losing} of {naive_schedules}");
    assert!(naive_losing > 0, "the story cannot tell the two rules apart");
}
