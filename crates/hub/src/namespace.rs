//! The options of channels, chosen by the prefix of their name.

use std::fmt;

use crate::history::Retention;
use crate::recovery::RecoveryMode;

/// What stands between a channel's namespace and the rest of its name.
pub const BOUNDARY: char = ':';
/// A channel whose name starts with this is private: it needs a token whatever its namespace allows.
pub const PRIVATE_PREFIX: char = '$';
/// Namespaces one process may have: what [`NamespaceId`] can count.
pub const NAMESPACES_MAX: usize = u16::MAX as usize;

/// What happens to publications for a client that does not read as fast as they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SlowClient {
    /// It is disconnected once its outbox is full.
    #[default]
    Disconnect,
    /// Once its outbox is full the oldest waiting publications are left out.
    DropOldest,
    /// Once its outbox is above high water only the newest waiting publication of each channel is kept, or of each value of
    /// a tag.
    Conflate,
}

impl SlowClient {
    /// All of them, in the order of their numbers.
    pub const ALL: [SlowClient; 3] = [SlowClient::Disconnect, SlowClient::DropOldest, SlowClient::Conflate];

    /// Its name in the configuration and the metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            SlowClient::Disconnect => "disconnect",
            SlowClient::DropOldest => "drop_oldest",
            SlowClient::Conflate => "conflate",
        }
    }
}

/// The options that all channels of one namespace share. By default nothing is allowed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Namespace {
    /// The text before the boundary; empty for the channels without one.
    pub name: String,
    /// Clients may subscribe. Anonymous ones need `allow_subscribe_for_anonymous` as well.
    pub allow_subscribe_for_client: bool,
    /// Clients without a user may subscribe where other clients may.
    pub allow_subscribe_for_anonymous: bool,
    /// Channels may be for the users alone that stand in their names; see [`Namespace::allowed_users`].
    pub allow_user_limited_channels: bool,
    /// Clients may publish. Anonymous ones need `allow_publish_for_anonymous` as well.
    pub allow_publish_for_client: bool,
    /// Clients may publish to channels that they are subscribed to. Anonymous ones need `allow_publish_for_anonymous` as
    /// well.
    pub allow_publish_for_subscriber: bool,
    /// Clients without a user may publish where other clients may.
    pub allow_publish_for_anonymous: bool,
    /// What is kept of each channel; `None` is nothing.
    pub history: Option<Retention>,
    /// Every subscription recovers.
    pub force_recovery: bool,
    /// Subscriptions that ask for it recover.
    pub allow_recovery: bool,
    /// What a recovery brings.
    pub recovery_mode: RecoveryMode,
    /// In cache mode every subscription begins with the newest publication, whether it asked or not.
    pub auto_cache_recover: bool,
    /// Every subscription is told when it misses something.
    pub force_positioning: bool,
    /// Subscriptions that ask for it are told when they miss something.
    pub allow_positioning: bool,
    /// Clients may read the history. Anonymous ones need `allow_history_for_anonymous` as well.
    pub allow_history_for_client: bool,
    /// Clients may read the history of channels that they are subscribed to. Anonymous ones need
    /// `allow_history_for_anonymous` as well.
    pub allow_history_for_subscriber: bool,
    /// Clients without a user may read the history where other clients may.
    pub allow_history_for_anonymous: bool,
    /// Who is subscribed is known, and may be asked for.
    pub presence: bool,
    /// Subscribers may be told who comes and goes.
    pub join_leave: bool,
    /// Every subscriber is told who comes and goes, not only those who ask for it.
    pub force_push_join_leave: bool,
    /// Clients may ask who is present, and to be told who comes and goes. Anonymous ones need
    /// `allow_presence_for_anonymous` as well.
    pub allow_presence_for_client: bool,
    /// The same for channels that they are subscribed to.
    pub allow_presence_for_subscriber: bool,
    /// Clients without a user may ask where other clients may.
    pub allow_presence_for_anonymous: bool,
    /// What happens when a client reads too slowly.
    pub slow_client: SlowClient,
    /// With [`SlowClient::Conflate`]: the newest publication of each value of this tag is kept, not that of the channel.
    pub conflate_by_tag: Option<Box<str>>,
    /// Subscribers may ask for Fossil deltas: `fossil` is among `allowed_delta_types`.
    pub allow_fossil_deltas: bool,
    /// Publications are sent as patches to those who asked for deltas.
    pub delta_publish: bool,
    /// Publications are compressed for those who take them so, where compression is on at all.
    pub compress: bool,
    /// The backend is asked whether a client without a token may subscribe.
    pub subscribe_proxy_enabled: bool,
    /// The backend is asked whether a client may publish, and what.
    pub publish_proxy_enabled: bool,
    /// The backend is asked when the time of a subscription is over.
    pub sub_refresh_proxy_enabled: bool,
    /// The backend is told when the first subscriber has come and when the last one has gone.
    pub channel_notices: bool,
}

