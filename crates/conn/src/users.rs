//! The users with sessions on one worker, each name kept once.

use std::collections::HashMap;
use std::sync::Arc;

/// What each user has here.
#[derive(Debug, Default)]
pub struct Users {
    users: HashMap<Arc<str>, Has>,
    /// Sessions of users with a name.
    named: u64,
}

/// One user.
#[derive(Clone, Copy, Debug, Default)]
struct Has {
    sessions: u32,
    /// Of all these sessions, those that are under way included. Not counted for nobody in particular.
    subscriptions: u32,
}

/// How many there are, without those who are nobody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserCounts {
    /// Users.
    pub users: u64,
    /// Their sessions.
    pub sessions: u64,
}

impl Users {
    /// One session more; its name is shared by all of that user's.
    pub(crate) fn enter(&mut self, user: &str) -> Arc<str> {
        self.named += u64::from(!user.is_empty());
        if let Some((name, _)) = self.users.get_key_value(user) {
            let name = name.clone();
            self.users.entry(name.clone()).or_default().sessions += 1;
            return name;
        }
        let name: Arc<str> = user.into();
        self.users.insert(name.clone(), Has { sessions: 1, subscriptions: 0 });
        name
    }

    /// One of the user's sessions had so many subscriptions, and now has so many.
    pub(crate) fn recount(&mut self, user: &str, before: u32, after: u32) {
        if let Some(has) = self.users.get_mut(user) {
            has.subscriptions = has.subscriptions - before + after;
        }
    }

    /// One session less.
    pub(crate) fn leave(&mut self, user: &Arc<str>) {
        if let Some(has) = self.users.get_mut(user) {
            self.named -= u64::from(!user.is_empty());
            has.sessions -= 1;
            if has.sessions == 0 {
                self.users.remove(user);
            }
        }
    }

    /// Sessions of a user on this worker.
    pub fn sessions(&self, user: &str) -> u32 {
        self.users.get(user).map_or(0, |has| has.sessions)
    }

    /// Subscriptions of a user's sessions on this worker, and those that are under way.
    pub fn subscriptions(&self, user: &str) -> u32 {
        self.users.get(user).map_or(0, |has| has.subscriptions)
    }

    /// Users with a name on this worker, and their sessions.
    pub fn counts(&self) -> UserCounts {
        let nobody = u64::from(self.users.contains_key(""));
        UserCounts { users: self.users.len() as u64 - nobody, sessions: self.named }
    }

    /// Users with a session on this worker, nobody among them.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_goes_with_its_last_session() {
        let mut users = Users::default();
        let (a, b) = (users.enter("42"), users.enter("42"));
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!((users.len(), users.sessions("42"), users.sessions("4")), (1, 2, 0));
        users.leave(&a);
        assert_eq!(users.sessions("42"), 1);
        let nobody = users.enter("");
        assert_eq!((users.len(), users.counts()), (2, UserCounts { users: 1, sessions: 1 }));
        users.leave(&b);
        assert_eq!((users.len(), users.counts()), (1, UserCounts::default()));
        users.leave(&nobody);
        assert!(users.is_empty());
    }
}
