"""Runs the converted suite. Started by `run`, inside the virtual environment; `selfcheck.py` checks it."""

import argparse
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from pathlib import Path

from twisted.internet import reactor
from twisted.logger import LogLevel, formatEvent, globalLogBeginner

import autobahn.websocket.protocol as wsproto
import autobahn.websocket.xormasker as xormasker
from autobahn.twisted.websocket import listenWS

import autobahntestsuite
from autobahntestsuite import fuzzing, py2
from autobahntestsuite.case import Cases

# What the release holds; the self-check compares (no groups 8 and 11; 9.9 is switched off in it).
EXPECTED_CASES = OrderedDict([(1, 16), (2, 11), (3, 7), (4, 10), (5, 20), (6, 145), (7, 37),
                              (9, 54), (10, 1), (12, 90), (13, 126)])
DEFLATE_GROUPS = (12, 13)

CASE_ID = {c: c.__name__[4:].replace("_", ".") for c in Cases}
BY_ID = {i: c for c, i in CASE_ID.items()}
ALL_IDS = sorted(CASE_ID.values(), key=lambda i: tuple(map(int, i.split("."))))


def group(case_id):
    return int(case_id.split(".")[0])


# --- joining the suite and the library to our str/bytes border -----------------------------------

def quiet(*_):
    pass


fuzzing.print = quiet
fuzzing.asciiLogData = py2.text_log
fuzzing.binLogData = py2.hex_log
reference_masker, reference_validator = xormasker.createXorMasker, wsproto.Utf8Validator
wsproto.createXorMasker = lambda mask, length=None: py2.FastXorMasker(mask)
wsproto.Utf8Validator = py2.FastUtf8Validator
for _case in Cases:
    _case.DESCRIPTION, _case.EXPECTATION = py2.readable(_case.DESCRIPTION), py2.readable(_case.EXPECTATION)


class CloseReason:
    """The library reports a close reason that is not UTF-8 and then trips over it."""

    def onCloseFrame(self, code, reasonRaw):
        try:
            return super().onCloseFrame(code, reasonRaw)
        except UnicodeDecodeError:
            self.badReason()
            return True

    def badReason(self):
        pass


class Watched(CloseReason, py2.Boundary):
    """Adds to a fuzzing protocol: our border, a time limit per case, facts the suite drops."""

    _limit = None

    def connectionMade(self):
        self._began = time.monotonic()
        super().connectionMade()

    def onOpen(self):
        if self.runCase:
            self._limit = reactor.callLater(self.factory.case_limit, self._expired)
        super().onOpen()

    def badReason(self):
        if self.runCase:
            self.factory.bad_reason.add(CASE_ID[self.Case])

    def _expired(self):
        self._limit = None
        self.factory.expired.add(CASE_ID[self.Case])
        self.dropConnection(abort=True)

    def connectionLost(self, reason):
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if self.runCase:
            case_id = CASE_ID[self.Case]
            self.factory.seconds[case_id] = time.monotonic() - self._began
            if not self.connectionWasOpen:
                self.factory.unopened[case_id] = self.wasNotCleanReason or "no opening handshake"
        super().connectionLost(reason)


class WatchedClientProtocol(Watched, fuzzing.FuzzingClientProtocol):
    pass


class WatchedServerProtocol(Watched, fuzzing.FuzzingServerProtocol):
    pass


fuzzing.FuzzingClientProtocol = WatchedClientProtocol


class Recorder:
    """Mixin for the factories: collects results and problems of a run."""

    def prepare(self, wanted, case_limit, progress):
        self.wanted, self.case_limit, self.progress = wanted, case_limit, progress
        self.results, self.seconds, self.unopened = {}, {}, {}
        self.expired, self.bad_reason = set(), set()
        self.problems = []  # errors inside the suite or the library: (case id or None, text)
        self.aborted, self.finished = None, False

    def logCase(self, result):
        result = py2.readable(result)
        case_id = result["id"]
        if case_id in self.expired:
            result["behavior"], result["result"] = "FAILED", "No end within %g seconds." % self.case_limit
        elif case_id in self.unopened:
            result["behavior"], result["result"] = "FAILED", self.unopened[case_id]
        if case_id in self.bad_reason:
            result["behaviorClose"], result["resultClose"] = "FAILED", "The peer's close reason is not UTF-8."
        self.results[case_id] = result
        self.progress(self, case_id)
        super().logCase(result)

    def write_reports(self):
        fuzzing.FuzzingFactory.createReports(self)

    def problem(self, event):
        failure = event.get("log_failure")
        if failure is None and event.get("log_level", LogLevel.info) < LogLevel.error:
            return
        text = failure.getTraceback() if failure else formatEvent(event)
        self.problems.append((getattr(self, "currentCaseId", None), text.strip()))

    def finish(self):
        if not self.finished:
            self.finished = True
            reactor.stop()


