"""The plain endpoint with PyPI's `websockets`: no SDK, only JSON messages."""

import asyncio
import json
import urllib.parse
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from coroutines import DEADLINE, scenario
from support import Gateway, connected, fence, fresh, subscribe

both = pytest.mark.parametrize("kind", ["dev", "strict"])


class Plain:
    """One connection; `push()` gives the next message that is not a ping."""

    def __init__(self, socket):
        self.socket = socket

    async def push(self):
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(decode=True), DEADLINE))
            if message != {}:
                return message

    async def until(self, data):
        """All pushes up to the publication of `data`, without it."""
        pushes = []
        while (push := await self.push()).get("pub", {}).get("data") != data:
            pushes.append(push)
        return pushes


@asynccontextmanager
async def plain(at, query="", first=None):
    async with connect(f"{at.uni}{query}", proxy=None, open_timeout=DEADLINE) as socket:
        if first is not None:
            await socket.send(json.dumps(first))
        yield Plain(socket)


def request(value):
    return "?cf_connect=" + urllib.parse.quote(json.dumps(value))


@both
@scenario
async def test_channels_in_the_query_are_subscribed_and_the_first_push_says_so(kind):
    at = Gateway(kind)
    a, b, other = fresh("news:"), fresh("news:"), fresh("news:")
    async with plain(at, f"?channels={a},{b}") as client:
        hello = await client.push()
        assert set(hello) == {"connect"}, hello
        assert set(hello["connect"]["subs"]) == {a, b}
        assert hello["connect"]["client"] and hello["connect"]["ping"] > 0
        await at.publish(other, "not for you")
        await at.publish(a, {"text": "só um 文字 🌊"})
        await at.publish(b, 2)
        first, second = await client.push(), await client.push()
        assert {push["channel"]: push["pub"]["data"] for push in (first, second)} == {a: {"text": "só um 文字 🌊"}, b: 2}
        await at.publish(a, "fence")
        assert await client.until("fence") == []


@both
@scenario
async def test_a_connect_request_may_come_in_the_query_or_as_the_first_message(kind):
    at = Gateway(kind)
    channel = fresh("news:")
    wanted = {"name": "test", "subs": {channel: {}}}
    async with plain(at, request(wanted)) as query, plain(at, first=wanted) as message:
        for client in (query, message):
            assert set((await client.push())["connect"]["subs"]) == {channel}
        await at.publish(channel, [1])
        for client in (query, message):
            push = await client.push()
            assert (push["channel"], push["pub"]["data"]) == (channel, [1])


@both
@scenario
async def test_what_an_sdk_client_publishes_arrives_on_the_plain_endpoint(kind):
    at = Gateway(kind)
    channel = fresh("chat:")
    async with plain(at, f"?channels={channel}") as client, connected(at) as author:
        await client.push()
        await author.publish(channel, "hello")
        push = await client.push()
        assert push["pub"]["data"] == "hello"
        _, name = author.events.inbox.all[-1]
        assert push["pub"]["info"]["client"] == name


@scenario
async def test_a_channel_that_is_not_allowed_is_left_out_without_a_word():
    at = Gateway("strict")
    news, closed, unknown = fresh("news:"), fresh("closed:"), fresh("nowhere:")
    async with plain(at, f"?channels={closed},{news},{unknown}") as client:
        assert set((await client.push())["connect"]["subs"]) == {news}
        await at.publish(closed, "secret")
        await at.publish(news, "fence")
        assert await client.until("fence") == []


@scenario
async def test_a_wrong_key_delivers_nothing_to_the_plain_endpoint():
    at = Gateway("strict")
    news = fresh("news:")
    async with plain(at, f"?channels={news}") as client:
        await client.push()
        status, _ = await at.post("publish", {"channel": news, "data": "forged"}, "wrong")
        assert status == 401
        await at.publish(news, "fence")
        assert await client.until("fence") == []


@both
@scenario
async def test_a_disconnect_is_pushed_and_then_closes_with_its_code(kind):
    at = Gateway(kind)
    async with plain(at, f"?channels={fresh('news:')}") as client:
        name = (await client.push())["connect"]["client"]
        await at.call("disconnect", {"user": "", "client": name, "disconnect": {"code": 3011, "reason": "go"}})
        assert await client.push() == {"disconnect": {"code": 3011, "reason": "go"}}
        with pytest.raises(ConnectionClosed) as closed:
            await client.push()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (3011, "go")


@scenario
async def test_pings_come_and_need_no_answer_of_ours():
    at = Gateway("strict")
    news = fresh("news:")
    async with plain(at, f"?channels={news}") as client:
        hello = await client.push()
        assert hello["connect"]["ping"] == 2 and "pong" not in hello["connect"]
        for _ in range(3):
            assert json.loads(await asyncio.wait_for(client.socket.recv(), DEADLINE)) == {}
        await at.publish(news, "fence")
        assert await client.until("fence") == []


@scenario
async def test_a_broken_connect_request_is_refused_and_its_twin_accepted():
    at = Gateway("strict")
    with pytest.raises((InvalidStatus, ConnectionClosed)) as refused:
        async with plain(at, "?cf_connect=%7B%22subs%22%3A%7B%7D") as client:
            await client.push()
    if isinstance(refused.value, InvalidStatus):
        assert refused.value.response.status_code == 400
    else:
        assert refused.value.rcvd.code == 3501
    async with plain(at, "?cf_connect=%7B%22subs%22%3A%7B%7D%7D") as client:
        assert "connect" in await client.push()


@scenario
async def test_a_plain_client_and_an_sdk_client_of_one_channel_see_the_same():
    at = Gateway("dev")
    channel = fresh("news:")
    async with plain(at, f"?channels={channel}") as client, connected(at) as other:
        await client.push()
        subscription = await subscribe(other, channel)
        for n in range(50):
            await at.publish(channel, n)
        seen = [(await client.push())["pub"]["data"] for _ in range(50)]
        assert [seen] == await fence(at, subscription)


@both
@scenario
async def test_channels_that_take_turns_are_inflated_to_what_was_published(kind):
    at = Gateway(kind)
    a, b, raw = fresh("news:"), fresh("chat:"), fresh("asis:")
    async with plain(at, f"?channels={a},{b}" + (f",{raw}" if kind == "strict" else "")) as client:
        extensions = [extension.name for extension in client.socket.protocol.extensions]
        assert extensions == (["permessage-deflate"] if kind == "strict" else [])
        assert set((await client.push())["connect"]["subs"]) >= {a, b}
        published = []
        for number in range(120):
            channel = a if number % 7 < 4 else b
            data = {"number": number, "bid": number * 3, "text": "far away, " * (1 + number % 5) + "só um 文字 🌊"}
            await at.publish(channel, data)
            published.append((channel, data))
            if kind == "strict" and number % 10 == 0:
                await at.publish(raw, data)
                published.append((raw, data))
        received = []
        while len(received) < len(published):
            push = await client.push()
            received.append((push["channel"], push["pub"]["data"]))
        # Different channels may overtake each other.
        for channel in (a, b, raw):
            assert [pair for pair in received if pair[0] == channel] == [pair for pair in published if pair[0] == channel]