/// The option that a client's wish lacks, by the name it has in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lacks(pub &'static str);

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Namespace {
    /// Whether a client may subscribe; if not, the option that it would need first. An anonymous client is one whose user
    /// is the empty string.
    pub fn may_subscribe(&self, anonymous: bool) -> Result<(), Lacks> {
        if !self.allow_subscribe_for_client {
            return Err(Lacks("allow_subscribe_for_client"));
        }
        if anonymous && !self.allow_subscribe_for_anonymous {
            return Err(Lacks("allow_subscribe_for_anonymous"));
        }
        Ok(())
    }

    /// The users that stand in a channel's name, where that limits it: the list behind the last `#`, with commas between.
    pub fn allowed_users<'c>(&self, channel: &'c str) -> Option<impl Iterator<Item = &'c str>> {
        let (_, users) = channel.rsplit_once('#').filter(|_| self.allow_user_limited_channels)?;
        Some(users.split(','))
    }

    /// Whether a client may publish; `subscribed` says whether it is subscribed to the channel.
    pub fn may_publish(&self, anonymous: bool, subscribed: bool) -> Result<(), Lacks> {
        let allowed = self.allow_publish_for_client || (subscribed && self.allow_publish_for_subscriber);
        if !allowed {
            return Err(Lacks("allow_publish_for_client"));
        }
        if anonymous && !self.allow_publish_for_anonymous {
            return Err(Lacks("allow_publish_for_anonymous"));
        }
        Ok(())
    }

    /// Whether a client may read the history; `subscribed` says whether it is subscribed to the channel.
    pub fn may_read_history(&self, anonymous: bool, subscribed: bool) -> Result<(), Lacks> {
        let allowed = self.allow_history_for_client || (subscribed && self.allow_history_for_subscriber);
        if !allowed {
            return Err(Lacks("allow_history_for_client"));
        }
        if anonymous && !self.allow_history_for_anonymous {
            return Err(Lacks("allow_history_for_anonymous"));
        }
        Ok(())
    }

    /// Whether a client may ask who is present; `subscribed` says whether it is subscribed to the channel.
    pub fn may_read_presence(&self, anonymous: bool, subscribed: bool) -> Result<(), Lacks> {
        let allowed = self.allow_presence_for_client || (subscribed && self.allow_presence_for_subscriber);
        if !allowed {
            return Err(Lacks("allow_presence_for_client"));
        }
        if anonymous && !self.allow_presence_for_anonymous {
            return Err(Lacks("allow_presence_for_anonymous"));
        }
        Ok(())
    }

    /// Whether the homes of its channels know their subscribers by name.
    #[must_use]
    pub fn has_guests(&self) -> bool {
        self.presence || self.join_leave
    }

    /// An option that is set and can have no effect, with the one that it needs.
    fn idle_option(&self) -> Option<(&'static str, &'static str)> {
        if self.allow_subscribe_for_anonymous && !self.allow_subscribe_for_client {
            return Some(("allow_subscribe_for_anonymous", "allow_subscribe_for_client"));
        }
        if self.allow_publish_for_anonymous && !self.allow_publish_for_client && !self.allow_publish_for_subscriber {
            return Some(("allow_publish_for_anonymous", "allow_publish_for_client"));
        }
        if self.conflate_by_tag.is_some() && self.slow_client != SlowClient::Conflate {
            return Some(("conflate_by_tag", "slow_client"));
        }
        if self.allow_fossil_deltas != self.delta_publish {
            let (types, publish) = ("allowed_delta_types", "delta_publish");
            return Some(if self.delta_publish { (publish, types) } else { (types, publish) });
        }
        self.idle_presence_option().or_else(|| self.idle_history_option())
    }

    fn idle_presence_option(&self) -> Option<(&'static str, &'static str)> {
        let asks = self.allow_presence_for_client || self.allow_presence_for_subscriber;
        let rules = [
            (self.force_push_join_leave, self.join_leave, "force_push_join_leave", "join_leave"),
            (self.allow_presence_for_client, self.has_guests(), "allow_presence_for_client", "presence"),
            (self.allow_presence_for_subscriber, self.has_guests(), "allow_presence_for_subscriber", "presence"),
            (self.allow_presence_for_anonymous, asks, "allow_presence_for_anonymous", "allow_presence_for_client"),
        ];
        rules.into_iter().find_map(|(on, has, option, needs)| (on && !has).then_some((option, needs)))
    }

    fn idle_history_option(&self) -> Option<(&'static str, &'static str)> {
        let recovers = self.force_recovery || self.allow_recovery;
        let reads = self.allow_history_for_client || self.allow_history_for_subscriber;
        let has_history = self.history.is_some();
        let is_cache = self.recovery_mode == RecoveryMode::Cache;
        let rules = [
            (self.force_recovery, has_history, "force_recovery", "history_size"),
            (self.allow_recovery, has_history, "allow_recovery", "history_size"),
            (self.force_positioning, has_history, "force_positioning", "history_size"),
            (self.allow_positioning, has_history, "allow_positioning", "history_size"),
            (self.allow_history_for_client, has_history, "allow_history_for_client", "history_size"),
            (self.allow_history_for_subscriber, has_history, "allow_history_for_subscriber", "history_size"),
            (self.allow_history_for_anonymous, reads, "allow_history_for_anonymous", "allow_history_for_client"),
            (is_cache, recovers, "force_recovery_mode", "force_recovery"),
            (self.auto_cache_recover, is_cache && recovers, "auto_cache_recover", "force_recovery_mode"),
        ];
        rules.into_iter().find_map(|(on, has, option, needs)| (on && !has).then_some((option, needs)))
    }
}

