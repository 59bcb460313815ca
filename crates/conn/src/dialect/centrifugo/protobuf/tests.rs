//! What is read and written here against what `prost` reads and writes.

use super::super::Format;
use super::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::json;
use std::collections::BTreeMap;

#[path = "../../../../tests/schema/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod schema;

fn one(mut message: &[u8]) -> Result<Command<'_>, Malformed> {
    let command = next_command(&mut message).expect("one command");
    assert!(command.is_err() || message.is_empty(), "{} bytes are left", message.len());
    command
}

/// What a command asks for, in words that can be compared. Headers are a map to `prost`, which sorts it and keeps the last of
/// two with one name.
fn told(mut command: Command<'_>) -> String {
    if let Request::Connect(connect) = &mut command.request {
        let headers: BTreeMap<_, _> = connect.headers.drain(..).collect();
        connect.headers = headers.into_iter().collect();
    }
    // What `Debug` does not show.
    let hidden = match &command.request {
        Request::Connect(connect) => format!("{:?} {:?}", &*connect.token, connect.headers),
        Request::Subscribe(Subscribe { token, .. })
        | Request::Refresh(Refresh { token })
        | Request::SubRefresh(SubRefresh { token, .. }) => token.to_string(),
        _ => String::new(),
    };
    format!("{command:?} {hidden}")
}

/// The same of what `prost` has read.
fn expected(read: &schema::Command) -> String {
    let borrowed = |text: &'_ str| Cow::<str>::Owned(text.to_owned());
    let request = if let Some(connect) = &read.connect {
        let channels = connect.subs.iter().map(|(channel, s)| {
            let position = Position { offset: s.offset, epoch: borrowed(&s.epoch) };
            Wanted { channel: borrowed(channel), recover: s.recover.then_some(position) }
        });
        let headers = connect.headers.iter().map(|(name, value)| (borrowed(name), borrowed(value)));
        Request::Connect(Connect {
            token: borrowed(&connect.token).into(),
            channels: channels.collect(),
            data: one_line(&connect.data),
            name: borrowed(&connect.name),
            version: borrowed(&connect.version),
            headers: headers.collect(),
        })
    } else if let Some(s) = &read.subscribe {
        let (channel, token, delta) = (borrowed(&s.channel), borrowed(&s.token).into(), borrowed(&s.delta));
        let position = Position { offset: s.offset, epoch: borrowed(&s.epoch) };
        Request::Subscribe(Subscribe {
            channel,
            token,
            delta,
            filtered: s.tf.is_some(),
            kind: s.kind,
            recover: s.recover.then_some(position),
            recoverable: s.recoverable,
            positioned: s.positioned,
            join_leave: s.join_leave,
            reject_unrecovered: s.flag & 2 != 0,
            data: one_line(&s.data),
        })
    } else if let Some(unsubscribe) = &read.unsubscribe {
        Request::Unsubscribe { channel: borrowed(&unsubscribe.channel) }
    } else if let Some(publish) = &read.publish {
        Request::Publish { channel: borrowed(&publish.channel), data: one_line(&publish.data) }
    } else if let Some(presence) = &read.presence {
        Request::Presence { channel: borrowed(&presence.channel) }
    } else if let Some(stats) = &read.presence_stats {
        Request::PresenceStats { channel: borrowed(&stats.channel) }
    } else if let Some(h) = &read.history {
        let since = h.since.as_ref().map(|s| Position { offset: s.offset, epoch: borrowed(&s.epoch) });
        Request::History(History { channel: borrowed(&h.channel), limit: h.limit, since, reverse: h.reverse })
    } else if let Some(rpc) = &read.rpc {
        Request::Rpc(Rpc { method: borrowed(&rpc.method), data: one_line(&rpc.data) })
    } else if read.send.is_some() {
        Request::Send
    } else if let Some(refresh) = &read.refresh {
        Request::Refresh(Refresh { token: borrowed(&refresh.token).into() })
    } else if let Some(refresh) = &read.sub_refresh {
        Request::SubRefresh(SubRefresh { channel: borrowed(&refresh.channel), token: borrowed(&refresh.token).into() })
    } else if read.ping.is_none() && read.id == 0 {
        Request::Pong
    } else {
        Request::Unknown
    };
    told(Command { id: read.id, request })
}

