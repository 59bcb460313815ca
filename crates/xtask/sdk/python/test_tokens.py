"""Who a client is and what its tokens grant, as the unmodified Python client `centrifuge-python` sees it."""

import pytest
from centrifuge import Client, ClientEventHandler

from coroutines import DEADLINE, scenario
from support import Gateway, Inbox, States, connected, data, fresh, payload, refusal, subscribe, token

either_format = pytest.mark.parametrize("form", ["json", "protobuf"])


@either_format
@scenario
async def test_a_token_says_who_a_client_is(form):
    at = Gateway("strict", form)
    ada, bob = token(sub="42", info={"name": "Ada"}), token(sub="43")
    async with connected(at, token=ada) as first, connected(at, token=bob) as second:
        channel = fresh("users:")
        theirs = await subscribe(second, channel)
        mine = await subscribe(first, channel)
        await mine.publish(at.pack("hello"))
        (publication,) = await theirs.seen.count(1, "publications")
        assert publication.info.user == "42"
        info = publication.info.conn_info
        assert (info if form == "json" else payload_of(info)) == {"name": "Ada"}
        stats = await mine.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 2)


def payload_of(raw):
    class Raw:
        data = raw

    return payload(Raw)


@either_format
@scenario
async def test_a_connection_and_a_subscription_outlive_their_tokens_when_these_are_renewed(form):
    at = Gateway("strict", form)
    channel = fresh("$closed:")
    renewed, sub_renewed = Inbox(), Inbox()

    async def get_token():
        renewed.push(1)
        return token(sub="42", ends=1 if len(renewed.all) < 3 else 600)

    async def get_subscription_token(_channel):
        sub_renewed.push(1)
        return token(sub="42", channel=channel, ends=1 if len(sub_renewed.all) < 3 else 600)

    async with connected(at, token=token(sub="42", ends=1), get_token=get_token) as client:
        first = token(sub="42", channel=channel, ends=1)
        subscription = await subscribe(client, channel, token=first, get_token=get_subscription_token)
        await renewed.count(3, "new tokens")
        await sub_renewed.count(3, "new tokens for the subscription")
        await at.publish(channel, "still there")
        await subscription.seen.count(1, "publications")
        assert data(subscription.seen) == ["still there"]
        assert [state for state, _ in client.events.inbox.all] == ["connecting", "connected"]
        assert subscription.ended.all == []


@either_format
@scenario
async def test_an_expired_token_makes_the_library_fetch_another_one(form):
    at = Gateway("strict", form)
    asked = Inbox()

    async def get_token():
        asked.push(1)
        return token(sub="42")

    async with connected(at, token=token(sub="42", ends=-5), get_token=get_token) as client:
        assert asked.all == [1]
        await subscribe(client, fresh("users:"))


@either_format
@scenario
async def test_a_token_that_does_not_count_sends_the_client_away(form):
    at = Gateway("strict", form)
    for bad in (token(sub="42", secret="another secret of thirty-two bytes"), token(sub="42", channel="users:a"), "x"):
        events = States()
        client = Client(at.websocket, events=events, proxy=None, token=bad, use_protobuf=form == "protobuf")
        await client.connect()
        state, code = await events.inbox.find(lambda item: item[0] == "disconnected", "disconnected")
        assert (state, code) == ("disconnected", 3500)
    async with connected(at, token=token(sub="42")) as client:
        assert await refusal(client, fresh("$closed:")) == 103
        assert await refusal(client, fresh("users:") + "#43") == 103
        await subscribe(client, fresh("users:") + "#42")


@either_format
@scenario
async def test_a_backend_gives_a_user_a_channel(form):
    at = Gateway("strict", form)
    user, channel, events = fresh("u"), fresh("kept:"), Given()
    client = Client(at.websocket, events=events, proxy=None, token=token(sub=user), use_protobuf=form == "protobuf")
    await client.connect()
    await client.ready(timeout=DEADLINE)
    await at.publish(channel, "before")
    await at.call("subscribe", {"user": user, "channel": channel})
    await events.subscribed.count(1, "subscribed")
    told = events.subscribed.all[0]
    assert (told.channel, told.recoverable, told.stream_position.offset) == (channel, True, 1)
    await at.publish(channel, "now")
    await events.seen.count(1, "publications")
    assert data(events.seen) == ["now"]
    await client.disconnect()


class Given(ClientEventHandler):
    """Keeps what comes through channels that the client never asked for."""

    def __init__(self):
        self.inbox, self.seen, self.subscribed = Inbox(), Inbox(), Inbox()

    async def on_connected(self, ctx):
        self.inbox.push(("connected", ctx.client))

    async def on_disconnected(self, ctx):
        self.inbox.push(("disconnected", ctx.code))

    async def on_subscribed(self, ctx):
        self.subscribed.push(ctx)

    async def on_publication(self, ctx):
        self.seen.push(ctx.pub)


@either_format
@scenario
async def test_a_token_brings_channels_along_which_recover(form):
    at = Gateway("strict", form)
    channel, events = fresh("kept:"), Given()
    given = token(sub="42", channels=[channel])
    client = Client(at.websocket, events=events, proxy=None, token=given, use_protobuf=form == "protobuf")
    await client.connect()
    await client.ready(timeout=DEADLINE)
    await at.publish(channel, 1)
    await events.seen.count(1, "publications")
    await client.disconnect()
    await at.publish(channel, 2)
    await at.publish(channel, 3)
    await client.connect()
    await events.seen.count(3, "publications")
    assert data(events.seen) == [1, 2, 3]
    assert events.subscribed.all[-1].recovered
    await at.call("disconnect", {"user": "42", "client": events.inbox.all[-1][1]})
    assert (await events.inbox.find(lambda item: item == ("disconnected", 3503), "the end")) == ("disconnected", 3503)
