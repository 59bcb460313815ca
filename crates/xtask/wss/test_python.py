"""Python's `ssl` with the client libraries `websockets` and `centrifuge-python`."""

import asyncio
import json
import socket
import ssl

import pytest
from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler
from websockets.asyncio.client import connect

from coroutines import DEADLINE, scenario
from support import HOST, authorities

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
each_version = pytest.mark.parametrize("version", VERSIONS)


def trust(version=None, authority=None):
    context = ssl.create_default_context(cafile=(authority or authorities()[0]) / "ca.pem")
    if version:
        context.minimum_version = context.maximum_version = version
    return context


async def soon(what):
    return await asyncio.wait_for(what, DEADLINE)


@each_version
@scenario
async def test_websockets_converses(plain, version):
    options = {"ssl": trust(VERSIONS[version]), "proxy": None, "open_timeout": DEADLINE}
    async with connect(plain.url, **options) as client:
        channel = f"websockets-{version}"
        await client.send('{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": {"channel": channel}}))
        lines = []

        async def until(count):
            while len(lines) < count:
                lines.extend(json.loads(line) for line in (await soon(client.recv())).splitlines())

        await until(2)
        assert not any("error" in line for line in lines), lines
        published = ["x" * 40_000, *range(50)]
        for item in published:
            await asyncio.to_thread(plain.publish, channel, item)
        await until(2 + len(published))
        assert [line["push"]["pub"]["data"] for line in lines[2:]] == published
        await client.ping()


@scenario
async def test_websockets_connects_to_nobody_whom_it_does_not_trust(plain):
    for context, host, complaint in (
        (trust(authority=authorities()[1]), HOST, "unable to get local issuer certificate|self-signed"),
        (trust(), "localhosu", "Hostname mismatch"),
        (trust(), HOST, None),
    ):
        options = {"ssl": context, "proxy": None, "server_hostname": host, "host": "127.0.0.1", "port": plain.port}
        if complaint is None:
            async with connect(plain.url, **options):
                continue
        with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
            async with connect(plain.url, **options):
                pass


@each_version
def test_the_gateway_answers_a_close_notify_with_its_own(plain, version):
    with socket.create_connection(("127.0.0.1", plain.port), DEADLINE) as tcp:
        context = trust(VERSIONS[version])
        with context.wrap_socket(tcp, server_hostname=HOST, suppress_ragged_eofs=False) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            while not client.recv(4096).endswith(b"{}"):
                pass
            # Fails for an end that is only TCP's.
            below = client.unwrap()
            assert below.recv(1) == b""


def test_a_request_without_tls_is_told_so(plain):
    for data, answer in ((b"GET /health HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request"), (b"\x16\x03\x01\0\x05\1\0\0\1\0", b"\x15\x03\x03\0\2\2")):
        with socket.create_connection(("127.0.0.1", plain.port), DEADLINE) as tcp:
            tcp.sendall(data)
            assert tcp.recv(4096).startswith(answer)


class Seen(ClientEventHandler, SubscriptionEventHandler):
    """Publications of a subscription, and errors of a client."""

    def __init__(self):
        self.queue, self.errors = asyncio.Queue(), asyncio.Queue()

    async def on_publication(self, ctx):
        data = ctx.pub.data
        self.queue.put_nowait(json.loads(data) if isinstance(data, bytes) else data)

    async def on_error(self, ctx):
        self.errors.put_nowait(ctx)


def sdk(at, context, seen, protobuf=False):
    options = {"events": seen, "proxy": None, "min_reconnect_delay": 0.02, "max_reconnect_delay": 0.2}
    return Client(at.url, ssl_context=context, use_protobuf=protobuf, **options)


@pytest.mark.parametrize("protobuf", [False, True])
@each_version
@scenario
async def test_centrifuge_connects_subscribes_publishes_and_gets_it(plain, version, protobuf):
    seen = Seen()
    client = sdk(plain, trust(VERSIONS[version]), seen, protobuf)
    await client.connect()
    await client.ready(timeout=DEADLINE)
    try:
        subscription = client.new_subscription(f"sdk-{version}-{protobuf}", events=seen)
        await subscription.subscribe()
        await subscription.ready(timeout=DEADLINE)
        published = [{"by": "the client"}, {"by": "the API"}, {"long": "文" * 20_000}]
        await subscription.publish(json.dumps(published[0]).encode() if protobuf else published[0])
        assert await soon(seen.queue.get()) == published[0]
        for item in published[1:]:
            await asyncio.to_thread(plain.publish, subscription.channel, item)
            assert await soon(seen.queue.get()) == item
        assert seen.queue.empty() and seen.errors.empty()
    finally:
        await client.disconnect()


@scenario
async def test_centrifuge_connects_to_nobody_whom_it_does_not_trust(plain):
    ours, strange = authorities()
    for authority, well in ((strange, False), (ours, True)):
        seen = Seen()
        client = sdk(plain, trust(authority=authority), seen)
        await client.connect()
        try:
            if well:
                await client.ready(timeout=DEADLINE)
                assert seen.errors.empty()
            else:
                error = await soon(seen.errors.get())
                assert "CERTIFICATE_VERIFY_FAILED" in str(error.error) and client.state.value != "connected"
        finally:
            await client.disconnect()