class ClientFuzzer(Recorder, fuzzing.FuzzingClientFactory):
    """Plays the client against a server under test, one case after the other."""

    noisy = False

    def __init__(self, url, agent, out, wanted, case_limit, progress, done=None):
        self.prepare(wanted, case_limit, progress)
        self.done = done or self.finish
        super().__init__({"outdir": out, "servers": [{"url": url, "agent": agent}], "cases": wanted})

    def clientConnectionLost(self, connector, reason):
        if len(self.unopened) >= 5 and len(self.unopened) == len(self.results):
            self.aborted = "the first %d opening handshakes failed" % len(self.unopened)
        elif self.nextCase():
            connector.connect()
            return
        self.done()

    def clientConnectionFailed(self, connector, reason):
        self.aborted = "cannot connect: %s" % reason.getErrorMessage()
        self.done()


class ServerFuzzer(Recorder, fuzzing.FuzzingServerFactory):
    """Plays the server; a client under test connects once per case."""

    protocol = WatchedServerProtocol
    noisy = False

    def __init__(self, url, out, wanted, case_limit, progress):
        self.prepare(wanted, case_limit, progress)
        super().__init__({"outdir": out, "url": url, "cases": wanted})

    def logCase(self, result):
        super().logCase(result)
        if len(self.results) == len(self.wanted):
            reactor.callLater(2, self.finish)

    def createReports(self, *args):  # the client asked for it: it is through
        reactor.callLater(0.2, self.finish)


# --- verdicts ------------------------------------------------------------------------------------

HARD = {"FAILED", "UNIMPLEMENTED", "MISSING", "HARNESS ERROR"}
HARD_CLOSE = {"FAILED", "WRONG CODE", "UNCLEAN"}


def verdicts(fuzzer, wanted):
    """case id -> (behaviour, close behaviour, remark)."""
    broken = {c: text for c, text in fuzzer.problems if c}
    rows = OrderedDict()
    for case_id in wanted:
        r = fuzzer.results.get(case_id)
        if r is None:
            rows[case_id] = ("MISSING", "-", "case did not run")
        elif case_id in broken:
            rows[case_id] = ("HARNESS ERROR", r["behaviorClose"], broken[case_id].splitlines()[-1])
        else:
            remark = r["result"] if r["behavior"] != "OK" else ""
            if r["behaviorClose"] not in ("OK", "INFORMATIONAL"):
                remark = (remark + " / " if remark else "") + r["resultClose"]
                if r["remoteCloseCode"] is not None:
                    remark += " (got %s)" % r["remoteCloseCode"]
            rows[case_id] = (r["behavior"], r["behaviorClose"], " ".join(remark.split()))
    return rows


def fails(row, strict):
    behaviour, close, _ = row
    if behaviour in HARD or close in HARD_CLOSE:
        return True
    return strict and (behaviour == "NON-STRICT" or close == "FAILED BY CLIENT")


COLUMNS = ["OK", "NON-STRICT", "INFORMATIONAL", "FAILED", "UNIMPLEMENTED", "MISSING"]
CLOSE_COLUMNS = ["FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT"]


def summary(fuzzer, wanted, strict, out):
    rows = verdicts(fuzzer, wanted)
    head = ["group", "cases", "ok", "non-str", "info", "failed", "unimpl", "missing",
            "c:failed", "c:code", "c:unclean", "c:client", "seconds"]
    table = []
    for g in sorted({group(i) for i in wanted}) + [None]:
        ids = [i for i in wanted if g is None or group(i) == g]
        b = Counter("FAILED" if rows[i][0] == "HARNESS ERROR" else rows[i][0] for i in ids)
        c = Counter(rows[i][1] for i in ids if rows[i][0] not in ("MISSING",))
        secs = sum(fuzzer.seconds.get(i, 0) for i in ids)
        table.append(["all" if g is None else str(g), len(ids)] + [b[k] for k in COLUMNS]
                     + [c[k] for k in CLOSE_COLUMNS] + ["%.1f" % secs])
    print()
    for line in [head] + table:
        print("  ".join(str(v).rjust(max(6, len(h))) for v, h in zip(line, head)))
    print("c: = behaviour in the closing handshake (wrong endpoint, wrong code, unclean, peer left TCP open)")

    odd = [i for i in wanted if rows[i][0] != "OK" or rows[i][1] != "OK"]
    if odd:
        print("\nnot OK:")
        missing = [i for i in odd if rows[i][0] == "MISSING"]
        for i in odd:
            if rows[i][0] != "MISSING":
                print("  %s %-9s %-14s %-16s %s" % ("!" if fails(rows[i], strict) else " ", i,
                                                    rows[i][0], rows[i][1], rows[i][2][:150]))
        if missing:
            print("  ! %d cases did not run: %s%s" % (len(missing), " ".join(missing[:12]),
                                                     " ..." if len(missing) > 12 else ""))
    stray = [t for c, t in fuzzer.problems if c is None]
    for case_id, text in fuzzer.problems[:5]:
        print("\nharness error%s:\n%s" % (" in " + case_id if case_id else "", text))
    failed = sum(fails(rows[i], strict) for i in wanted)
    passed = len(wanted) - failed
    ran = sum(rows[i][0] != "MISSING" for i in wanted)
    problems = []
    if fuzzer.aborted:
        problems.append(fuzzer.aborted)
    if ran < len(wanted):
        problems.append("%d of %d cases ran" % (ran, len(wanted)))
    if stray:
        problems.append("%d errors in the harness outside any case" % len(stray))
    if fuzzer.aborted or stray:
        failed = max(failed, 1)
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
        Path(out, "summary.json").write_text(json.dumps({
            "suite": autobahntestsuite.version, "cases": len(wanted), "ran": ran, "passed": passed,
            "failed": failed, "strict": strict, "problems": problems,
            "groups": [dict(zip(head, line)) for line in table],
            "results": {i: {"behavior": rows[i][0], "behaviorClose": rows[i][1], "remark": rows[i][2],
                            "seconds": round(fuzzer.seconds.get(i, 0), 3)} for i in wanted}}, indent=1))
        print("\nreport: %s" % Path(out, "index.html"))
    for p in problems:
        print("problem: %s" % p)
    print("%d passed, %d failed" % (passed, failed), flush=True)
    return 1 if failed else 0


