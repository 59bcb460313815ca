"""What the tests share: the two gateways, their API, clients that keep what they received, and the fence."""

import asyncio
import base64
import hmac
import itertools
import json
import os
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

from coroutines import DEADLINE

API_KEY = "key-of-the-client-tests"
SECRET = "the secret that these tests sign with"
# Loopback only: a proxy in the environment is none of our business.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_numbers = itertools.count(1)


def fresh(prefix):
    """A channel that no other test, file or run uses."""
    return f"{prefix}{os.getpid()}-{time.time_ns():x}-{next(_numbers)}"


class Gateway:
    """`dev` is a gateway started with `--dev` and nothing else; `strict` is one with gateway.toml.

    `form` is what the clients that are connected to it speak: "json" or "protobuf".
    """

    def __init__(self, kind, form="json"):
        self.kind, self.form = kind, form
        self.url, self.api = (self._address(f"TIDEGATE_TEST_{kind.upper()}_{end}") for end in ("URL", "API"))
        base = self.url.replace("http", "ws", 1)
        self.websocket = f"{base}/connection/websocket"
        self.uni = f"{base}/connection/uni_websocket"

    @staticmethod
    def _address(variable):
        assert variable in os.environ, f"{variable} is not set: run these tests by `cargo xtask sdk`"
        return os.environ[variable]

    async def post(self, method, body, key=None):
        """(status, body) of a call of the server API."""
        request = urllib.request.Request(f"{self.api}/api/{method}", json.dumps(body).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        if key is not None:
            request.add_header("X-API-Key", key)

        def send():
            try:
                with OPENER.open(request, timeout=DEADLINE) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read()

        return await asyncio.to_thread(send)

    async def call(self, method, body):
        """The `result` of a call that must succeed."""
        status, text = await self.post(method, body, API_KEY if self.kind == "strict" else None)
        assert status == 200, f"{method}: HTTP {status} {text!r}"
        answer = json.loads(text)
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    async def publish(self, channel, data):
        return await self.call("publish", {"channel": channel, "data": data})

    def pack(self, value):
        """A payload as the client library takes it: in Protobuf bytes, which for this gateway are JSON text."""
        return json.dumps(value).encode() if self.form == "protobuf" else value


class Inbox:
    """Things that arrive one after another, kept for good."""

    def __init__(self):
        self.all = []
        self._more = asyncio.Event()

    def push(self, item):
        self.all.append(item)
        self._more.set()

    async def until(self, check, what):
        """Waits until `check(all)` gives something true, and returns it."""

        async def wait():
            while not (found := check(self.all)):
                self._more.clear()
                await self._more.wait()
            return found

        try:
            return await asyncio.wait_for(wait(), DEADLINE)
        except asyncio.TimeoutError:
            raise AssertionError(f"no {what} within {DEADLINE} s; there were {self.all}") from None

    async def find(self, fits, what):
        return (await self.until(lambda items: [item for item in items if fits(item)], what))[0]

    async def count(self, n, what):
        return await self.until(lambda items: len(items) >= n and items, f"{n} {what}")


class States(ClientEventHandler):
    """Keeps (state, code or client id) of a client."""

    def __init__(self):
        self.inbox = Inbox()

    async def on_connecting(self, ctx):
        self.inbox.push(("connecting", ctx.code))

    async def on_connected(self, ctx):
        self.inbox.push(("connected", ctx.client))

    async def on_disconnected(self, ctx):
        self.inbox.push(("disconnected", ctx.code))


class Publications(SubscriptionEventHandler):
    """Keeps the publications of a subscription, and with which code it ended."""

    def __init__(self):
        self.inbox = Inbox()
        self.ended = Inbox()

    async def on_publication(self, ctx):
        self.inbox.push(ctx.pub)

    async def on_unsubscribed(self, ctx):
        self.ended.push(ctx.code)


def token(secret=SECRET, ends=None, **claims):
    """What the strict gateway takes for signed by its backend; its end is in seconds from now."""

    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    if ends is not None:
        claims["exp"] = int(time.time()) + ends
    header = {"alg": "HS256", "typ": "JWT"}
    message = b".".join(encode(json.dumps(part).encode()) for part in (header, claims))
    signature = encode(hmac.digest(secret.encode(), message, "sha256"))
    return (message + b"." + signature).decode()


@asynccontextmanager
async def connected(gateway, **options):
    """A connected client of centrifuge-python; `client.events.inbox` holds its states."""
    client = Client(
        gateway.websocket,
        events=States(),
        proxy=None,
        min_reconnect_delay=0.02,
        max_reconnect_delay=0.2,
        use_protobuf=gateway.form == "protobuf",
        **options,
    )
    await client.connect()
    try:
        await client.ready(timeout=DEADLINE)
        yield client
    finally:
        await client.disconnect()


async def subscribe(client, channel, **options):
    """A subscription that the server has said yes to; `.seen` keeps every publication from then on."""
    events = Publications()
    subscription = client.new_subscription(channel, events=events, **options)
    subscription.seen, subscription.ended = events.inbox, events.ended
    await subscription.subscribe()
    await subscription.ready(timeout=DEADLINE)
    return subscription


async def refusal(client, channel, **options):
    """The code with which the server refuses a subscription."""
    events = Publications()
    await client.new_subscription(channel, events=events, **options).subscribe()
    return (await events.ended.count(1, f"refusal of {channel}"))[0]


def payload(publication):
    """What a publication carries, in both formats."""
    return json.loads(publication.data) if isinstance(publication.data, bytes) else publication.data


def data(inbox):
    return [payload(publication) for publication in inbox.all]


async def fence(gateway, *subscriptions):
    """What each subscription has received, when nothing more can be on its way.

    One last publication goes into each channel; once it is there, whatever was published earlier is there too,
    because a channel keeps its order. The last publication itself is left out.
    """
    sentinel = fresh("fence-")
    for subscription in subscriptions:
        await gateway.publish(subscription.channel, sentinel)
    seen = []
    for subscription in subscriptions:
        await subscription.seen.find(lambda publication: payload(publication) == sentinel, "fence")
        seen.append([item for item in data(subscription.seen) if item != sentinel])
    return seen
