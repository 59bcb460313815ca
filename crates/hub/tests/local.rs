//! The local half against a naive model: pending and admitted subscriptions, and removal in any order.

mod support;

use std::collections::BTreeMap;

use hub::{ChannelHash, Local, LocalId, Member, MemberId, SubscriberId};
use proptest::prelude::*;
use proptest::sample::Index;

#[derive(Clone, Debug)]
enum Operation {
    Begin { channel: u8 },
    Abandon { which: Index },
    Admit { which: Index, encoding: u8, held: bool },
    GoLive { which: Index },
    Remove { which: Index },
}

fn operation() -> impl Strategy<Value = Operation> {
    let which = any::<Index>;
    prop_oneof![
        4 => (0..4_u8).prop_map(|channel| Operation::Begin { channel }),
        1 => which().prop_map(|which| Operation::Abandon { which }),
        4 => (which(), 0..3_u8, any::<bool>())
            .prop_map(|(which, encoding, held)| Operation::Admit { which, encoding, held }),
        1 => which().prop_map(|which| Operation::GoLive { which }),
        2 => which().prop_map(|which| Operation::Remove { which }),
    ]
}

fn name(channel: u8) -> String {
    format!("channel:{channel}")
}

struct Pair {
    local: Local,
    /// The subscriptions that wait, oldest first.
    pending: Vec<(u8, LocalId)>,
    /// The admitted ones with their channel.
    members: BTreeMap<MemberId, (u8, Member)>,
    admitted: u64,
}

impl Pair {
    fn new() -> Pair {
        let local = Local::new(ChannelHash::new([5; 16]));
        Pair { local, pending: Vec::new(), members: BTreeMap::new(), admitted: 0 }
    }

    fn member(&self, which: Index) -> Option<MemberId> {
        let at = (!self.members.is_empty()).then(|| which.index(self.members.len()))?;
        self.members.keys().nth(at).copied()
    }