class Progress:
    def __init__(self, total, label=""):
        self.label = label
        self.total, self.done, self.bad, self.group, self.t0 = total, 0, 0, None, time.monotonic()
        self.last = 0.0

    def __call__(self, fuzzer, case_id):
        self.done += 1
        r = fuzzer.results[case_id]
        if r["behavior"] in HARD or r["behaviorClose"] in HARD_CLOSE:
            self.bad += 1
        now = time.monotonic()
        if group(case_id) != self.group or now - self.last > 10 or self.done == self.total:
            self.group, self.last = group(case_id), now
            print("[%6.1f s] %s%d/%d  case %s  bad so far: %d" % (
                now - self.t0, self.label, self.done, self.total, case_id, self.bad), flush=True)


def select(patterns, excludes):
    """Case ids for comma-separated patterns; every pattern must name something."""
    def expand(lists):
        chosen = set()
        for p in filter(None, (q.strip() for text in lists for q in text.split(","))):
            rx = re.compile(re.escape(p).replace(r"\*", ".*"))
            found = [i for i in ALL_IDS if rx.fullmatch(i) or i.startswith(p + ".")]
            if not found:
                raise SystemExit("no case matches %r" % p)
            chosen.update(found)
        return chosen
    keep = expand(patterns) - expand(excludes)
    if not keep:
        raise SystemExit("no case is left to run")
    return [i for i in ALL_IDS if i in keep]


def clear(out):
    """No stale report may outlive a run that broke."""
    for pattern in ("index.html", "index.json", "summary.json", "*_case_*.html", "*_case_*.json"):
        for old in Path(out).glob(pattern):
            old.unlink()


