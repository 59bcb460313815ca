"""The unmodified Python client `centrifuge-python` against a running gateway."""

import pytest
from centrifuge import ReplyError

from support import API_KEY, Gateway, Inbox, connected, data, fence, fresh, refusal, scenario, subscribe

both = pytest.mark.parametrize("kind", ["dev", "strict"])


@both
@scenario
async def test_every_client_receives_what_the_api_publishes_whole_and_in_order(kind):
    at = Gateway(kind)
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
async def test_clients_of_another_channel_receive_nothing(kind):
    at = Gateway(kind)
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
async def test_nothing_comes_after_unsubscribe_and_all_comes_again_after_a_new_subscribe(kind):
    at = Gateway(kind)
    async with connected(at) as client, connected(at) as witness:
        leaving = await subscribe(client, fresh("news:"))
        staying = await subscribe(witness, leaving.channel)
        marker = await subscribe(client, fresh("news:"))
        await at.publish(leaving.channel, "before")
        await leaving.seen.count(1, "publications")
        await leaving.unsubscribe()
        # The reply to a later command: the server has dealt with the unsubscribe when it is here.
        with pytest.raises(ReplyError):
            await client.rpc("fence", {})
        await at.publish(leaving.channel, "after")
        await staying.seen.find(lambda publication: publication.data == "after", "publication for the witness")
        await fence(at, marker)
        assert data(leaving.seen) == ["before"]

        await leaving.subscribe()
        await leaving.ready(timeout=20)
        await at.publish(leaving.channel, "again")
        await leaving.seen.count(2, "publications")
        assert data(leaving.seen) == ["before", "again"]


@both
@scenario
async def test_what_a_client_publishes_reaches_the_others_and_itself_with_its_name_on_it(kind):
    at = Gateway(kind)
    async with connected(at) as author, connected(at) as reader:
        own = await subscribe(author, fresh("chat:"))
        theirs = await subscribe(reader, own.channel)
        _, name = await author.events.inbox.find(lambda state: state[0] == "connected", "connected")
        await own.publish({"text": "hello"})
        await author.publish(own.channel, {"text": "again"})
        for subscription in (own, theirs):
            await subscription.seen.count(2, "publications")
            assert data(subscription.seen) == [{"text": "hello"}, {"text": "again"}]
            assert [publication.info.client for publication in subscription.seen.all] == [name, name]


@both
@scenario
async def test_a_client_sent_away_with_a_3xxx_code_below_3500_comes_back_and_goes_on(kind):
    at = Gateway(kind)
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
        await news.seen.find(lambda publication: publication.data == "welcome back", "publication after the return")


@both
@scenario
async def test_a_client_that_is_disconnected_for_good_stays_away(kind):
    at = Gateway(kind)
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


@scenario
async def test_refusals_reach_the_client_with_their_codes():
    at = Gateway("strict")
    async with connected(at) as client:
        assert await refusal(client, fresh("closed:")) == 103
        assert await refusal(client, fresh("plain")) == 103
        assert await refusal(client, fresh("nowhere:")) == 102
        news = await subscribe(client, fresh("news:"))
        for channel, code in ((news.channel, 103), (fresh("nowhere:"), 102)):
            with pytest.raises(ReplyError) as refused:
                await client.publish(channel, "x")
            assert refused.value.code == code, channel
        for call in (news.history(limit=1), news.presence(), news.presence_stats(), client.rpc("anything", {})):
            with pytest.raises(ReplyError) as refused:
                await call
            assert refused.value.code == 108
        assert await fence(at, news) == [[]]


@scenario
async def test_the_client_answers_pings_and_stays_connected():
    at = Gateway("strict")
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