    fn take_pending(&mut self, which: Index) -> Option<(u8, LocalId)> {
        (!self.pending.is_empty()).then(|| self.pending.swap_remove(which.index(self.pending.len())))
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Begin { channel } => {
                let (id, text) = self.local.begin(&name(channel));
                assert_eq!(*text, *name(channel));
                self.pending.push((channel, id));
            }
            Operation::Abandon { which } => {
                if let Some((_, id)) = self.take_pending(which) {
                    self.local.abandon(id);
                }
            }
            Operation::Admit { which, encoding, held } => {
                let Some((channel, id)) = self.take_pending(which) else { return };
                self.admitted += 1;
                let subscriber = SubscriberId(self.admitted);
                let member = self.local.admit(id, subscriber, encoding, held);
                let before = self.members.insert(
                    member,
                    (channel, Member { subscriber, member, encoding, held, positioned: false, part: hub::Part::None }),
                );
                assert_eq!(before, None, "the id of a living subscription was given out again");
            }
            Operation::GoLive { which } => {
                let Some(member) = self.member(which) else { return };
                self.local.go_live(member);
                self.members.get_mut(&member).expect("taken from the map").1.held = false;
            }
            Operation::Remove { which } => {
                let Some(member) = self.member(which) else { return };
                let (channel, _) = self.members.remove(&member).expect("taken from the map");
                assert_eq!(*self.local.remove(member), *name(channel));
            }
        }
    }

    fn compare(&self) {
        let mut channels = 0;
        for channel in 0..4 {
            let pending: Vec<LocalId> = self.pending.iter().filter(|p| p.0 == channel).map(|p| p.1).collect();
            let members: Vec<Member> = self.members.values().filter(|m| m.0 == channel).map(|m| m.1).collect();
            let Some(id) = self.local.find(&name(channel)) else {
                assert!(pending.is_empty() && members.is_empty(), "channel {channel} was lost");
                continue;
            };
            assert!(!pending.is_empty() || !members.is_empty(), "channel {channel} should be forgotten");
            channels += 1;
            assert!(pending.iter().all(|&other| other == id), "a channel has one id while it is known");
            assert_eq!(**self.local.channel(id), *name(channel));
            assert_eq!(self.local.pending(id) as usize, pending.len());
            assert_eq!(self.local.live(id) as usize, members.len());
            let mut walked: Vec<Member> = self.local.members(id).collect();
            walked.sort_by_key(|member| member.member);
            assert_eq!(walked, members);
            assert!(members.iter().all(|member| self.local.local_of(member.member) == id));
        }
        assert_eq!(self.local.channels(), channels);
        assert_eq!(self.local.subscriptions(), self.members.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn local_equals_the_model(operations in prop::collection::vec(operation(), 0..300)) {
        let mut pair = Pair::new();
        for operation in operations {
            pair.apply(operation);
            pair.compare();
        }
    }
}

/// An audience of many pages grows, shrinks to nothing and grows again; at each turn the members are those who stayed.
#[test]
fn a_large_audience_survives_storms_of_removals_in_any_order() {
    for seed in support::seeds(8) {
        println!("TIDEGATE_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut local = Local::new(ChannelHash::new([5; 16]));
        let mut stayed: Vec<(MemberId, u64)> = Vec::new();
        let mut next = 0;
        for turn in 0..12 {
            let target = [5_000, 1, 1_025, 1_024, 3, 2_500, 0, 2, 1_023, 2_049, 1, 0][turn];
            while stayed.len() < target {
                next += 1;
                let (id, _) = local.begin("busy");
                stayed.push((local.admit(id, SubscriberId(next), 0, true), next));
            }
            while stayed.len() > target {
                let (member, _) = stayed.swap_remove(random.usize(..stayed.len()));
                local.remove(member);
            }
            // Back pointers: what is said to one member arrives at that one.
            for _ in 0..stayed.len().min(20) {
                let (member, subscriber) = stayed[random.usize(..stayed.len())];
                local.go_live(member);
                let id = local.local_of(member);
                let found = local.members(id).find(|m| m.member == member).expect("it stayed");
                assert_eq!((found.subscriber, found.held), (SubscriberId(subscriber), false));
            }
            let mut expected: Vec<u64> = stayed.iter().map(|&(_, subscriber)| subscriber).collect();
            expected.sort_unstable();
            let mut walked: Vec<u64> = match local.find("busy") {
                Some(id) => local.members(id).map(|member| member.subscriber.0).collect(),
                None => Vec::new(),
            };
            walked.sort_unstable();
            assert_eq!(walked, expected, "turn {turn}");
        }
        assert_eq!((local.channels(), local.subscriptions()), (0, 0));
    }
}

#[test]
fn going_live_releases_one_member_and_no_other() {
    let mut local = Local::new(ChannelHash::new([5; 16]));
    let members: Vec<MemberId> = (0..3)
        .map(|n| {
            let (id, _) = local.begin("news");
            local.admit(id, SubscriberId(n), 0, true)
        })
        .collect();
    local.go_live(members[1]);
    let id = local.find("news").expect("it has members");
    let mut held: Vec<(u64, bool)> = local.members(id).map(|member| (member.subscriber.0, member.held)).collect();
    held.sort_unstable();
    assert_eq!(held, [(0, true), (1, false), (2, true)]);
}

#[test]
fn a_session_can_keep_a_subscription_in_twelve_bytes() {
    #[expect(dead_code, reason = "only its size is of interest")]
    enum Subscription {
        Pending { local: LocalId, sequence: u32 },
        Held(MemberId),
        Live(MemberId),
    }
    assert_eq!(size_of::<Subscription>(), 12);
    assert_eq!(size_of::<Option<MemberId>>(), 4);
}

#[test]
#[should_panic(expected = "abandoned or admitted once")]
fn a_second_answer_to_one_subscribe_is_caught() {
    let mut local = Local::new(ChannelHash::new([5; 16]));
    let (id, _) = local.begin("news");
    local.admit(id, SubscriberId(1), 0, false);
    local.abandon(id);
}
