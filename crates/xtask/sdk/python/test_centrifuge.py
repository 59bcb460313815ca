"""The unmodified Python client `centrifuge-python` against a running gateway, in JSON and in Protobuf."""

import re
from pathlib import Path

import pytest
from centrifuge import DeltaType, ReplyError
from centrifuge.protocol import client_pb2

from coroutines import scenario
from support import API_KEY, Gateway, Inbox, connected, data, fence, fresh, payload, refusal, subscribe

either_format = pytest.mark.parametrize("form", ["json", "protobuf"])


def both(test):
    """On both gateways and in both formats."""
    return pytest.mark.parametrize("kind", ["dev", "strict"])(either_format(test))


@both
@scenario
async def test_every_client_receives_what_the_api_publishes_whole_and_in_order(kind, form):
    at = Gateway(kind, form)
    published = [
        {"text": "plain"},
        "só um texto — 文字 🌊 \u2028",
        {"deep": [1, -2.5e3, None, True, {'key with "quotes"': "\\ and \n and \0"}]},
        [],
        0,
        "x" * 40_000,
        *({"n": n} for n in range(100)),
    ]
    async with connected(at) as one, connected(at) as two:
        channel = fresh("news:")
        subscriptions = [await subscribe(client, channel) for client in (one, two)]
        for item in published:
            await at.publish(channel, item)
        for subscription in subscriptions:
            await subscription.seen.count(len(published), "publications")
        # Neither doubled nor followed by anything else.
        assert await fence(at, *subscriptions) == [published, published]


@both
@scenario
async def test_clients_of_another_channel_receive_nothing(kind, form):
    at = Gateway(kind, form)
    async with connected(at) as reader, connected(at) as stranger:
        news = await subscribe(reader, fresh("news:"))
        # One letter more than the channel that is published to.
        other = await subscribe(stranger, news.channel + "x")
        for n in range(20):
            await at.publish(news.channel, n)
        await news.seen.count(20, "publications")
        assert await fence(at, other) == [[]]
        assert data(news.seen) == list(range(20))


@both
@scenario
async def test_nothing_comes_after_unsubscribe_and_all_comes_again_after_a_new_subscribe(kind, form):
    at = Gateway(kind, form)
    async with connected(at) as client, connected(at) as witness:
        leaving = await subscribe(client, fresh("news:"))
        staying = await subscribe(witness, leaving.channel)
        marker = await subscribe(client, fresh("news:"))
        await at.publish(leaving.channel, "before")
        await leaving.seen.count(1, "publications")
        await leaving.unsubscribe()
        # The reply to a later command: the server has dealt with the unsubscribe when it is here.
        with pytest.raises(ReplyError):
            await client.rpc("fence", at.pack({}))
        await at.publish(leaving.channel, "after")
        await staying.seen.find(lambda publication: payload(publication) == "after", "publication for the witness")
        await fence(at, marker)
        assert data(leaving.seen) == ["before"]

        await leaving.subscribe()
        await leaving.ready(timeout=20)
        await at.publish(leaving.channel, "again")
        await leaving.seen.count(2, "publications")
        assert data(leaving.seen) == ["before", "again"]


@both
@scenario
async def test_what_a_client_publishes_reaches_the_others_and_itself_with_its_name_on_it(kind, form):
    at = Gateway(kind, form)
    async with connected(at) as author, connected(at) as reader:
        own = await subscribe(author, fresh("chat:"))
        theirs = await subscribe(reader, own.channel)
        _, name = await author.events.inbox.find(lambda state: state[0] == "connected", "connected")
        await own.publish(at.pack({"text": "hello"}))
        await author.publish(own.channel, at.pack({"text": "again"}))
        for subscription in (own, theirs):
            await subscription.seen.count(2, "publications")
            assert data(subscription.seen) == [{"text": "hello"}, {"text": "again"}]
            assert [publication.info.client for publication in subscription.seen.all] == [name, name]


@both
@scenario
async def test_a_client_sent_away_with_a_3xxx_code_below_3500_comes_back_and_goes_on(kind, form):
    at = Gateway(kind, form)
    async with connected(at) as client:
        news = await subscribe(client, fresh("news:"))
        states = client.events.inbox
        _, first = await states.find(lambda state: state[0] == "connected", "connected")
        sent_away = {"code": 3011, "reason": "force reconnect"}
        await at.call("disconnect", {"user": "", "client": first, "disconnect": sent_away})
        await states.find(lambda state: state == ("connecting", 3011), "disconnect with 3011")
        await states.find(lambda state: state[0] == "connected" and state[1] != first, "return")
        await news.ready(timeout=20)
        await at.publish(news.channel, "welcome back")
        await news.seen.find(lambda publication: payload(publication) == "welcome back", "publication after the return")