/// One of the namespaces of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamespaceId(pub u16);

impl NamespaceId {
    /// The options of channels whose name has no boundary.
    pub const WITHOUT: NamespaceId = NamespaceId(0);
}

/// Why a configuration of namespaces is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NamespaceError {
    /// A name that no channel could carry: two or more of `-`, `_`, ASCII letters and digits are needed.
    Name(String),
    /// Two namespaces have this name.
    Duplicate(String),
    /// The options of channels without a namespace were given a name.
    NameWithout(String),
    /// An option that does nothing as long as another one is off.
    Idle {
        /// The namespace, empty for the channels without one.
        name: String,
        /// The option that is on.
        option: &'static str,
        /// The option that it needs.
        needs: &'static str,
    },
    /// More than [`NAMESPACES_MAX`].
    TooMany(usize),
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamespaceError::Name(name) => {
                write!(f, "namespace name {name:?} is not two or more of a-z, A-Z, 0-9, '-' and '_'")
            }
            NamespaceError::Duplicate(name) => write!(f, "two namespaces are called {name:?}"),
            NamespaceError::NameWithout(name) => {
                write!(f, "the options of channels without a namespace have no name, but got {name:?}")
            }
            NamespaceError::Idle { name, option, needs } => {
                write!(f, "namespace {name:?}: {option} does nothing without {needs}")
            }
            NamespaceError::TooMany(count) => write!(f, "{count} namespaces; at most {NAMESPACES_MAX} are possible"),
        }
    }
}

impl std::error::Error for NamespaceError {}

/// All namespaces of a process.
#[derive(Clone, Debug)]
pub struct Namespaces {
    without: Namespace,
    /// Sorted by name. A search in a sorted list needs no hash, hence no randomness.
    named: Vec<Namespace>,
    /// Channels of unknown namespaces have the options of `without`.
    accept_unknown: bool,
}

