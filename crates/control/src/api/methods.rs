//! The methods: checked requests in, letters to the workers, replies out.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub::{Channel, ClientInfo, Draft, HistoryPage, Presence, PresenceQuery, Publication};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::error::{ApiError, Code};
use super::request;
use super::request::{
    Channels, Connections, Content, Disconnect, History, HistoryRemove, Info, Publish, Refresh, Subscribe, Unsubscribe,
};
use super::{Api, Envelope};
use crate::backend::{Backend, BackendError, ClientAction, Clients, ConnectionInfo, NodeInfo};
use crate::limits;
use crate::metrics::Method;

/// What stands in `result`.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Reply {
    /// Done, nothing to tell. Also `publish` on a channel without history: an offset that is forgotten with the last
    /// subscriber must not be taken for a position.
    Done {},
    /// The place of a publication that is part of a history.
    Published {
        offset: u64,
        epoch: String,
    },
    History {
        #[serde(serialize_with = "recorded")]
        publications: Vec<Arc<Publication>>,
        offset: u64,
        epoch: String,
    },
    Presence {
        #[serde(serialize_with = "present")]
        presence: Vec<Arc<ClientInfo>>,
    },
    PresenceStats {
        num_clients: u32,
        num_users: u32,
    },
    Broadcast {
        #[serde(serialize_with = "envelopes")]
        responses: Vec<Result<Reply, ApiError>>,
    },
    /// Each is `{"publish":{…}}` or `{"error":{…}}`.
    Batch {
        replies: Vec<Box<RawValue>>,
    },
    Channels {
        #[serde(serialize_with = "listing")]
        channels: Vec<(Channel, u32)>,
    },
    Connections {
        #[serde(serialize_with = "by_client")]
        connections: Vec<ConnectionInfo>,
    },
    Info {
        nodes: [NodeInfo; 1],
    },
}