@both
@scenario
async def test_a_client_that_is_disconnected_for_good_stays_away(kind, form):
    at = Gateway(kind, form)
    async with connected(at) as client:
        states = client.events.inbox
        _, name = await states.find(lambda state: state[0] == "connected", "connected")
        await at.call("disconnect", {"user": "", "client": name})
        await states.find(lambda state: state == ("disconnected", 3503), "disconnect with 3503")


@scenario
async def test_a_wrong_or_missing_api_key_gets_401_and_delivers_nothing():
    at = Gateway("strict")
    async with connected(at) as client:
        news = await subscribe(client, fresh("news:"))
        for key in (None, "x", API_KEY[:-1], API_KEY + "x", API_KEY.upper()):
            status, body = await at.post("publish", {"channel": news.channel, "data": "forged"}, key)
            assert (status, body) == (401, b""), key
        # The right one delivers.
        assert await fence(at, news) == [[]]


@either_format
@scenario
async def test_refusals_reach_the_client_with_their_codes(form):
    at = Gateway("strict", form)
    async with connected(at) as client:
        assert await refusal(client, fresh("closed:")) == 103
        assert await refusal(client, fresh("plain")) == 103
        assert await refusal(client, fresh("nowhere:")) == 102
        news = await subscribe(client, fresh("news:"))
        for channel, code in ((news.channel, 103), (fresh("nowhere:"), 102)):
            with pytest.raises(ReplyError) as refused:
                await client.publish(channel, at.pack("x"))
            assert refused.value.code == code, channel
        for call in (news.history(limit=1), news.presence(), news.presence_stats(), client.rpc("anything", at.pack({}))):
            with pytest.raises(ReplyError) as refused:
                await call
            assert refused.value.code == 108
        assert await fence(at, news) == [[]]


@either_format
@scenario
async def test_a_subscription_with_deltas_is_sent_what_has_changed_and_has_the_whole_payloads(form):
    at = Gateway("strict", form)
    published = [{"place": "Übersee 🌊", "text": "só um texto — 文字 " * 20, "n": n, "odd": "é" * (n % 5)} for n in range(50)]
    # One that has nothing in common with its neighbours, and is sent whole.
    published[25:25] = [[n * n for n in range(50)]]
    async with connected(at) as client, connected(at) as latecomer:
        weather = await subscribe(client, fresh("delta:"), delta=DeltaType.FOSSIL)
        for item in published:
            await at.publish(weather.channel, item)
        await weather.seen.count(len(published), "publications")
        assert data(weather.seen) == published
        patches = [publication.delta for publication in weather.seen.all]
        assert patches == [n not in (0, 25, 26) for n in range(len(published))]
        # Whoever comes later begins with a whole one.
        late = await subscribe(latecomer, weather.channel, delta=DeltaType.FOSSIL)
        for item in published[:3]:
            await at.publish(weather.channel, item)
        await late.seen.count(3, "publications")
        assert data(late.seen) == published[:3]
        assert [publication.delta for publication in late.seen.all] == [False, True, True]


@either_format
@scenario
async def test_the_client_answers_pings_and_stays_connected(form):
    at = Gateway("strict", form)
    async with connected(at) as client:
        news = await subscribe(client, fresh("news:"))
        # The client has no event for a ping, so its handler is watched.
        pings, handle = Inbox(), client._handle_ping

        async def counted():
            await handle()
            pings.push("ping")

        client._handle_ping = counted
        await pings.count(4, "pings")
        assert await fence(at, news) == [[]]
        connections = [state for state in client.events.inbox.all if state[0] == "connected"]
        assert len(connections) == 1


def test_the_schema_has_the_numbers_of_the_client():
    """client.proto against the descriptors that the client brings along: every field of ours is one of theirs."""
    text = (Path(__file__).parents[3] / "conn/src/dialect/centrifugo/client.proto").read_text()
    theirs = {
        (message.name, field.name): field.number
        for message in client_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    ours = {}
    for message, body in re.findall(r"message (\w+) \{(.*?)\}", text, re.DOTALL):
        for field, number in re.findall(r"(\w+) = (\d+);", body):
            ours[message, field] = int(number)
    assert len(ours) > 100
    # Newer than this client; the npm one knows it.
    assert ours.pop(("SubscribeRequest", "type")) == 15
    assert {key: theirs.get(key) for key in ours} == ours