fn channel() -> impl Strategy<Value = Option<schema::Channel>> {
    prop::option::weighted(0.2, ".{0,5}".prop_map(|channel| schema::Channel { channel }))
}

fn history_request() -> impl Strategy<Value = Option<schema::HistoryRequest>> {
    let since = prop::option::of((any::<u64>(), ".{0,9}"));
    let history = (".{0,5}", any::<i32>(), since, any::<bool>()).prop_map(|(channel, limit, since, reverse)| {
        let since = since.map(|(offset, epoch)| schema::StreamPosition { offset, epoch });
        schema::HistoryRequest { channel, limit, since, reverse }
    });
    prop::option::weighted(0.3, history)
}

fn subscribe() -> impl Strategy<Value = schema::SubscribeRequest> {
    let words = (".{0,9}", ".{0,9}", ".{0,9}", prop_oneof![Just(""), Just("fossil"), Just("other")]);
    (words, any::<[bool; 4]>(), any::<u64>(), any::<i64>(), any::<i32>(), any::<bool>(), payload()).prop_map(
        |((channel, token, epoch, delta), switches, offset, flag, kind, filtered, data)| schema::SubscribeRequest {
            channel,
            token,
            epoch,
            delta: delta.to_owned(),
            recover: switches[0],
            positioned: switches[1],
            recoverable: switches[2],
            join_leave: switches[3],
            offset,
            flag,
            kind,
            tf: filtered.then(schema::Empty::default),
            data,
        },
    )
}

/// With channels that the client knows already.
fn connect() -> impl Strategy<Value = schema::ConnectRequest> {
    let sub = (any::<bool>(), ".{0,9}", any::<u64>()).prop_map(|(recover, epoch, offset)| schema::SubscribeRequest {
        recover,
        epoch,
        offset,
        ..Default::default()
    });
    let texts = (".{0,200}", payload(), ".{0,9}", ".{0,9}");
    (texts, btree_map(".{0,9}", sub, 0..3), btree_map(".{0,9}", ".{0,9}", 0..3)).prop_map(
        |((token, data, name, version), subs, headers)| schema::ConnectRequest {
            token,
            data,
            subs,
            name,
            version,
            headers,
        },
    )
}

/// JSON where luck wants it.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..20), "[\\[\\]{}\",: \n\r1a]{0,12}".prop_map(String::into_bytes)]
}

fn publish() -> impl Strategy<Value = schema::PublishRequest> {
    (".{0,9}", payload()).prop_map(|(channel, data)| schema::PublishRequest { channel, data })
}