class Started:
    """A client under test that we start; one that is gone before the last case ends the run."""

    LEAVE_S = 10  # for the client to end by itself once the report is asked for

    def __init__(self, program, fuzzer):
        self.fuzzer = fuzzer
        self.child = subprocess.Popen([program, "%s:%d" % (fuzzer.host, fuzzer.port)])
        reactor.callLater(0.5, self.look)

    def look(self):
        if self.child.poll() is None:
            reactor.callLater(0.5, self.look)
        elif not self.fuzzer.finished:
            reactor.callLater(1, self.fuzzer.finish)

    def judge(self):
        try:
            status = self.child.wait(self.LEAVE_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            status = "none; it was stopped"
        if status != 0 and not self.fuzzer.aborted:
            self.fuzzer.aborted = "the client ended with status %s" % status


def one_process(args, wanted):
    """Run the cases here, one after the other."""
    progress = Progress(len(wanted), args.label)
    if args.client_mode:
        fuzzer = ServerFuzzer(args.url, args.out, wanted, args.case_timeout, progress)
        listenWS(fuzzer, interface=fuzzer.host)
        print("%d cases; waiting for a client at %s" % (len(wanted), args.url), flush=True)
        if args.start:
            started = Started(args.start, fuzzer)
    else:
        fuzzer = ClientFuzzer(args.url, args.agent, args.out, wanted, args.case_timeout, progress)
    globalLogBeginner.beginLoggingTo([fuzzer.problem], redirectStandardIO=False, discardBuffer=True)

    def overdue():
        fuzzer.aborted = "time limit of %g seconds reached" % args.timeout
        fuzzer.finish()
    reactor.callLater(args.timeout, overdue)
    reactor.run()
    if args.client_mode and args.start:
        started.judge()
    return fuzzer


FACTS = ["agents", "cases", "results", "seconds", "unopened", "expired", "problems", "aborted"]


class Merged(Recorder, fuzzing.FuzzingFactory):
    """What several processes found."""

    def __init__(self, out, wanted):
        fuzzing.FuzzingFactory.__init__(self, out)
        self.prepare(wanted, 0, quiet)
        self.CaseSet = fuzzing.CaseSet("websocket", "Case", Cases, fuzzing.CaseCategories, fuzzing.CaseSubCategories)

    def add(self, facts):
        for agent, cases in facts["agents"].items():
            self.agents.setdefault(agent, {}).update(cases)
        for name in ("results", "seconds", "unopened"):
            getattr(self, name).update(facts[name])
        self.expired |= facts["expired"]
        self.problems += facts["problems"]
        self.aborted = self.aborted or facts["aborted"]


def weight(case_id):
    c = BY_ID[case_id]
    return getattr(c, "LEN", 0) * getattr(c, "COUNT", 0) + 10 ** 5


def several_processes(args, wanted):
    """Groups 1 to 10 in one process, as they watch the clock; then 12 and 13 in --jobs processes."""
    merged = Merged(args.out, wanted)
    heavy = [i for i in wanted if group(i) in DEFLATE_GROUPS]
    bins = [[0, []] for _ in range(args.jobs)]
    for i in sorted(heavy, key=weight, reverse=True):
        least = min(bins, key=lambda b: b[0])
        least[0] += weight(i)
        least[1].append(i)
    end = time.monotonic() + args.timeout
    for phase in [[i for i in wanted if i not in set(heavy)]], [b[1] for b in bins]:
        with tempfile.TemporaryDirectory() as tmp:
            children = []
            for n, ids in enumerate(filter(None, phase)):
                part = os.path.join(tmp, "%d" % n)
                children.append((part, subprocess.Popen([
                    sys.executable, "-B", __file__, "--url", args.url, "--agent", args.agent, "--cases", ",".join(ids),
                    "--timeout", str(max(1, end - time.monotonic())), "--case-timeout", str(args.case_timeout),
                    "--part", part, "--label", "job %d: " % (n + 1) if len(phase) > 1 else ""])))
            for part, child in children:
                rc = child.wait()
                if rc or not os.path.exists(part):
                    merged.aborted = "a process ended with status %d" % rc
                else:
                    with open(part, "rb") as f:
                        merged.add(pickle.load(f))
        if merged.aborted:
            break
    return merged


def run(args):
    wanted = select(args.cases or ["*"], args.exclude)
    if args.url.startswith("wss:") and fuzzing.ssl is None:
        raise SystemExit("wss:// needs more packages: install --tls")
    if args.part:
        fuzzer = one_process(args, wanted)
        with open(args.part, "wb") as f:
            pickle.dump({name: getattr(fuzzer, name) for name in FACTS}, f)
        return 0
    clear(args.out)
    if not args.client_mode:
        print("%d cases against %s" % (len(wanted), args.url), flush=True)
    several = args.jobs > 1 and not args.client_mode
    fuzzer = (several_processes if several else one_process)(args, wanted)
    fuzzer.write_reports()
    return summary(fuzzer, wanted, args.strict, args.out)


def main():
    p = argparse.ArgumentParser(prog="run", description="Runs the Autobahn WebSocket conformance suite.")
    p.add_argument("--url", default="ws://127.0.0.1:9001", help="server under test; with --client-mode: where to listen")
    p.add_argument("--cases", action="append", metavar="PATTERNS", help="comma-separated, e.g. '1.*,6.4.*' (default: all)")
    p.add_argument("--exclude", action="append", default=[], metavar="PATTERNS")
    p.add_argument("--out", default="target/conformance/report", help="folder of the report (HTML, JSON)")
    p.add_argument("--agent", default="server", help="name of the program under test in the report")
    p.add_argument("--strict", action="store_true", help="NON-STRICT fails too")
    p.add_argument("--timeout", type=float, default=1800, help="seconds for the whole run")
    p.add_argument("--case-timeout", type=float, default=480, help="seconds for one case")
    p.add_argument("--jobs", type=int, default=1, help="processes for groups 12 and 13 (default 1)")
    p.add_argument("--client-mode", action="store_true", help="be the server and test a client")
    p.add_argument("--start", metavar="PROGRAM", help="with --client-mode: start this client, with HOST:PORT behind it")
    p.add_argument("--list", action="store_true", help="print the chosen case ids and stop")
    p.add_argument("--part", help=argparse.SUPPRESS)
    p.add_argument("--label", default="", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.list:
        print("\n".join(select(args.cases or ["*"], args.exclude)))
        return 0
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
