//! The admitted subscriptions of one channel, dense for the fan-out.

use crate::id::{MemberId, SubscriberId};

/// Members of one page. Pages bound what one insert copies and leave no slack behind them, whatever the audience.
const PAGE_MEMBERS: usize = 1024;

/// One admitted subscription, as the fan-out sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Member {
    /// Who subscribed.
    pub subscriber: SubscriberId,
    /// The subscription.
    pub member: MemberId,
    /// Which of the worker's encodings the subscriber reads.
    pub encoding: u8,
    /// Live publications are kept back for it until the reply that announces the subscription is queued.
    pub held: bool,
    /// It is told when publications are missing between two that it gets.
    pub positioned: bool,
    /// Whether its home knows it by name.
    pub part: Part,
}

/// What a subscription has to do with those who come and go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Part {
    /// Nothing.
    #[default]
    None,
    /// Its home knows it by name, so that its withdrawal has to say who goes.
    Guest,
    /// The same, and it is told of the others.
    Listener,
}

const _: () = assert!(size_of::<Member>() == 16, "16 B and 8 B of back pointer for each subscription");

/// The members of one channel, in no order. Each has a position, which changes only when another one is removed.
pub(crate) enum Members {
    None,
    /// A personal channel: no allocation.
    One(Member),
    /// INVARIANT: two or more members; all pages but the last hold `PAGE_MEMBERS`, the last at least one.
    #[expect(clippy::box_collection, reason = "a Vec in place would add 8 B to each of a million personal channels")]
    Many(Box<Vec<Vec<Member>>>),
}

const _: () = assert!(size_of::<Members>() == 16, "one per channel");

impl Members {
    pub(crate) fn len(&self) -> usize {
        match self {
            Members::None => 0,
            Members::One(_) => 1,
            Members::Many(pages) => {
                (pages.len() - 1) * PAGE_MEMBERS + pages.last().expect("there are two or more members").len()
            }
        }
    }

    /// Adds a member at position [`Members::len`].
    pub(crate) fn push(&mut self, member: Member) {
        match self {
            Members::None => *self = Members::One(member),
            Members::One(first) => *self = Members::Many(Box::new(vec![vec![*first, member]])),
            Members::Many(pages) => push(pages, member),
        }
    }

    pub(crate) fn at(&self, position: u32) -> &Member {
        match self {
            Members::None => panic!("no member at {position}: there are none"),
            Members::One(member) => {
                assert!(position == 0, "no member at {position}: there is one");
                member
            }
            Members::Many(pages) => &pages[position as usize / PAGE_MEMBERS][position as usize % PAGE_MEMBERS],
        }
    }

    pub(crate) fn at_mut(&mut self, position: u32) -> &mut Member {
        match self {
            Members::None => panic!("no member at {position}: there are none"),
            Members::One(member) => {
                assert!(position == 0, "no member at {position}: there is one");
                member
            }
            Members::Many(pages) => &mut pages[position as usize / PAGE_MEMBERS][position as usize % PAGE_MEMBERS],
        }
    }

    /// Removes the member at `position` and says which one, if any, has that position now.
    pub(crate) fn swap_remove(&mut self, position: u32) -> Option<MemberId> {
        let Members::Many(pages) = self else {
            assert!(position == 0 && self.len() == 1, "no member at {position}");
            *self = Members::None;
            return None;
        };
        let last = pop(pages);
        let moved = match pages.get_mut(position as usize / PAGE_MEMBERS) {
            Some(page) => page.get_mut(position as usize % PAGE_MEMBERS).map(|place| {
                *place = last;
                last.member
            }),
            None => None,
        };
        if let [page] = &pages[..]
            && let [only] = page[..]
        {
            *self = Members::One(only);
        }
        moved
    }

    /// All members, a page at a time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Member> {
        let (one, many): (&[Member], &[Vec<Member>]) = match self {
            Members::None => (&[], &[]),
            Members::One(member) => (std::slice::from_ref(member), &[]),
            Members::Many(pages) => (&[], pages),
        };
        one.iter().chain(many.iter().flatten()).copied()
    }
}

fn push(pages: &mut Vec<Vec<Member>>, member: Member) {
    let page = match pages.last_mut() {
        Some(page) if page.len() < PAGE_MEMBERS => page,
        _ => {
            pages.push(Vec::new());
            pages.last_mut().expect("a page was pushed")
        }
    };
    if page.len() == page.capacity() {
        // By a quarter, not double: the slack is memory that every channel with a few subscribers would pay.
        let more = (page.len() / 4).clamp(2, PAGE_MEMBERS - page.len());
        page.reserve_exact(more);
    }
    page.push(member);
}

/// Takes the last member; gives memory back when a page has become much too large.
fn pop(pages: &mut Vec<Vec<Member>>) -> Member {
    let page = pages.last_mut().expect("there are two or more members");
    let member = page.pop().expect("the last page is never empty");
    if page.is_empty() {
        pages.pop();
    } else if page.len() * 4 <= page.capacity() {
        page.shrink_to(page.len() * 2);
    }
    member
}