prop_compose! {
    /// Any command, with several requests where luck wants it.
    fn any_command()(
        id in prop_oneof![Just(0), 1..9u32, any::<u32>()],
        connect in prop::option::weighted(0.2, connect()),
        refresh in prop::option::weighted(0.3, ".{0,20}"),
        sub_refresh in prop::option::weighted(0.3, (".{0,9}", ".{0,20}")),
        subscribe in prop::option::weighted(0.4, subscribe()),
        publish in prop::option::weighted(0.4, publish()),
        channels in [channel(), channel(), channel()],
        history in history_request(),
        rpc in prop::option::weighted(0.4, (payload(), ".{0,9}")),
        rest in any::<[bool; 2]>(),
    ) -> schema::Command {
        let [unsubscribe, presence, presence_stats] = channels;
        schema::Command {
            id,
            connect,
            subscribe,
            unsubscribe,
            publish,
            presence,
            presence_stats,
            history,
            ping: rest[0].then(schema::Empty::default),
            send: rest[1].then(schema::Data::default),
            rpc: rpc.map(|(data, method)| schema::RpcRequest { data, method }),
            refresh: refresh.map(|token| schema::ConnectRequest { token, ..Default::default() }),
            sub_refresh: sub_refresh.map(|(channel, token)| schema::SubRefreshRequest { channel, token }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_command_is_read_as_prost_reads_it(written in any_command()) {
        let message = written.encode_length_delimited_to_vec();
        prop_assert_eq!(told(one(&message).expect("well formed")), expected(&written));
    }

    #[test]
    fn a_command_cut_anywhere_is_malformed_and_whole_it_is_not(written in any_command()) {
        let message = written.encode_length_delimited_to_vec();
        for end in 1..message.len() {
            prop_assert!(one(&message[..end]).is_err(), "cut to {} of {} bytes", end, message.len());
        }
        prop_assert!(one(&message).is_ok());
    }

    /// Whatever is accepted means the same to both. What only one accepts is bytes that nobody sends: groups, and bad texts
    /// in fields that are not looked at here.
    #[test]
    fn commands_with_damage_are_read_as_prost_reads_them_or_not_at_all(
        written in any_command(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = written.encode_to_vec();
        for (at, byte) in edits {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        if let (Ok(ours), Ok(theirs)) = (command(&body), schema::Command::decode(&body[..])) {
            prop_assert_eq!(told(ours), expected(&theirs));
        }
    }

    #[test]
    fn arbitrary_bytes_are_commands_or_malformed_and_every_step_gets_further(bytes in vec(any::<u8>(), 0..200)) {
        let mut rest = &bytes[..];
        loop {
            let before = rest.len();
            match next_command(&mut rest) {
                None => break prop_assert!(rest.is_empty()),
                Some(Err(Malformed)) => break,
                Some(Ok(_)) => prop_assert!(rest.len() < before),
            }
        }
    }

    #[test]
    fn a_publication_is_written_as_prost_reads_it(
        name in "[ -~]{1,40}",
        text in ".{0,300}",
        info in prop::option::of((".{0,5}", ".{1,36}", prop::option::of(0..1000u32), prop::option::of(0..1000u32))),
        tags in btree_map(".{0,5}", ".{0,150}", 0..4),
    ) {
        let mut push = json!({"channel": &name, "pub": {"data": &text}});
        let mut draft = hub::Draft::new(hub::Channel::new(&name), json!(text).to_string().into_bytes());
        if let Some((user, client, conn, chan)) = info {
            push["pub"]["info"] = json!({"user": user, "client": client});
            let fields = &mut push["pub"]["info"];
            if let Some(conn) = conn { fields["conn_info"] = json!([conn]); }
            if let Some(chan) = chan { fields["chan_info"] = json!([chan]); }
            let raw = |number: Option<u32>| number.map(|n| format!("[{n}]").into_bytes().into());
            let info =
                ClientInfo { user: user.into(), client: client.into(), conn_info: raw(conn), chan_info: raw(chan) };
            draft.info = Some(Box::new(info));
        }
        if !tags.is_empty() {
            push["pub"]["tags"] = json!(tags);
            draft.tags = Some(Box::new(tags));
        }
        let mut out = Vec::new();
        let publication = numbered(draft);
        super::publication(&mut out, &publication, Payload::Whole);
        super::publication(&mut out, &publication, Payload::Text);
        // A patch is no JSON; this one is, for what reads it.
        super::publication(&mut out, &publication, Payload::Patch("\"patch\""));
        let mut patched = push.clone();
        (patched["pub"]["data"], patched["pub"]["delta"]) = (json!("patch"), json!(true));
        let expected = [json!({"push": &push}), json!({"push": &push}), json!({"push": patched})];
        prop_assert_eq!(schema::replies(&out).expect("Protobuf"), expected);
    }
}

fn numbered(draft: hub::Draft) -> Publication {
    let position = hub::Position { offset: hub::Offset(1), epoch: hub::Epoch::from_seed(1) };
    let hub::Draft { channel, data, info, tags, options: _ } = draft;
    Publication { channel, data, info, tags, position, time: None }
}

/// Two publications of a history, the second long enough that its length takes two bytes.
fn kept() -> Vec<Arc<Publication>> {
    let datas = [b"1".to_vec(), format!("\"{}\"", "x".repeat(200)).into_bytes()];
    let draft = |data: Vec<u8>| numbered(hub::Draft::new(hub::Channel::new("c"), data));
    let kept = datas.into_iter().map(draft).zip(1..).map(|(mut publication, offset)| {
        publication.position.offset = hub::Offset(offset);
        publication.time = std::num::NonZeroU64::new(1_700_000_000_000 + offset);
        Arc::new(publication)
    });
    kept.collect()
}

fn told_of_kept() -> serde_json::Value {
    let long = "x".repeat(200);
    json!([
        {"data": 1, "offset": 1, "time": 1_700_000_000_001_u64},
        {"data": long, "offset": 2, "time": 1_700_000_000_002_u64},
    ])
}

#[test]
fn what_was_missed_goes_into_its_place_in_the_reply() {
    let position = hub::Position { offset: hub::Offset(0), epoch: hub::Epoch::from_seed(1) };
    let mut result = SubscribeResult { recoverable: true, positioned: true, ..SubscribeResult::default() };
    result.position = Some(position);
    let epoch = position.epoch.to_string();
    let mut out = Vec::new();
    subscribed(&mut out, 2, &result);
    subscribed(&mut out, 3, &SubscribeResult::default());
    assert_eq!(
        schema::replies(&out).expect("Protobuf"),
        [
            json!({"id": 2, "subscribe": {"recoverable": true, "positioned": true, "epoch": epoch}}),
            json!({"id": 3, "subscribe": {}}),
        ]
    );

    (result.was_recovering, result.recovered) = (true, true);
    for publications in [kept(), Vec::new()] {
        let mut body = Vec::new();
        missed(&mut body, &publications);
        let mut out = b"\0".to_vec();
        let at = recovered(&mut out, 4, &result, body.len());
        let whole = [&out[1..at], &body, &out[at..]].concat();
        let mut reply = json!({"id": 4, "subscribe": {
            "recoverable": true, "positioned": true, "epoch": epoch, "was_recovering": true, "recovered": true,
        }});
        if !publications.is_empty() {
            reply["subscribe"]["publications"] = told_of_kept();
        }
        assert_eq!(schema::replies(&whole).expect("Protobuf"), [reply]);
    }
}

#[test]
fn a_page_of_history_and_the_end_of_a_subscription_are_written_as_prost_reads_them() {
    let position = hub::Position { offset: hub::Offset(2), epoch: hub::Epoch::from_seed(1) };
    let epoch = position.epoch.to_string();
    let mut out = Vec::new();
    history(&mut out, 5, &HistoryPage { publications: kept(), position });
    history(&mut out, 6, &HistoryPage { publications: Vec::new(), position });
    unsubscribed(&mut out, "c", Unsubscribed::INSUFFICIENT_STATE);
    assert_eq!(
        schema::replies(&out).expect("Protobuf"),
        [
            json!({"id": 5, "history": {"publications": told_of_kept(), "epoch": epoch, "offset": 2}}),
            json!({"id": 6, "history": {"publications": [], "epoch": epoch, "offset": 2}}),
            json!({"push": {"channel": "c", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}}),
        ]
    );
}

#[test]
fn who_is_present_and_who_comes_and_goes_is_written_as_prost_reads_it() {
    let info = |user: &str, client: &str, conn_info: Option<&[u8]>| {
        let (user, client, conn_info) = (user.into(), client.into(), conn_info.map(Into::into));
        Arc::new(ClientInfo { user, client, conn_info, chan_info: None })
    };
    let clients = vec![info("", "c1", None), info("77", "c2", Some(b"{\"n\":1}"))];
    let announcement = |change| Announcement { channel: hub::Channel::new("c"), change, info: clients[1].clone() };
    let stats = |clients, users| Presence::Stats(hub::PresenceStats { clients, users });
    let told = json!({"user": "77", "client": "c2", "conn_info": {"n": 1}});
    for format in [Format::Json, Format::Protobuf] {
        let mut messages = vec![Vec::new(); 5];
        format.presence(&mut messages[0], 5, &Presence::Clients(clients.clone()));
        format.presence(&mut messages[1], 6, &stats(3, 2));
        format.presence(&mut messages[2], 7, &stats(0, 0));
        format.announcement(&mut messages[3], &announcement(Change::Join));
        format.announcement(&mut messages[4], &announcement(Change::Leave));
        let told_in = match format {
            Format::Json => messages.iter().map(|m| serde_json::from_slice(m).expect("JSON")).collect(),
            Format::Protobuf => schema::replies(&messages.concat()).expect("Protobuf"),
        };
        assert_eq!(
            told_in,
            [
                json!({"id": 5, "presence": {"presence": {"c1": {"user": "", "client": "c1"}, "c2": told}}}),
                json!({"id": 6, "presence_stats": {"num_clients": 3, "num_users": 2}}),
                json!({"id": 7, "presence_stats": {"num_clients": 0, "num_users": 0}}),
                json!({"push": {"channel": "c", "join": {"info": told}}}),
                json!({"push": {"channel": "c", "leave": {"info": told}}}),
            ],
            "{format:?}"
        );
    }
}

#[test]
fn replies_are_written_as_prost_reads_them() {
    let client = crate::ids::IdSource::new([1; 16], 0).next_client();
    let mut out = Vec::new();
    connected(
        &mut out,
        1,
        &ConnectResult { client, version: "tidegate 1", ttl: None, ping_seconds: Some(25), data: Some(b"[1]") },
        &[],
    );
    connected(
        &mut out,
        u32::MAX,
        &ConnectResult { client, version: "v", ttl: None, ping_seconds: None, data: None },
        &[],
    );
    done(&mut out, 3, Done::Unsubscribe);
    done(&mut out, 4, Done::Publish);
    error(&mut out, 5, &ClientError::INTERNAL);
    error(&mut out, 6, &ClientError::PERMISSION_DENIED);
    called(&mut out, 7, Some(b"{\"a\":1}"));
    called(&mut out, 8, None);
    out.extend_from_slice(PING);
    let client = client.to_string();
    let expected = [
        json!({"id": 1, "connect": {"client": client, "version": "tidegate 1", "ping": 25, "pong": true, "data": [1]}}),
        json!({"id": u32::MAX, "connect": {"client": client, "version": "v"}}),
        json!({"id": 3, "unsubscribe": {}}),
        json!({"id": 4, "publish": {}}),
        json!({"id": 5, "error": {"code": 100, "message": "internal server error", "temporary": true}}),
        json!({"id": 6, "error": {"code": 103, "message": "permission denied"}}),
        json!({"id": 7, "rpc": {"data": {"a": 1}}}),
        json!({"id": 8, "rpc": {}}),
        json!({}),
    ];
    assert_eq!(schema::replies(&out).expect("Protobuf"), expected);
}

#[test]
fn several_commands_in_one_message_are_split_and_the_empty_one_is_a_pong() {
    let message = schema::commands("{\"id\":1,\"connect\":{}}\n{}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}");
    let mut rest = &message[..];
    let told: Vec<String> =
        std::iter::from_fn(|| next_command(&mut rest)).map(|command| told(command.expect("well formed"))).collect();
    assert_eq!(told.len(), 3);
    assert!(told[1].contains("Pong"), "{told:?}");
    assert!(matches!(one(PING).expect("a pong").request, Request::Pong));
}

#[test]
fn a_payload_is_json_on_one_line_or_nothing() {
    for (data, line) in [
        ("{\n  \"a\": [1,\r\n 2]\n}", "{  \"a\": [1, 2]}"),
        ("\n1\n", "1"),
        ("\"a\\nb\"", "\"a\\nb\""),
        ("null", "null"),
        ("{\"x\" : 1.0}", "{\"x\" : 1.0}"),
        // No JSON, each with a byte more or less than a good one.
        ("", ""),
        ("1 1", ""),
        ("\"a\nb\"", ""),
        ("{\"a\":}", ""),
        ("[1,2", ""),
    ] {
        assert_eq!(one_line(data.as_bytes()), line, "{data:?}");
    }
    assert_eq!(one_line(b"\"\xff\""), "", "not UTF-8");
    assert_eq!(one_line("\"ÿ\"".as_bytes()), "\"ÿ\"");
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert_eq!(one_line(&deep).len(), deep.len(), "depth costs no stack");
}
