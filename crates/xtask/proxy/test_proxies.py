"""nginx and HAProxy with the files of deploy/: what gets through them, what they survive, and what cuts it."""

import asyncio
import contextlib
import json
import os
import re
import runpy
import signal
import socket
import sys
import tomllib
from pathlib import Path

import pytest
from coroutines import DEADLINE, scenario
from support import DEPLOY, FACTOR, FILES, HOST, PROXIES, SILENCE, Process, temporary_folder, until
from support import backend, client, gateway, handshake, proxy, request, upstream
from websockets.exceptions import InvalidStatus

each = pytest.mark.parametrize("name", PROXIES)


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def of(text, pattern):
    """The seconds in the one line that fits."""
    [found] = re.findall(pattern, text, re.MULTILINE)
    return seconds(found)


def complaints(name, text):
    """What in a proxy's file does not fit the gateway's defaults."""
    config = tomllib.loads((DEPLOY / "tidegate.toml").read_text())
    of_client, found = config["client"], []
    silences = [int(silence) for silence in re.findall(SILENCE[name], text, re.MULTILINE)]
    needed = seconds(of_client["ping_interval"]) + seconds(of_client["pong_timeout"])
    if len(silences) != {"nginx": 2, "haproxy": 3}[name] or min(silences) <= needed:
        found.append(f"silence {silences}, a ping and its pong {needed}")
    pools = {"nginx": r"keepalive 32;\n\s*keepalive_timeout (\w+);", "haproxy": r"pool-purge-delay (\w+)"}
    if of(text, pools[name]) >= seconds(config["http"]["keep_alive_timeout"]):
        found.append("an idle connection is kept for longer than the gateway keeps it")
    if name == "haproxy":
        falls = int(re.search(r"fall (\d+)", text)[1])
        if of(text, r"inter (\w+)") * falls + of(text, r"timeout check (\w+)") >= seconds(config["drain"]["notice"]):
            found.append("a gateway that drains is not down before it refuses")
    return found


@each
def test_the_shipped_times_fit_the_gateways_defaults(name):
    assert complaints(name, (DEPLOY / FILES[name]).read_text()) == []


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("nginx", "proxy_read_timeout 34s", "proxy_read_timeout 33s"),
        ("nginx", "keepalive_timeout 59s;\n    }", "keepalive_timeout 60s;\n    }"),
        ("haproxy", "timeout tunnel 34s", "timeout tunnel 33s"),
        ("haproxy", "pool-purge-delay 59s", "pool-purge-delay 60s"),
        ("haproxy", "inter 1s fall 3", "inter 1s fall 4"),
    ],
)
def test_times_that_do_not_fit_are_found_and_those_a_second_shorter_or_longer_are_not(name, good, bad):
    shipped = (DEPLOY / FILES[name]).read_text()
    pattern = re.sub(r"\d+(?=s|$)", r"\\d+", good.replace("fall 3", "fall 2"))
    assert len(re.findall(pattern, shipped)) == 1
    assert complaints(name, re.sub(pattern, good, shipped)) == []
    assert len(complaints(name, re.sub(pattern, bad, shipped))) == 1


