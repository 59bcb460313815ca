//! The users with sessions on one worker, each name kept once.

use std::collections::HashMap;
use std::sync::Arc;

/// How many sessions each user has here.
#[derive(Debug, Default)]
pub struct Users {
    sessions: HashMap<Arc<str>, u32>,
    /// Sessions of users with a name.
    named: u64,
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
        if let Some((name, _)) = self.sessions.get_key_value(user) {
            let name = name.clone();
            *self.sessions.entry(name.clone()).or_default() += 1;
            return name;
        }
        let name: Arc<str> = user.into();
        self.sessions.insert(name.clone(), 1);
        name
    }

    /// One session less.
    pub(crate) fn leave(&mut self, user: &Arc<str>) {
        if let Some(sessions) = self.sessions.get_mut(user) {
            self.named -= u64::from(!user.is_empty());
            *sessions -= 1;
            if *sessions == 0 {
                self.sessions.remove(user);
            }
        }
    }

    /// Sessions of a user on this worker.
    pub fn sessions(&self, user: &str) -> u32 {
        self.sessions.get(user).copied().unwrap_or_default()
    }

    /// Users with a name on this worker, and their sessions.
    pub fn counts(&self) -> UserCounts {
        let nobody = u64::from(self.sessions.contains_key(""));
        UserCounts { users: self.sessions.len() as u64 - nobody, sessions: self.named }
    }

    /// Users with a session on this worker, nobody among them.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
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