impl Namespaces {
    /// `without` are the options of channels whose name has no boundary; `named` those of the others.
    pub fn new(without: Namespace, named: Vec<Namespace>) -> Result<Namespaces, NamespaceError> {
        if !without.name.is_empty() {
            return Err(NamespaceError::NameWithout(without.name));
        }
        if named.len() >= NAMESPACES_MAX {
            return Err(NamespaceError::TooMany(named.len()));
        }
        let mut named = named;
        named.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(bad) = named.iter().find(|namespace| !is_valid_name(&namespace.name)) {
            return Err(NamespaceError::Name(bad.name.clone()));
        }
        if let Some(pair) = named.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(NamespaceError::Duplicate(pair[0].name.clone()));
        }
        for namespace in std::iter::once(&without).chain(&named) {
            if let Some((option, needs)) = namespace.idle_option() {
                return Err(NamespaceError::Idle { name: namespace.name.clone(), option, needs });
            }
        }
        Ok(Namespaces { without, named, accept_unknown: false })
    }

    /// Gives channels of unknown namespaces the options of channels without one, instead of refusing them. For trying
    /// things out: a misspelt namespace is then no error.
    #[must_use]
    pub fn accepting_unknown(self) -> Namespaces {
        Namespaces { accept_unknown: true, ..self }
    }

    /// The namespace of `channel`: the text before the first `:`, after one leading `$` if there is one. `None` when
    /// that is no namespace of ours.
    #[must_use]
    pub fn of(&self, channel: &str) -> Option<(NamespaceId, &Namespace)> {
        let public = channel.strip_prefix(PRIVATE_PREFIX).unwrap_or(channel);
        let Some((name, _)) = public.split_once(BOUNDARY) else {
            return Some((NamespaceId::WITHOUT, &self.without));
        };
        match self.named.binary_search_by(|namespace| namespace.name.as_str().cmp(name)) {
            Ok(at) => Some((NamespaceId(at as u16 + 1), &self.named[at])),
            Err(_) if self.accept_unknown => Some((NamespaceId::WITHOUT, &self.without)),
            Err(_) => None,
        }
    }

    /// The namespace that [`Namespaces::of`] named.
    ///
    /// # Panics
    ///
    /// When `id` is not from these namespaces.
    #[must_use]
    pub fn at(&self, id: NamespaceId) -> &Namespace {
        match id.0.checked_sub(1) {
            None => &self.without,
            Some(at) => &self.named[usize::from(at)],
        }
    }
}

/// Whether `channel` may be subscribed to only with a token that names it.
#[must_use]
pub fn is_private(channel: &str) -> bool {
    channel.starts_with(PRIVATE_PREFIX)
}