def unmeasured(text):
    """Lines of the sysctl drop-in that are not what the measurement ends with, or that this kernel does not have."""
    measured = runpy.run_path(str(DEPLOY / "measure/sysctls.py"))["CASES"]
    best = {name: value for _, values in measured.values() for name, value in values[-1].items()}
    lines = [line.split(" = ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    known = {name for name, _ in lines if Path("/proc/sys", *name.split(".")).exists()}
    return [name for name, value in lines if best.get(name) != value or name not in known]


def test_each_sysctl_line_is_one_that_is_measured():
    shipped = (DEPLOY / "sysctl.d/60-tidegate.conf").read_text()
    assert unmeasured(shipped) == []
    assert unmeasured(shipped.replace("tcp_migrate_req = 1", "tcp_migrate_req = 2")) == ["net.ipv4.tcp_migrate_req"]
    assert unmeasured(shipped.replace("net.core.somaxconn", "net.core.somaxcom")) == ["net.core.somaxcom"]


async def outlasts_silence(name, at):
    async with proxy(name, at.public) as through, client(through, name) as one:
        await one.receives(at, name, "at once")
        started = asyncio.get_running_loop().time()
        # Three intervals of 2 s, while a silence may last 4.8 s.
        await one.until(lambda one: one.pings >= 4, "the fourth ping")
        assert asyncio.get_running_loop().time() - started > 60 / FACTOR
        await one.receives(at, name, "after silence")
        assert one.published == ["at once", "after silence"]


# Both at once, because it takes its time.
@scenario
async def test_a_client_is_served_and_its_pings_outlast_the_longest_silence():
    async with gateway() as at:
        await asyncio.gather(*(outlasts_silence(name, at) for name in PROXIES))


# Goes only when somebody has written to the pipe, however long ago it was asked to.
SLOW = """
import signal
def asked(*_):
    print("asked", flush=True)
    exit(open("pipe").readline())
signal.signal(signal.SIGTERM, asked)
print("ready", flush=True)
signal.pause()
"""


@scenario
async def test_whoever_is_slow_to_stop_holds_up_no_one():
    with temporary_folder() as folder:
        os.mkfifo(folder / "pipe")
        pipe = os.open(folder / "pipe", os.O_RDWR)  # without a reader, too, this does not wait
        slow = Process([sys.executable, "-c", SLOW], folder / "log", cwd=folder)
        await until(lambda: "ready" in slow.said(), "sign of life")
        stopping = asyncio.ensure_future(slow.stop())
        await until(lambda: "asked" in slow.said(), "signal")
        os.write(pipe, b"go\n")
        await stopping
        os.close(pipe)
        assert "go" in slow.said(), "killed before it was let go"


@each
@scenario
async def test_a_timeout_shorter_than_the_ping_interval_cuts_the_connection(name):
    async with gateway() as at, proxy(name, at.public, milliseconds=lambda _: 1000) as through:
        async with client(through, "news") as one:
            code = await asyncio.wait_for(one.reading, DEADLINE)
            # No close frame, and after the first ping, which comes at any time, there was no second.
            assert code == 1006 and one.pings <= 1, (code, one.pings)


@each
@scenario
async def test_a_page_of_the_same_host_and_port_may_connect_and_one_of_the_next_port_not(name):
    async with gateway() as at, proxy(name, at.public) as through:
        async with handshake(through, origin=f"https://{through.host}"):
            pass
        with pytest.raises(InvalidStatus) as refused:
            async with handshake(through, origin=f"https://{HOST}:{through.port ^ 1}"):
                pass
        assert refused.value.response.status_code == 403


@each
@scenario
async def test_a_host_that_the_gateway_was_not_told_is_refused(name):
    async with gateway() as at, proxy(name, at.public) as through:
        async with handshake(through, host=through.host):
            pass
        with pytest.raises(InvalidStatus) as refused:
            async with handshake(through, host=f"other.example.com:{through.port}"):
                pass
        assert refused.value.response.status_code == 403


@each
@scenario
async def test_the_gateway_is_told_host_origin_and_a_client_address_that_nobody_can_forge(name):
    async with upstream() as at, proxy(name, at.address) as through:
        lines = ["Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        lines += ["Origin: https://app.example", "X-Forwarded-For: 192.0.2.1"]
        reader, _ = await request(through, "/connection/websocket?a=b", *lines)
        await reader.readuntil(b"ok")
        [(_, line, fields)] = at.from_clients()
        assert line == "GET /connection/websocket?a=b HTTP/1.1"
        assert (fields["host"], fields["origin"]) == (through.host, "https://app.example")
        assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == ("127.0.0.1", "https")
        assert (fields["upgrade"].lower(), fields["connection"].lower()) == ("websocket", "upgrade")


async def let_in(stack, through, source, **headers):
    """A client from there that has connected."""
    connection = await stack.enter_async_context(handshake(through, source=source, **headers))
    await connection.send('{"id":1,"connect":{}}')
    assert "error" not in json.loads(await asyncio.wait_for(connection.recv(), DEADLINE))
    return connection


async def turned_away(through, source):
    with pytest.raises(InvalidStatus) as refused:
        async with handshake(through, source=source):
            pass
    assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (429, "5")


# How the proxy tells the gateway who its clients are: by X-Forwarded-For with the shipped file, or in front of their bytes.
@pytest.mark.parametrize(
    "name, says",
    [("nginx", None), ("haproxy", None), ("nginx", "proxy_protocol"), ("haproxy", "send-proxy"), ("haproxy", "send-proxy-v2")],
)
@scenario
async def test_a_gateway_that_trusts_its_proxy_knows_its_clients_and_counts_them_by_address(name, says):
    options = {"PUBLIC__TRUSTED_PROXIES": '["127.0.0.1"]', "CLIENT__CONNECTIONS_PER_ADDRESS_MAX": "2"}
    if says:
        options["PUBLIC__PROXY_PROTOCOL_REQUIRED"] = '["127.0.0.1:0"]'
    async with backend() as asked, contextlib.AsyncExitStack() as stack:
        options |= {"WEBHOOKS__CONNECT": asked.url, "WEBHOOKS__HEADERS": '["x-forwarded-for"]'}
        at = await stack.enter_async_context(gateway(**{f"TIDEGATE_{key}": value for key, value in options.items()}))
        through = await stack.enter_async_context(proxy(name, at.public, introduced=True, says=says))
        first = await let_in(stack, through, "192.0.2.7")
        await let_in(stack, through, "192.0.2.7")
        # The next address is another client, and the proxy, behind which all of them are, is none.
        await turned_away(through, "192.0.2.7")
        for source in ("192.0.2.8", "192.0.2.9", "192.0.2.8"):
            await let_in(stack, through, source, **{"X-Forwarded-For": "203.0.113.9"})
        assert asked.sources == [f"192.0.2.{last}" for last in (7, 7, 8, 9, 8)]
        await turned_away(through, "192.0.2.8")
        await first.close()
        async with asyncio.timeout(DEADLINE):
            while True:
                with contextlib.suppress(InvalidStatus):
                    await let_in(stack, through, "192.0.2.7")
                    break
        await turned_away(through, "192.0.2.7")
        if says and name == "haproxy":
            # Its checks are for itself, and the gateway takes them for that.
            await until(lambda: through.states()["gateway1"] == "UP", "gateway that is up")
        assert await at.counted("proxy_headers_refused") == 0
        assert (await at.counted("proxy_headers") > 0) == (says is not None)
        assert await at.counted("connections_refused_by_address") >= 3


# The same handshake past the proxy: nobody is taken for one, or for a client that it makes up.
@scenario
async def test_whoever_gets_past_the_proxy_is_a_stranger():
    trusts = {"TIDEGATE_PUBLIC__TRUSTED_PROXIES": '["192.0.2.1"]'}
    required = {**trusts, "TIDEGATE_PUBLIC__PROXY_PROTOCOL_REQUIRED": '["127.0.0.1:0"]'}
    async with gateway(**trusts) as at, gateway(**required) as closed:
        line = b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 443\r\n"
        for address, header, answer in ((at.public, line, b"HTTP/1.1 400"), (at.public, b"", b"HTTP/1.1 200"), (closed.public, line, b"")):
            host, port = address.rsplit(":", 1)
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(ConnectionError):
                writer.write(header + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                said = b""
                said = await asyncio.wait_for(reader.read(12), DEADLINE)
            assert said == answer
            writer.close()


@each
@scenario
async def test_requests_that_are_no_websocket_share_a_connection_to_the_gateway(name):
    async with upstream() as at, proxy(name, at.address) as through:
        for _ in range(8):
            reader, writer = await request(through, "/readyz", "Connection: close")
            assert b" 200 " in await reader.readline()
            await reader.read()
            writer.close()
        connections = {connection for connection, _, _ in at.from_clients()}
        # Two processes or threads of the proxy, two names for the upstream: each of them may have its own.
        assert len(at.from_clients()) == 8 and len(connections) <= 4, connections


@each
@scenario
async def test_what_is_not_for_clients_is_not_reachable(name):
    async with upstream() as at, proxy(name, at.address) as through:
        for path, status in (("/connection/uni_sse", b"200"), ("/connectio/uni_sse", b"404"), ("/api/publish", b"404")):
            reader, _ = await request(through, path)
            assert status == (await reader.readline()).split()[1], path


@each
@scenario
async def test_an_event_stream_is_passed_on_event_by_event(name):
    async with upstream() as at, proxy(name, at.address) as through:
        reader, _ = await request(through, "/connection/stream")
        # The second event is made only when the first is here.
        await reader.readuntil(b"data: 1\n\n")
        at.more.set()
        await reader.readuntil(b"data: 2\n\n")


async def come_and_go(through, stop):
    """Clients one after the other until `stop`; how many. Each must get in."""
    served = 0
    while not stop.is_set():
        async with client(through, "news"):
            served += 1
    return served


@each
@scenario
async def test_a_reload_costs_no_client_its_connection_and_refuses_nobody(name):
    async with gateway() as at, proxy(name, at.public) as through, client(through, "news") as one:
        stop = asyncio.Event()
        others = asyncio.ensure_future(come_and_go(through, stop))
        await through.reload()
        async with client(through, "news") as after:
            await after.receives(at, "news", "after the reload")
        stop.set()
        assert await others > 0
        await one.until(lambda one: one.published == ["after the reload"], "the same for the one from before")


@each
@scenario
async def test_a_gateway_that_is_not_there_costs_no_client_its_handshake(name):
    # Bound and not listening: whoever connects is refused, and nobody else can get the port.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = "127.0.0.1:%d" % nobody.getsockname()[1]
        async with gateway() as at, proxy(name, dead, at.public) as through:
            for number in range(6):
                async with client(through, "news") as one:
                    await one.receives(at, "news", number)


@each
@scenario
async def test_with_a_full_gateway_clients_get_into_the_other(name):
    room_for_two = {"TIDEGATE_WORKERS__COUNT": "1", "TIDEGATE_WORKERS__CONNECTIONS_MAX": "2"}
    async with gateway(**room_for_two) as small, gateway() as large, contextlib.AsyncExitStack() as stack:
        through = await stack.enter_async_context(proxy(name, small.public, large.public))
        for number in range(12):
            await stack.enter_async_context(client(through, f"channel-{number}"))
        assert await small.clients() <= 2 and await large.clients() >= 10


# Both at once, because it takes its time.
@scenario
async def test_while_a_gateway_drains_nobody_is_refused_and_its_clients_are_told_to_come_back():
    async with gateway() as old, gateway() as new, contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(proxy(name, old.public, new.public)) for name in PROXIES]
        stayers = [await stack.enter_async_context(client(through, "stay")) for through in proxies for _ in range(4)]
        of_old = await old.clients()
        assert 0 < of_old < len(stayers)
        stop = asyncio.Event()
        others = [asyncio.ensure_future(come_and_go(through, stop)) for through in proxies]
        old.process.signal(signal.SIGTERM)
        asks_for_readiness = proxies[PROXIES.index("haproxy")]
        await until(lambda: asks_for_readiness.states()["gateway1"] == "DOWN", "gateway that is down")
        # At that moment it still had its clients and took more: it goes on for drain.notice.
        assert not old.process.ended() and await old.clients() >= of_old
        assert asks_for_readiness.states()["gateway2"] == "UP"
        await until(old.process.ended, "end of the drain")
        stop.set()
        assert all(served > 0 for served in await asyncio.gather(*others))
        codes = [await one.reading for one in stayers if one.reading.done()]
        assert codes == [3001] * of_old, codes
        assert await new.clients() >= len(stayers) - of_old
