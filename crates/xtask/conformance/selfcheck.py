"""Checks the harness itself: what it puts on the wire, and that it sees servers with known defects.

Started by `install` at its end and by `run --self-check`, inside the virtual environment.
"""

import base64
import hashlib
import random
import sys
from collections import Counter

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogBeginner

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept

from autobahntestsuite import py2
from autobahntestsuite.case import Cases

from harness import (ALL_IDS, CASE_ID, EXPECTED_CASES, ClientFuzzer, CloseReason, fails, group, quiet, reference_masker,
                     reference_validator, verdicts)


class Echo(CloseReason, WebSocketServerProtocol):
    """The library's own server: a testee that needs nothing else."""

    mute_pings = False

    def badReason(self):
        self.dropConnection()

    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, isBinary)

    def onPing(self, payload):
        if not self.mute_pings:
            super().onPing(payload)


class MutePings(Echo):
    mute_pings = True


class LaxUtf8(Echo):
    def connectionMade(self):
        self.utf8validateIncoming = False
        super().connectionMade()


class Corrupting(Echo):
    def onMessage(self, payload, isBinary):
        self.sendMessage(payload[:-1] + b"?" if payload else b"?", isBinary)


class BadReason(Echo):
    def onMessage(self, payload, isBinary):
        self.sendCloseFrame(1000, b"\xed\xa0\x80")


class WrongType(Echo):
    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, not isBinary)


class Tap(Protocol):
    """A raw server: completes the handshake, records the frames' octets, closes."""

    def connectionMade(self):
        self.buf, self.open = b"", False

    def dataReceived(self, data):
        self.buf += data
        if not self.open:
            if b"\r\n\r\n" not in self.buf:
                return
            head, self.buf = self.buf.split(b"\r\n\r\n", 1)
            key = [l.split(b":", 1)[1].strip() for l in head.split(b"\r\n")
                   if l.lower().startswith(b"sec-websocket-key:")][0]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                 b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            self.open = True
            # every case is given this long to send; then we drop TCP
            reactor.callLater(self.factory.wait, self.transport.loseConnection)

    def connectionLost(self, reason):
        self.factory.taken.append(self.buf)


def frames(raw):
    """(fin, rsv, opcode, payload) of a client's octets, unmasked without the code under check."""
    out = []
    while raw:
        b0, b1 = raw[0], raw[1]
        n, i = b1 & 127, 2
        if n == 126:
            n, i = int.from_bytes(raw[2:4], "big"), 4
        elif n == 127:
            n, i = int.from_bytes(raw[2:10], "big"), 10
        assert b1 & 128, "unmasked"
        mask, body = raw[i:i + 4], raw[i + 4:i + 4 + n]
        out.append((b0 >> 7, (b0 >> 4) & 7, b0 & 15, bytes(c ^ mask[k & 3] for k, c in enumerate(body))))
        raw = raw[i + 4 + n:]
    return out


KOSME = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()  # the Greek word the suite uses
SURROGATE = b"\xed\xa0\x80edited"
UMLAUTS = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!".encode()

