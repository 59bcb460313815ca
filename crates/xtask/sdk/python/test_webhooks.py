"""A backend that decides about clients, as the unmodified Python client `centrifuge-python` sees it."""

import json
import time

import pytest
from centrifuge import CentrifugeError, Client, SubscriptionState

from coroutines import DEADLINE, scenario
from hooked import hooked
from support import Publications, States, connected, fresh, payload, refusal, subscribe

either_format = pytest.mark.parametrize("form", ["json", "protobuf"])


def as_42(_):
    return {"result": {"user": "42", "info": {"name": "Ada"}}}


def unpacked(at, raw):
    return json.loads(raw) if at.form == "protobuf" else raw


async def code_of(call):
    """The code of the error that a call ends with; 0 for none."""
    try:
        await call
        return 0
    except CentrifugeError as error:
        return error.code


@either_format
@scenario
async def test_a_backend_says_who_comes_subscribes_publishes_and_is_called(form):
    async with hooked(form) as (backend, at):
        channel = fresh("asked:")
        backend.answers = {
            "connect": lambda body: {"result": {"user": body["data"]["user"], "info": {"name": "Ada"}}},
            "subscribe": lambda body: (
                {"error": {"code": 403, "message": "not a member"}} if body["channel"] != channel else {"result": {}}
            ),
            "publish": lambda body: {"result": {"data": body["data"].upper()}},
            "rpc": lambda body: {"result": {"data": {"method": body["method"], "sum": sum(body["data"])}}},
        }
        async with connected(at, data=at.pack({"user": "7"})) as client:
            subscription = await subscribe(client, channel)
            await subscription.publish(at.pack("hello"))
            (publication,) = await subscription.seen.count(1, "publications")
            assert (payload(publication), publication.info.user) == ("HELLO", "7")
            assert await refusal(client, fresh("asked:")) == 403
            result = await client.rpc("add", at.pack([1, 2]))
            assert unpacked(at, result.data) == {"method": "add", "sum": 3}
        (asked,) = backend.of("connect")
        assert (asked["protocol"], asked["data"]) == (form, {"user": "7"})
        assert [body["user"] for body in backend.of("subscribe")] == ["7", "7"]


@either_format
@scenario
async def test_a_backend_says_who_stays_when_the_time_is_really_over(form):
    async with hooked(form) as (backend, at):
        soon = lambda: int(time.time()) + 1  # noqa: E731
        backend.answers = {
            "connect": lambda _: {"result": {"user": "42", "expire_at": soon()}},
            "refresh": lambda _: {"result": {"expire_at": soon()} if len(backend.of("refresh")) < 3 else {"expired": True}},
        }
        async with connected(at) as client:
            await client.events.inbox.find(lambda state: state == ("connecting", 3005), "end of the connection")
            assert len(backend.of("refresh")) == 3


@either_format
@scenario
async def test_a_backend_that_refuses_a_client_is_obeyed(form):
    async with hooked(form) as (backend, at):
        backend.answers = {"connect": lambda _: {"disconnect": {"code": 4501, "reason": "banned"}}}
        events = States()
        client = Client(at.websocket, events=events, proxy=None, use_protobuf=form == "protobuf")
        await client.connect()
        await events.inbox.find(lambda state: state == ("disconnected", 4501), "end")


@either_format
@scenario
async def test_a_backend_that_is_slow_lying_or_down_costs_a_call_and_no_connection(form):
    async with hooked(form) as (backend, at):
        lies = [b"no JSON", b"{}", b"[]", b'{"error":{"code":100}}', b'{"result":7}', b" " * 5000]
        backend.answers = {"connect": as_42, "subscribe": lambda _: {"result": {}}, "rpc": lambda _: None}
        async with connected(at) as client:
            assert await code_of(client.rpc("slow", at.pack(None))) == 100
            for lie in lies:
                backend.answers["rpc"] = lambda _, lie=lie: (200, lie)
                assert await code_of(client.rpc("lie", at.pack(None))) == 100, lie
            backend.answers["rpc"] = lambda _: {"result": {}}
            assert await code_of(client.rpc("truth", at.pack(None))) == 0

            backend.stop()
            down = 'tidegate_webhook_calls_total{event="rpc",outcome="down"}'
            before = await at.metric(down)
            for _ in range(50):
                assert await code_of(client.rpc("", at.pack(None))) == 100
                if await at.metric(down) > before:
                    break
            else:
                raise AssertionError("it is called again and again")
            events = Publications()
            subscription = client.new_subscription(
                fresh("asked:"), events=events, min_resubscribe_delay=0.02, max_resubscribe_delay=0.1
            )
            await subscription.subscribe()
            backend.start()
            await subscription.ready(timeout=DEADLINE)
            assert subscription.state == SubscriptionState.SUBSCRIBED
            assert [state for state, _ in client.events.inbox.all] == ["connecting", "connected"]