/// Whether a namespace may have this name: `[-a-zA-Z0-9_]{2,}`.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    name.len() >= 2 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn named(name: &str) -> Namespace {
        Namespace { name: name.into(), ..Namespace::default() }
    }

    fn name_of<'a>(namespaces: &'a Namespaces, channel: &str) -> Option<&'a str> {
        namespaces.of(channel).map(|(id, namespace)| {
            assert_eq!(namespaces.at(id), namespace, "an id leads back to its namespace");
            namespace.name.as_str()
        })
    }

    #[test]
    fn the_namespace_is_the_text_before_the_first_boundary_after_one_dollar() {
        let namespaces = Namespaces::new(named(""), vec![named("chat"), named("ch"), named("news")]).unwrap();
        for (channel, name) in [
            ("chat:1", Some("chat")),
            ("$chat:1", Some("chat")),
            ("ch:at:1", Some("ch")),
            ("chat:", Some("chat")),
            ("chat", Some("")),
            ("$chat", Some("")),
            ("#77", Some("")),
            ("", Some("")),
            ("$$chat:1", None),
            ("chats:1", None),
            ("Chat:1", None),
            (":chat", None),
            ("$:chat", None),
        ] {
            assert_eq!(name_of(&namespaces, channel), name, "{channel:?}");
        }
    }

    #[test]
    fn unknown_namespaces_are_refused_unless_asked_for() {
        let namespaces = Namespaces::new(named(""), vec![named("chat")]).unwrap();
        assert_eq!(name_of(&namespaces, "mine:1"), None);
        let namespaces = namespaces.accepting_unknown();
        assert_eq!(name_of(&namespaces, "mine:1"), Some(""));
        assert_eq!(name_of(&namespaces, "chat:1"), Some("chat"));
    }

    #[test]
    fn names_are_valid_by_one_rule() {
        for (name, valid) in [
            ("ab", true),
            ("a", false),
            ("", false),
            ("-_", true),
            ("-.", false),
            ("Z9", true),
            ("Z:", false),
            ("Z ", false),
            ("zu", true),
            ("zü", false),
        ] {
            assert_eq!(is_valid_name(name), valid, "{name:?}");
            let made = Namespaces::new(named(""), vec![named(name)]);
            assert_eq!(made.is_ok(), valid, "{name:?}");
        }
    }

    #[test]
    fn a_repeated_name_is_refused() {
        assert!(Namespaces::new(named(""), vec![named("ab"), named("aa")]).is_ok());
        let error = Namespaces::new(named(""), vec![named("ab"), named("aa"), named("ab")]).unwrap_err();
        assert_eq!(error, NamespaceError::Duplicate("ab".into()));
    }

    #[test]
    fn the_options_without_a_namespace_have_no_name() {
        assert_eq!(Namespaces::new(named("x"), vec![]).unwrap_err(), NamespaceError::NameWithout("x".into()));
        assert!(Namespaces::new(named(""), vec![]).is_ok());
    }

    #[test]
    fn more_namespaces_than_ids_are_refused() {
        let many = |count: usize| (0..count).map(|n| named(&format!("n{n}"))).collect::<Vec<_>>();
        let namespaces = Namespaces::new(named(""), many(NAMESPACES_MAX - 1)).unwrap();
        assert_eq!(name_of(&namespaces, "n65533:x"), Some("n65533"));
        let error = Namespaces::new(named(""), many(NAMESPACES_MAX)).unwrap_err();
        assert_eq!(error, NamespaceError::TooMany(NAMESPACES_MAX));
    }

    #[test]
    fn an_option_without_effect_is_refused() {
        let idle = |change: fn(&mut Namespace)| {
            let mut namespace = named("chat");
            change(&mut namespace);
            match Namespaces::new(named(""), vec![namespace]) {
                Ok(_) => None,
                Err(NamespaceError::Idle { name, option, .. }) if name == "chat" => Some(option),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(idle(|n| n.allow_subscribe_for_anonymous = true), Some("allow_subscribe_for_anonymous"));
        assert_eq!(idle(|n| (n.allow_subscribe_for_anonymous, n.allow_subscribe_for_client) = (true, true)), None);
        assert_eq!(idle(|n| n.allow_publish_for_anonymous = true), Some("allow_publish_for_anonymous"));
        assert_eq!(idle(|n| (n.allow_publish_for_anonymous, n.allow_publish_for_client) = (true, true)), None);
        assert_eq!(idle(|n| (n.allow_publish_for_anonymous, n.allow_publish_for_subscriber) = (true, true)), None);
        assert_eq!(idle(|n| n.conflate_by_tag = Some("symbol".into())), Some("conflate_by_tag"));
        let conflates = |n: &mut Namespace| {
            (n.slow_client, n.conflate_by_tag) = (SlowClient::Conflate, Some("symbol".into()));
        };
        assert_eq!(idle(conflates), None);
        assert_eq!(idle(|n| n.allow_fossil_deltas = true), Some("allowed_delta_types"));
        assert_eq!(idle(|n| n.delta_publish = true), Some("delta_publish"));
        assert_eq!(idle(|n| (n.allow_fossil_deltas, n.delta_publish) = (true, true)), None);
    }

    /// Every combination of options and clients against the rules as sentences.
    #[test]
    fn permissions_follow_the_options() {
        for bits in 0..128_u8 {
            let on = |bit: u8| bits >> bit & 1 == 1;
            let namespace = Namespace {
                name: "chat".into(),
                allow_subscribe_for_client: on(0),
                allow_subscribe_for_anonymous: on(1),
                allow_publish_for_client: on(2),
                allow_publish_for_subscriber: on(3),
                allow_publish_for_anonymous: on(4),
                ..Namespace::default()
            };
            let (anonymous, subscribed) = (on(5), on(6));
            let subscribe = on(0) && (!anonymous || on(1));
            let publish = (on(2) || on(3) && subscribed) && (!anonymous || on(4));
            assert_eq!(namespace.may_subscribe(anonymous).is_ok(), subscribe, "{namespace:?} {anonymous}");
            assert_eq!(namespace.may_publish(anonymous, subscribed).is_ok(), publish, "{namespace:?} {anonymous}");
        }
    }

    #[test]
    fn options_of_the_history_need_a_history() {
        let kept = Retention { size: 1, ttl: Duration::from_secs(1), meta_ttl: Duration::from_secs(1) };
        let idle = |namespace: &Namespace| match Namespaces::new(named(""), vec![namespace.clone()]) {
            Ok(_) => None,
            Err(NamespaceError::Idle { option, .. }) => Some(option),
            Err(other) => panic!("{other}"),
        };
        type SwitchOn = fn(&mut Namespace);
        let options: [(&str, SwitchOn); 6] = [
            ("force_recovery", |n| n.force_recovery = true),
            ("allow_recovery", |n| n.allow_recovery = true),
            ("force_positioning", |n| n.force_positioning = true),
            ("allow_positioning", |n| n.allow_positioning = true),
            ("allow_history_for_client", |n| n.allow_history_for_client = true),
            ("allow_history_for_subscriber", |n| n.allow_history_for_subscriber = true),
        ];
        for (option, switch_on) in options {
            let mut namespace = named("chat");
            switch_on(&mut namespace);
            assert_eq!(idle(&namespace), Some(option));
            namespace.history = Some(kept);
            assert_eq!(idle(&namespace), None, "{option} with a history");
        }
        let mut namespace = Namespace { history: Some(kept), auto_cache_recover: true, ..named("chat") };
        assert_eq!(idle(&namespace), Some("auto_cache_recover"));
        namespace.recovery_mode = RecoveryMode::Cache;
        assert_eq!(idle(&namespace), Some("force_recovery_mode"));
        namespace.allow_recovery = true;
        assert_eq!(idle(&namespace), None);
        namespace.allow_history_for_anonymous = true;
        assert_eq!(idle(&namespace), Some("allow_history_for_anonymous"));
        namespace.allow_history_for_subscriber = true;
        assert_eq!(idle(&namespace), None);
    }

    #[test]
    fn histories_are_read_by_whom_the_options_name() {
        for bits in 0..32_u8 {
            let on = |bit: u8| bits >> bit & 1 == 1;
            let namespace = Namespace {
                allow_history_for_client: on(0),
                allow_history_for_subscriber: on(1),
                allow_history_for_anonymous: on(2),
                ..named("chat")
            };
            let (anonymous, subscribed) = (on(3), on(4));
            let may = (on(0) || on(1) && subscribed) && (!anonymous || on(2));
            assert_eq!(namespace.may_read_history(anonymous, subscribed).is_ok(), may, "{namespace:?}");
        }
    }

    #[test]
    fn a_refused_client_is_told_the_option_that_it_lacks() {
        let mut namespace = named("chat");
        assert_eq!(namespace.may_subscribe(true), Err(Lacks("allow_subscribe_for_client")));
        namespace.allow_subscribe_for_client = true;
        assert_eq!(namespace.may_subscribe(true), Err(Lacks("allow_subscribe_for_anonymous")));
        assert_eq!(namespace.may_subscribe(false), Ok(()));
        assert_eq!(namespace.may_publish(true, true), Err(Lacks("allow_publish_for_client")));
        namespace.allow_publish_for_subscriber = true;
        assert_eq!(namespace.may_publish(true, true), Err(Lacks("allow_publish_for_anonymous")));
        assert_eq!(namespace.may_publish(false, true), Ok(()));
    }

    #[test]
    fn users_in_a_name_limit_a_channel_where_the_option_says_so() {
        let limited = Namespace { allow_user_limited_channels: true, ..named("chat") };
        let users = |channel| limited.allowed_users(channel).map(|users| users.collect::<Vec<_>>());
        assert_eq!(users("chat:dialog#42,43"), Some(vec!["42", "43"]));
        assert_eq!(users("chat:a#b#42"), Some(vec!["42"]));
        assert_eq!(users("chat:#"), Some(vec![""]));
        assert_eq!(users("chat:dialog"), None);
        assert!(named("chat").allowed_users("chat:dialog#42").is_none());
    }

    #[test]
    fn one_dollar_in_front_makes_a_channel_private() {
        assert!(is_private("$chat:1"));
        assert!(!is_private("chat:$1"));
    }
}
