//! The users with sessions on one worker, each name kept once.

use std::collections::HashMap;
use std::sync::Arc;

/// How many sessions each user has here.
#[derive(Debug, Default)]
pub struct Users {
    sessions: HashMap<Arc<str>, u32>,
}

impl Users {
    /// One session more; its name is shared by all of that user's.
    pub(crate) fn enter(&mut self, user: &str) -> Arc<str> {
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

    /// Users with a session on this worker.
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
        users.leave(&b);
        assert!(users.is_empty());
    }
}
