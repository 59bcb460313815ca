//! `[channels]` and `[[namespaces]]`: what clients may do in channels, and what is kept of these.

use super::values::{Time, choice, whole};
use serde::{Deserialize, Serialize};

choice! {
    /// A way to send what has changed instead of all.
    DeltaType {
        /// Fossil's.
        #[default]
        Fossil = "fossil",
    }
}

choice! {
    /// What a recovery brings.
    RecoveryMode {
        /// Every publication that was missed.
        #[default]
        Stream = "stream",
        /// The newest publication.
        Cache = "cache",
    }
}

choice! {
    /// What happens to publications for a client that does not read as fast as they come.
    SlowClient {
        /// It is disconnected once its outbox is full.
        #[default]
        Disconnect = "disconnect",
        /// Once its outbox is full the oldest waiting publications are left out.
        DropOldest = "drop_oldest",
        /// Once its outbox is above high water only the newest waiting publication of each channel is kept.
        Conflate = "conflate",
    }
}

/// What clients may do in a set of channels, and what is kept of these. Nothing by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelOptions {
    /// Clients may subscribe.
    pub allow_subscribe_for_client: bool,
    /// Clients without a user may subscribe where other clients may.
    pub allow_subscribe_for_anonymous: bool,
    /// Channels may be for the users alone that stand in their names.
    pub allow_user_limited_channels: bool,
    /// Clients may publish.
    pub allow_publish_for_client: bool,
    /// Clients without a user may publish where other clients may.
    pub allow_publish_for_anonymous: bool,
    /// Clients may publish to channels that they are subscribed to.
    pub allow_publish_for_subscriber: bool,
    /// Publications kept of each channel; 0 is no history.
    #[serde(deserialize_with = "whole")]
    pub history_size: u32,
    /// How long a publication is kept; zero is no history.
    pub history_ttl: Time,
    /// How long a channel without subscribers remembers its position.
    pub history_meta_ttl: Time,
    /// Every subscription recovers.
    pub force_recovery: bool,
    /// Subscriptions that ask for it recover.
    pub allow_recovery: bool,
    /// What a recovery brings.
    pub force_recovery_mode: RecoveryMode,
    /// In cache mode every subscription begins with the newest publication.
    pub auto_cache_recover: bool,
    /// Every subscription is told when it misses something.
    pub force_positioning: bool,
    /// Subscriptions that ask for it are told when they miss something.
    pub allow_positioning: bool,
    /// Clients may read the history.
    pub allow_history_for_client: bool,
    /// Clients may read the history of channels that they are subscribed to.
    pub allow_history_for_subscriber: bool,
    /// Clients without a user may read the history where other clients may.
    pub allow_history_for_anonymous: bool,
    /// Who is subscribed is known, and may be asked for.
    pub presence: bool,
    /// Subscribers may be told who comes and goes.
    pub join_leave: bool,
    /// Every subscriber is told who comes and goes.
    pub force_push_join_leave: bool,
    /// Clients may ask who is present.
    pub allow_presence_for_client: bool,
    /// Clients may ask who is present in channels that they are subscribed to.
    pub allow_presence_for_subscriber: bool,
    /// Clients without a user may ask where other clients may.
    pub allow_presence_for_anonymous: bool,
    /// What happens when a client reads too slowly.
    pub slow_client: SlowClient,
    /// The tag whose values are conflated each for itself; empty for none.
    pub conflate_by_tag: String,
    /// What subscribers may ask for instead of whole payloads.
    pub allowed_delta_types: Vec<DeltaType>,
    /// Publications are sent as patches to those who asked for it.
    pub delta_publish: bool,
    /// Publications are compressed for those who agreed to that.
    pub compress: bool,
    /// The backend is asked whether a client without a token may subscribe.
    pub subscribe_proxy_enabled: bool,
    /// The backend is asked whether a client may publish, and what.
    pub publish_proxy_enabled: bool,
    /// The backend is asked whether a client may stay subscribed.
    pub sub_refresh_proxy_enabled: bool,
    /// The backend is told when the first subscriber has come and when the last one has gone.
    pub channel_notices: bool,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            allow_subscribe_for_client: false,
            allow_subscribe_for_anonymous: false,
            allow_user_limited_channels: false,
            allow_publish_for_client: false,
            allow_publish_for_anonymous: false,
            allow_publish_for_subscriber: false,
            history_size: 0,
            history_ttl: Time::ZERO,
            history_meta_ttl: Time::secs(720 * 3600),
            force_recovery: false,
            allow_recovery: false,
            force_recovery_mode: RecoveryMode::Stream,
            auto_cache_recover: false,
            force_positioning: false,
            allow_positioning: false,
            allow_history_for_client: false,
            allow_history_for_subscriber: false,
            allow_history_for_anonymous: false,
            presence: false,
            join_leave: false,
            force_push_join_leave: false,
            allow_presence_for_client: false,
            allow_presence_for_subscriber: false,
            allow_presence_for_anonymous: false,
            slow_client: SlowClient::Disconnect,
            conflate_by_tag: String::new(),
            allowed_delta_types: Vec::new(),
            delta_publish: false,
            compress: true,
            subscribe_proxy_enabled: false,
            publish_proxy_enabled: false,
            sub_refresh_proxy_enabled: false,
            channel_notices: false,
        }
    }
}

impl ChannelOptions {
    /// What is kept of each channel, if anything.
    pub fn retention(&self) -> Option<hub::Retention> {
        let retention = hub::Retention {
            size: self.history_size,
            ttl: self.history_ttl.get(),
            meta_ttl: self.history_meta_ttl.get(),
        };
        (self.history_size > 0 && self.history_ttl > Time::ZERO).then_some(retention)
    }
}

/// One of `[[namespaces]]`: the options of the channels whose name starts with `name:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// Two or more of `-`, `_`, ASCII letters and digits.
    pub name: String,
    /// What clients may do there.
    #[serde(flatten)]
    pub options: ChannelOptions,
}
