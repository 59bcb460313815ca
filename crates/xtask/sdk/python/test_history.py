"""What the gateway keeps, as the unmodified Python client `centrifuge-python` sees it."""

import pytest
from centrifuge import DeltaType, ReplyError, StreamPosition

from coroutines import DEADLINE, scenario
from support import Gateway, Inbox, Publications, connected, data, fence, fresh, payload

either_format = pytest.mark.parametrize("form", ["json", "protobuf"])


class Followed(Publications):
    """Keeps how each (re)subscribe went, too."""

    def __init__(self):
        super().__init__()
        self.began = Inbox()

    async def on_subscribed(self, ctx):
        self.began.push((ctx.was_recovering, ctx.recovered))


async def follow(client, channel, **options):
    events = Followed()
    subscription = client.new_subscription(channel, events=events, **options)
    subscription.seen, subscription.began = events.inbox, events.began
    await subscription.subscribe()
    await subscription.ready(timeout=DEADLINE)
    return subscription


async def away(client, meanwhile):
    """Away and back again; `meanwhile` happens in between."""
    await client.disconnect()
    await meanwhile()
    await client.connect()
    await client.ready(timeout=DEADLINE)


@either_format
@scenario
async def test_a_client_that_was_away_gets_what_it_missed_in_order_and_once(form):
    at = Gateway("strict", form)
    async with connected(at) as client:
        kept = await follow(client, fresh("kept:"))
        await at.publish(kept.channel, 1)
        await kept.seen.count(1, "publications")

        async def meanwhile():
            for n in range(2, 41):
                await at.publish(kept.channel, n)

        await away(client, meanwhile)
        await kept.began.find(lambda began: began == (True, True), "recovery")
        await at.publish(kept.channel, 41)
        await kept.seen.count(41, "publications")
        assert data(kept.seen) == list(range(1, 42))
        assert [publication.offset for publication in kept.seen.all] == list(range(1, 42))
        assert await fence(at, kept) == [list(range(1, 42))]


@either_format
@scenario
async def test_a_client_that_was_away_for_too_long_is_told_so(form):
    at = Gateway("strict", form)
    async with connected(at) as client:
        few = await follow(client, fresh("few:"))

        async def meanwhile():
            for n in range(3):
                await at.publish(few.channel, n)

        await away(client, meanwhile)
        await few.began.find(lambda began: began == (True, False), "gap")
        assert await fence(at, few) == [[]]


@either_format
@scenario
async def test_a_killed_connection_costs_nothing(form):
    at = Gateway("strict", form)
    async with connected(at) as client:
        kept = await follow(client, fresh("kept:"))
        for n in range(1, 61):
            await at.publish(kept.channel, n)
            if n % 20 == 0:
                # The transport under the client's feet, without a close frame, once the last one is replaced.
                await client.ready(timeout=DEADLINE)
                client._conn.transport.abort()
        await kept.seen.find(lambda publication: payload(publication) == 60, "the last publication")
        assert data(kept.seen) == list(range(1, 61))
        assert all(began == (True, True) for began in kept.began.all[1:]) and len(kept.began.all) > 1


@either_format
@scenario
async def test_a_subscriber_reads_the_history(form):
    at = Gateway("strict", form)
    async with connected(at) as client:
        kept = await follow(client, fresh("kept:"))
        places = [await at.publish(kept.channel, n) for n in range(1, 5)]
        epoch = places[0]["epoch"]
        page = await kept.history(limit=2, since=StreamPosition(offset=1, epoch=epoch))
        assert ([payload(item) for item in page.publications], page.offset, page.epoch) == ([2, 3], 4, epoch)
        newest = await kept.history(limit=2, reverse=True)
        assert [payload(item) for item in newest.publications] == [4, 3]
        with pytest.raises(ReplyError) as refused:
            await kept.history(limit=1, since=StreamPosition(offset=1, epoch="abcdefgh"))
        assert refused.value.code == 112


@either_format
@scenario
async def test_with_deltas_nothing_is_lost_or_mixed_up_by_killed_connections(form):
    at = Gateway("strict", form)
    published = [
        {"place": "Übersee 🌊", "text": "só um texto — 文字 " * 20, "n": n, "odd": "é" * (n % 5)} for n in range(1, 61)
    ]
    async with connected(at) as client:
        kept = await follow(client, fresh("kept:"), delta=DeltaType.FOSSIL)
        for item in published:
            await at.publish(kept.channel, item)
            if item["n"] in (20, 40):
                # The transport under the client's feet, without a close frame, once the last one is replaced.
                await client.ready(timeout=DEADLINE)
                await kept.seen.count(item["n"] - 5, "publications")
                client._conn.transport.abort()
        await kept.seen.find(lambda publication: payload(publication)["n"] == 60, "the last publication")
        assert data(kept.seen) == published
        assert all(began == (True, True) for began in kept.began.all[1:]) and len(kept.began.all) > 1
        assert sum(publication.delta for publication in kept.seen.all) > 10, "some came as patches"
        # What is read of the history is whole.
        page = await kept.history(limit=2, reverse=True)
        assert [payload(item) for item in page.publications] == published[:-3:-1]