# What must be on the wire, written down by hand from the cases' descriptions.
WIRE = {
    "1.1.2": [(1, 0, 1, b"*" * 125)],
    "1.2.5": [(1, 0, 2, b"\xfe" * 128)],
    "2.3": [(1, 0, 9, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
    "2.5": [(1, 0, 9, b"\xfe" * 126)],
    "3.1": [(1, 1, 1, b"Hello, world!")],
    "4.2.1": [(1, 0, 11, b"")],
    "5.3": [(0, 0, 1, b"fragment1"), (1, 0, 0, b"fragment2")],
    "6.2.1": [(1, 0, 1, UMLAUTS)],
    "6.3.1": [(1, 0, 1, KOSME + SURROGATE)],
    "6.6.1": [(1, 0, 1, b"\xce")],
    "6.23.1": [(1, 0, 1, b"\xef\xbf\xb9")],
    "7.1.5": [(0, 0, 1, b"fragment1"), (1, 0, 8, b"\x03\xe8"), (1, 0, 0, b"fragment2")],
    "7.3.2": [(1, 0, 8, b"a")],
    "7.3.4": [(1, 0, 8, b"\x03\xe8Hello World!")],
    "7.3.6": [(1, 0, 8, b"\x03\xe8" + b"*" * 124)],
    "7.5.1": [(1, 0, 8, b"\x03\xe8" + KOSME + SURROGATE)],
    "7.9.3": [(1, 0, 8, b"\x03\xec")],
}

# (testee, cases, ids that must not pass): a harness that cannot see these is useless.
CONTROLS = [
    (Echo, ["1.1.1", "1.1.2", "1.2.6", "2.2", "2.5", "3.1", "4.1.1", "5.3", "5.9", "6.2.1", "6.3.1",
            "6.5.1", "6.12.1", "7.1.1", "7.3.4", "7.5.1", "7.9.1", "10.1.1", "12.1.1", "13.2.1"], []),
    (MutePings, ["1.1.1", "2.1", "2.2", "2.6"], ["2.1", "2.2", "2.6"]),
    (LaxUtf8, ["6.2.1", "6.3.1", "6.12.1", "6.20.1"], ["6.3.1", "6.12.1", "6.20.1"]),
    (Corrupting, ["1.1.2", "1.2.2", "6.2.1", "12.1.1", "13.1.1"],
     ["1.1.2", "1.2.2", "6.2.1", "12.1.1", "13.1.1"]),
    (BadReason, ["1.1.2", "7.1.1"], ["1.1.2", "7.1.1"]),
    (WrongType, ["1.1.2", "1.2.2", "9.2.1", "12.1.1"], ["1.1.2", "1.2.2", "9.2.1", "12.1.1"]),
]


def self_check():
    bad = []

    def check(ok, text):
        if not ok:
            bad.append(text)
            print("self-check FAILED: %s" % text)

    counts = Counter(map(group, ALL_IDS))
    check(counts == EXPECTED_CASES and len(ALL_IDS) == 517, "case counts %r" % dict(counts))
    for c in Cases:  # the suite's own idea of validity against the runtime's decoder
        if hasattr(c, "isValid"):
            try:
                c.PAYLOAD.encode("latin-1").decode("utf-8")
                valid = True
            except UnicodeDecodeError:
                valid = False
            check(valid == c.isValid, "validity of %s" % CASE_ID[c])
    rng = random.Random(1)
    for n in [0, 1, 2, 3, 4, 5, 7, 127, 128, 1000, 65537]:  # shortcuts against the library's code
        mask, data = rng.randbytes(4), rng.randbytes(n)
        a, b, cut = reference_masker(mask, n), py2.FastXorMasker(mask), rng.randrange(n + 1)
        check((a.process(data[:cut]), a.process(data[cut:]), a.pointer())
              == (b.process(data[:cut]), b.process(data[cut:]), b.pointer()), "masker, %d octets" % n)
    samples = [c.PAYLOAD.encode("latin-1") for c in Cases if hasattr(c, "isValid")]
    samples += ["".join(chr(rng.choice([65, 0xe9, 0x20ac, 0x1f600])) for _ in range(50)).encode() for _ in range(200)]
    for s in samples:
        for _ in range(4):
            k = rng.randrange(len(s) + 1)
            a, b = reference_validator(), py2.FastUtf8Validator()
            check([a.validate(s[:k]), a.validate(s[k:])] == [b.validate(s[:k]), b.validate(s[k:])],
                  "validator, %r at %d" % (s, k))

    jobs = [("wire", Tap, list(WIRE), None)] + [("testee " + p.__name__, p, ids, must) for p, ids, must in CONTROLS]
    seen = []
    active = {}

    def problem(event):
        if "fuzzer" in active:
            active["fuzzer"].problem(event)

    globalLogBeginner.beginLoggingTo([problem], redirectStandardIO=False, discardBuffer=True)

    def listen(kind):
        if kind is Tap:
            f = Factory()
            f.protocol, f.taken, f.wait, f.noisy = Tap, [], 0.1, False
            return reactor.listenTCP(0, f, interface="127.0.0.1"), f
        f = WebSocketServerFactory("ws://127.0.0.1:9", server="self-check")
        f.protocol, f.noisy = kind, False
        f.setProtocolOptions(failByDrop=False, perMessageCompressionAccept=lambda offers: next(
            (PerMessageDeflateOfferAccept(o) for o in offers if isinstance(o, PerMessageDeflateOffer)), None))
        port = reactor.listenTCP(0, f, interface="127.0.0.1")
        f.externalPort = port.getHost().port  # it compares the Host header with this
        return port, f

    def next_job():
        if not jobs:
            reactor.stop()
            return
        name, kind, ids, must = jobs.pop(0)
        port, server = listen(kind)

        def done():
            fuzzer = active["fuzzer"]
            rows = verdicts(fuzzer, ids)
            check(not (fuzzer.problems or fuzzer.aborted or fuzzer.unopened or fuzzer.expired), "%s: %s %s %s %s" % (
                name, fuzzer.aborted, fuzzer.problems[:1], list(fuzzer.unopened), list(fuzzer.expired)))
            if must is None:
                for case_id, raw in zip(ids, server.taken):
                    check(frames(raw) == WIRE[case_id], "octets of %s: %r" % (case_id, frames(raw)[:3]))
                check(len(server.taken) == len(ids), "wire: %d cases seen" % len(server.taken))
            else:
                for i in ids:
                    check(fails(rows[i], True) == (i in must), "%s: case %s gave %s" % (name, i, rows[i]))
            seen.append("%s %d" % (name, len(rows)))
            port.stopListening()
            reactor.callLater(0.05, next_job)

        active["fuzzer"] = ClientFuzzer("ws://127.0.0.1:%d" % port.getHost().port, "self-check", None, ids, 20,
                                        quiet, done)

    def overdue():
        check(False, "time limit")
        reactor.stop()

    reactor.callWhenRunning(next_job)
    reactor.callLater(120, overdue)
    reactor.run()
    check(len(seen) == 1 + len(CONTROLS), "jobs done: %r" % seen)
    print("self-check: 517 cases known; %s; %s" % (", ".join(seen), "%d problems" % len(bad)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(self_check())
