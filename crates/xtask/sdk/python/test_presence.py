"""Who is subscribed, as the unmodified Python client `centrifuge-python` sees it."""

import pytest
from centrifuge import ReplyError

from coroutines import DEADLINE, scenario
from support import Gateway, Inbox, Publications, connected, fresh

either_format = pytest.mark.parametrize("form", ["json", "protobuf"])


class Others(Publications):
    """Keeps who came and went, too."""

    def __init__(self):
        super().__init__()
        self.others = Inbox()

    async def on_join(self, ctx):
        self.others.push(("join", ctx.info.client))

    async def on_leave(self, ctx):
        self.others.push(("leave", ctx.info.client))


async def listen(client, channel, **options):
    events = Others()
    subscription = client.new_subscription(channel, events=events, **options)
    subscription.others = events.others
    await subscription.subscribe()
    await subscription.ready(timeout=DEADLINE)
    return subscription


@either_format
@scenario
async def test_presence_is_who_is_subscribed_and_listeners_are_told_as_it_changes(form):
    at = Gateway("strict", form)
    async with connected(at) as first, connected(at) as second:
        channel = fresh("room:")
        mine = await listen(first, channel, join_leave=True)
        (own,) = await mine.others.count(1, "joins")
        theirs = await listen(second, channel)
        others = await mine.others.count(2, "joins")
        assert [what for what, _ in others] == ["join", "join"]
        present = await mine.presence()
        assert set(present.clients) == {client for _, client in others}
        assert all(info.client == client for client, info in present.clients.items())
        stats = await theirs.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 1)
        await theirs.unsubscribe()
        others = await mine.others.count(3, "joins and leaves")
        assert others == [own, others[1], ("leave", others[1][1])]
        assert set((await mine.presence()).clients) == {own[1]}
        assert theirs.others.all == [], "who does not ask is not told"
        assert await at.call("presence_stats", {"channel": channel}) == {"num_clients": 1, "num_users": 1}


@either_format
@scenario
async def test_presence_is_for_whom_the_namespace_says(form):
    at = Gateway("strict", form)
    async with connected(at) as client:
        for prefix, code in [("hall:", 103), ("news:", 108)]:
            subscription = await listen(client, fresh(prefix))
            for call in (subscription.presence(), subscription.presence_stats()):
                with pytest.raises(ReplyError) as refused:
                    await call
                assert refused.value.code == code
        room = await listen(client, fresh("room:"))
        assert len((await room.presence()).clients) == 1