fn envelopes<S: Serializer>(responses: &[Result<Reply, ApiError>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(responses.iter().map(Envelope::of))
}

fn recorded<S: Serializer>(publications: &[Arc<Publication>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(publications.iter().map(|publication| Recorded::of(publication)))
}

/// By client id. Two infos of one id cannot be, each connection has its own.
fn present<S: Serializer>(clients: &[Arc<ClientInfo>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(clients.iter().map(|info| (&info.client, Client::of(info))))
}

/// A publication of a history.
#[derive(Serialize)]
struct Recorded<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    /// Data that is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Client<'a>>,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a hub::Tags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
}

/// A client, as others see it.
#[derive(Serialize)]
struct Client<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a RawValue>,
}

fn json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

impl<'a> Client<'a> {
    fn of(info: &'a ClientInfo) -> Client<'a> {
        Client {
            user: &info.user,
            client: &info.client,
            conn_info: info.conn_info.as_deref().and_then(json),
            chan_info: info.chan_info.as_deref().and_then(json),
        }
    }
}

impl<'a> Recorded<'a> {
    fn of(publication: &'a Publication) -> Recorded<'a> {
        let data = json(&publication.data);
        Recorded {
            data,
            b64data: data.is_none().then(|| STANDARD.encode(&publication.data)),
            info: publication.info.as_deref().map(Client::of),
            offset: publication.position.offset.0,
            tags: publication.tags.as_deref(),
            time: publication.time.map(std::num::NonZeroU64::get),
        }
    }
}

#[derive(Serialize)]
struct Listed {
    num_clients: u32,
}

fn listing<S: Serializer>(channels: &[(Channel, u32)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(channels.len()))?;
    for (channel, num_clients) in channels {
        map.serialize_entry::<str, _>(channel, &Listed { num_clients: *num_clients })?;
    }
    map.end()
}

/// A connection, without its client id.
#[derive(Serialize)]
struct Connected<'a> {
    user: &'a str,
    transport: &'static str,
    protocol: &'static str,
    state: State<'a>,
}

#[derive(Serialize)]
struct State<'a> {
    #[serde(serialize_with = "channel_names")]
    channels: &'a [Channel],
}

fn by_client<S: Serializer>(connections: &[ConnectionInfo], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(connections.iter().map(|one| {
        let ConnectionInfo { client, user, transport, protocol, channels } = one;
        (client, Connected { user, transport, protocol, state: State { channels } })
    }))
}

fn channel_names<S: Serializer>(channels: &[Channel], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Nothing {}
    serializer.collect_map(channels.iter().map(|channel| (&**channel, Nothing {})))
}

/// Runs `method`; the outer error says that `params` is not JSON of its shape.
pub(crate) async fn run<B: Backend>(
    api: &Arc<Api<B>>,
    method: Method,
    params: &[u8],
) -> Result<Result<Reply, ApiError>, serde_json::Error> {
    // Callers leave the body of the two questions out.
    let params = match method {
        Method::Info | Method::Channels if params.trim_ascii().is_empty() => b"{}",
        _ => params,
    };
    Ok(match method {
        Method::Publish => publish(api, serde_json::from_slice(params)?).await,
        Method::Broadcast => broadcast(api, serde_json::from_slice(params)?).await,
        Method::History => history(api, serde_json::from_slice(params)?).await,
        Method::HistoryRemove => history_remove(api, serde_json::from_slice(params)?).await,
        Method::Presence => presence(api, serde_json::from_slice(params)?, PresenceQuery::Clients).await,
        Method::PresenceStats => presence(api, serde_json::from_slice(params)?, PresenceQuery::Stats).await,
        Method::Channels => channels(api, serde_json::from_slice(params)?).await,
        Method::Connections => connections(api, serde_json::from_slice(params)?).await,
        Method::Disconnect => act(api, serde_json::from_slice::<Disconnect>(params)?.check()).await,
        Method::Refresh => act(api, serde_json::from_slice::<Refresh>(params)?.check()).await,
        Method::Batch => unreachable!("a batch is not one method"),
        Method::Subscribe => {
            let request: Subscribe<'_> = serde_json::from_slice(params)?;
            let channel = request.channel.as_deref().unwrap_or_default();
            let is_there = check_channel(api, channel);
            let keeps_history = keeps_history(api, channel);
            act(api, is_there.and_then(|()| request.check(&api.settings, keeps_history, unix_seconds()))).await
        }
        Method::Unsubscribe => {
            let request: Unsubscribe = serde_json::from_slice(params)?;
            let is_there = check_channel(api, request.channel.as_deref().unwrap_or_default());
            act(api, is_there.and_then(|()| request.check())).await
        }
        Method::Info => {
            let Info {} = serde_json::from_slice(params)?;
            Ok(Reply::Info { nodes: [api.backend.info()] })
        }
    })
}

async fn publish<B: Backend>(api: &Api<B>, mut request: Publish<'_>) -> Result<Reply, ApiError> {
    let channel = request.channel.take().unwrap_or_default();
    let content = request.content(&api.settings)?;
    check_channel(api, &channel)?;
    publish_one(api, &channel, content).await
}

async fn broadcast<B: Backend>(api: &Arc<Api<B>>, mut request: Publish<'_>) -> Result<Reply, ApiError> {
    let channels = request.channels.take().unwrap_or_default();
    if channels.is_empty() {
        return Err(ApiError::bad("channels", "`channels` is missing or empty"));
    }
    if channels.len() > limits::BROADCAST_CHANNELS_MAX {
        return Err(ApiError::bad(
            "channels",
            format!("{} `channels`, at most {}", channels.len(), limits::BROADCAST_CHANNELS_MAX),
        ));
    }
    let content = request.content(&api.settings)?;
    Ok(Reply::Broadcast { responses: broadcast_to(api, channels, content).await })
}

/// Publishes to all channels, a bounded number at once, and answers in the order asked.
async fn broadcast_to<B: Backend>(
    api: &Arc<Api<B>>,
    channels: Vec<String>,
    content: Content,
) -> Vec<Result<Reply, ApiError>> {
    let mut responses: Vec<Option<Result<Reply, ApiError>>> = Vec::new();
    responses.resize_with(channels.len(), || None);
    let mut in_flight = JoinSet::new();
    for (index, channel) in channels.into_iter().enumerate() {
        if let Err(error) = check_channel(api, &channel) {
            error.log(Method::Broadcast.name());
            responses[index] = Some(Err(error));
            continue;
        }
        if in_flight.len() == limits::BROADCAST_IN_FLIGHT_MAX {
            settle(&mut responses, in_flight.join_next().await);
        }
        let (api, content) = (Arc::clone(api), content.clone());
        in_flight.spawn(async move {
            let outcome = publish_one(&api, &channel, content).await;
            if let Err(error) = &outcome {
                error.log(Method::Broadcast.name());
            }
            (index, outcome)
        });
    }
    while let Some(joined) = in_flight.join_next().await {
        settle(&mut responses, Some(joined));
    }
    let ending = || Err(BackendError::ShuttingDown.into());
    responses.into_iter().map(|response| response.unwrap_or_else(ending)).collect()
}

type Joined = Result<(usize, Result<Reply, ApiError>), tokio::task::JoinError>;

fn settle(responses: &mut [Option<Result<Reply, ApiError>>], joined: Option<Joined>) {
    match joined {
        Some(Ok((index, outcome))) => responses[index] = Some(outcome),
        Some(Err(error)) => {
            // What is no panic was cancelled by the end of the runtime; its place stays open.
            if let Ok(panic) = error.try_into_panic() {
                std::panic::resume_unwind(panic);
            }
        }
        None => {}
    }
}

async fn publish_one<B: Backend>(api: &Api<B>, channel: &str, content: Content) -> Result<Reply, ApiError> {
    let Content { data, tags, options } = content;
    if options.as_ref().is_some_and(|options| options.version > 0) && !keeps_history(api, channel) {
        return Err(ApiError::not_available(
            "version",
            "`version` needs a channel with a history, without one an older version would be published too",
        ));
    }
    let draft = Draft { channel: Channel::new(channel), data, info: None, tags, options };
    let started = Instant::now();
    let outcome = within(api, api.backend.publish(draft)).await;
    api.metrics.publish_took(started.elapsed());
    match outcome {
        Ok(published) if published.recorded => {
            let (offset, epoch) = (published.position.offset.0, published.position.epoch.to_string());
            Ok(Reply::Published { offset, epoch })
        }
        Ok(_) => Ok(Reply::Done {}),
        Err(BackendError::UnknownChannel) => Err(unknown_channel(channel)),
        Err(error) => Err(error.into()),
    }
}

/// What a channel must be to be published to: a name of bounded ASCII in a namespace that exists.
fn check_channel<B: Backend>(api: &Api<B>, channel: &str) -> Result<(), ApiError> {
    let bytes_max = api.settings.channel_bytes_max;
    if channel.is_empty() {
        return Err(ApiError::bad("channel", "`channel` is missing or empty"));
    }
    if channel.len() > bytes_max {
        return Err(ApiError::bad(
            "api.channel_bytes_max",
            format!("`channel` has {} bytes, at most {bytes_max} are taken", channel.len()),
        ));
    }
    if !channel.is_ascii() {
        return Err(ApiError::bad("channel", "`channel` is not ASCII"));
    }
    match api.backend.namespaces().of(channel) {
        Some(_) => Ok(()),
        None => Err(unknown_channel(channel)),
    }
}

fn keeps_history<B: Backend>(api: &Api<B>, channel: &str) -> bool {
    api.backend.namespaces().of(channel).is_some_and(|(_, namespace)| namespace.history.is_some())
}

/// A channel that exists and keeps a history.
fn check_history<B: Backend>(api: &Api<B>, channel: &str) -> Result<Channel, ApiError> {
    check_channel(api, channel)?;
    if !keeps_history(api, channel) {
        return Err(BackendError::NoHistory.into());
    }
    Ok(Channel::new(channel))
}

async fn history<B: Backend>(api: &Api<B>, request: History) -> Result<Reply, ApiError> {
    let (channel, query) = request.check(&api.settings);
    let channel = check_history(api, &channel)?;
    let HistoryPage { publications, position } = within(api, api.backend.history(channel, query)).await?;
    Ok(Reply::History { publications, offset: position.offset.0, epoch: position.epoch.to_string() })
}

async fn history_remove<B: Backend>(api: &Api<B>, request: HistoryRemove) -> Result<Reply, ApiError> {
    let channel = check_history(api, &request.channel.unwrap_or_default())?;
    within(api, api.backend.remove_history(channel)).await?;
    Ok(Reply::Done {})
}

async fn presence<B: Backend>(
    api: &Api<B>,
    request: request::Presence,
    query: PresenceQuery,
) -> Result<Reply, ApiError> {
    let channel = request.channel.unwrap_or_default();
    check_channel(api, &channel)?;
    if !api.backend.namespaces().of(&channel).is_some_and(|(_, namespace)| namespace.presence) {
        return Err(BackendError::NoPresence.into());
    }
    Ok(match within(api, api.backend.presence(Channel::new(&channel), query)).await? {
        Presence::Clients(presence) => Reply::Presence { presence },
        Presence::Stats(stats) => Reply::PresenceStats { num_clients: stats.clients, num_users: stats.users },
    })
}

fn unknown_channel(channel: &str) -> ApiError {
    let hint = format!("channel {channel:?} names a namespace that is not configured");
    ApiError::new(Code::UnknownChannel, "namespaces", "").with_hint(hint)
}

async fn channels<B: Backend>(api: &Api<B>, request: Channels) -> Result<Reply, ApiError> {
    let pattern = request.check()?;
    // One more than is listed, to know whether that was all.
    let asked = api.backend.channels(pattern, limits::CHANNELS_LISTED_MAX + 1);
    let mut channels = within(api, asked).await?;
    if channels.len() > limits::CHANNELS_LISTED_MAX {
        return Err(ApiError::not_available(
            "pattern",
            format!("more than {} channels match, narrow `pattern`", limits::CHANNELS_LISTED_MAX),
        ));
    }
    channels.sort_unstable_by(|(a, _), (b, _)| str::cmp(a, b));
    Ok(Reply::Channels { channels })
}

async fn connections<B: Backend>(api: &Api<B>, request: Connections) -> Result<Reply, ApiError> {
    // One more than is listed, to know whether that was all.
    let asked = api.backend.connections(request.check()?, limits::CONNECTIONS_LISTED_MAX + 1);
    let mut connections = within(api, asked).await?;
    if connections.len() > limits::CONNECTIONS_LISTED_MAX {
        let max = limits::CONNECTIONS_LISTED_MAX;
        return Err(ApiError::not_available(
            "user",
            format!("more than {max} connections, name a `client` or `session`"),
        ));
    }
    connections.sort_unstable_by(|a, b| a.client.cmp(&b.client));
    connections.iter_mut().for_each(|one| one.channels.sort_unstable_by(|a, b| str::cmp(a, b)));
    Ok(Reply::Connections { connections })
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Does to some clients what was asked for, where that could be read.
async fn act<B: Backend>(api: &Api<B>, asked: Result<(Clients, ClientAction), ApiError>) -> Result<Reply, ApiError> {
    let (clients, action) = asked?;
    let count = within(api, api.backend.act(clients, action)).await?;
    tracing::debug!(target: "tidegate::api", count, "clients were disconnected, unsubscribed or refreshed");
    Ok(Reply::Done {})
}

/// The workers' answer, or [`BackendError::Timeout`].
async fn within<B: Backend, T>(
    api: &Api<B>,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(api.settings.backend_timeout, call).await.unwrap_or(Err(BackendError::Timeout))
}
