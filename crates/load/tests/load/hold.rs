//! `hold` and `churn`: clients come, answer pings, leave with a close frame, and say why where they could not.

use crate::fake::{Fault, Run, Server, load};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

fn hold(server: &Server, more: &[&str]) -> Run {
    let url = server.url("");
    let fixed = ["hold", "--json", "--url", &url, "--timeout", "2s"];
    let usual = [["-n", "4"], ["--for", "300ms"]];
    let usual = usual.iter().filter(|[flag, _]| !more.contains(flag)).flatten().copied();
    load(&fixed.into_iter().chain(usual).chain(more.iter().copied()).collect::<Vec<_>>())
}

#[test]
fn pings_of_both_kinds_are_answered_and_counted() {
    let server = Server::start(Fault::None);
    let run = hold(&server, &[]);
    assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
    assert_eq!(run.report["pings"], serde_json::json!({"total": 8, "min": 2, "median": 2, "max": 2}));
    let seen = server.seen();
    assert_eq!((seen.pongs, seen.answers, seen.closes), (4, 4, 4));
}

#[test]
fn pings_of_the_measured_part_are_counted_per_client() {
    let server = Server::start(Fault::ForgetPings);
    let run = hold(&server, &["--dialect", "none", "--for", "1s"]);
    let pings = |of: &str, what: &str| run.report[of][what].as_u64().unwrap();
    assert_eq!(run.code, 0, "{}\n{}", run.report, run.stderr);
    assert_eq!(pings("pings_held", "min"), 0, "the victim is never pinged: {}", run.report);
    assert!(pings("pings_held", "median") > 0 && pings("pings_held", "max") > 0, "{}", run.report);
    assert!(pings("pings_held", "total") <= pings("pings", "total"), "{}", run.report);
    // What comes behind a close frame is counted, not answered.
    assert!(u64::from(server.seen().pongs) <= pings("pings", "total"), "{}", run.report);
    assert!(u64::from(server.seen().pongs) >= pings("pings_held", "total"), "{}", run.report);
}

#[test]
fn a_plain_client_leaves_the_dialects_ping_unanswered() {
    let server = Server::start(Fault::None);
    let run = hold(&server, &["--dialect", "plain"]);
    assert_eq!((run.code, run.report["pings"]["total"].as_u64()), (0, Some(8)));
    let seen = server.seen();
    assert_eq!((seen.pongs, seen.answers), (4, 0));
}

#[test]
fn a_client_without_a_dialect_says_nothing() {
    let server = Server::start(Fault::None);
    let run = hold(&server, &["--dialect", "none"]);
    assert_eq!((run.code, run.number("connections"), run.number("received")), (0, 4, 0), "{}", run.report);
}

#[test]
fn a_client_without_a_dialect_cannot_have_channels() {
    let server = Server::start(Fault::None);
    assert_eq!(hold(&server, &["--dialect", "none", "--personal", "1"]).code, 2);
    assert_eq!(hold(&server, &["--dialect", "plain", "--personal", "1"]).code, 0);
}

#[test]
fn clients_come_from_an_address_of_their_own() {
    let server = Server::start(Fault::None);
    hold(&server, &[]);
    let sources: Vec<IpAddr> = server.seen().sources.into_iter().collect();
    assert_eq!(sources, [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))]);
}

#[test]
fn our_own_memory_is_reported_beside_the_loops() {
    let run = hold(&Server::start(Fault::None), &["--loops", "2"]);
    assert_eq!(run.number("loops"), 2);
    assert!(run.number("generator_rss_bytes") > 1_000_000, "{}", run.report);
}

#[test]
fn the_servers_memory_and_cpu_are_reported_when_asked_for() {
    let server = Server::start(Fault::None);
    let pid = std::process::id().to_string();
    let url = server.url("");
    let echo = ["echo", "--json", "--url", &url, "-n", "4", "--for", "300ms", "--server-pid", &pid];
    let run = load(&echo);
    assert!(run.report["server"]["rss_bytes"].as_u64() > Some(0), "{}", run.report);
    assert!(run.report["server"]["cpu_seconds"].as_f64() > Some(0.0), "{}", run.report);
    assert!(run.report["generator_busy"].as_f64() > Some(0.0), "{}", run.report);
    assert_eq!(hold(&server, &[]).report.get("server"), None);
    assert_eq!(hold(&server, &["--server-pid", "4294967295"]).code, 2);
}

#[test]
fn a_refused_client_has_failed_and_the_others_stay() {
    for (fault, reason) in [
        (Fault::RefuseUpgrade, "the server answered with 503"),
        (Fault::Silent, "no answer to the upgrade request in time"),
        (Fault::RefuseSubscribe, "subscribe refused: 103 permission denied"),
    ] {
        let server = Server::start(fault);
        let run = hold(&server, &[]);
        assert_eq!((run.faults(), run.code), (vec![("failed", 1)], 1), "{fault:?} {}", run.report);
        assert_eq!(run.number("connections"), 3);
        assert_eq!(run.report["reasons"][reason], 1, "{}", run.report);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
    }
}

#[test]
fn clients_leave_at_the_rate_at_which_they_came() {
    for loops in ["1", "3"] {
        let server = Server::start(Fault::None);
        let started = Instant::now();
        let run = hold(&server, &["-n", "11", "--open-rate", "20", "--for", "100ms", "--loops", loops]);
        assert_eq!((run.faults(), run.code, server.seen().closes), (vec![], 0, 11), "{}", run.report);
        // Ten steps of 50 ms each way. None is taken early, so no machine is fast enough to make this less.
        assert!(started.elapsed() >= Duration::from_millis(500 + 100 + 500), "{:?}", started.elapsed());
    }
}

#[test]
fn a_broadcast_at_the_end_reaches_each_client_exactly_once() {
    for dialect in ["centrifugo", "plain", "raw"] {
        let server = Server::start(Fault::None);
        let run = hold(&server, &["--broadcast", &server.api(), "--dialect", dialect, "--channels", "2"]);
        assert_eq!((run.faults(), run.code), (vec![], 0), "{dialect} {}\n{}", run.report, run.stderr);
        assert_eq!((run.number("sent"), run.number("received")), (2, 4), "one for each channel, two clients each");
        assert!(run.report["latency_us"]["p50"].is_u64(), "{}", run.report);
    }
}

#[test]
fn a_broadcast_that_goes_wrong_is_noticed() {
    for (fault, found) in [
        (Fault::Drop, &[("lost", 1)][..]),
        (Fault::Duplicate, &[("duplicated", 1)]),
        (Fault::Corrupt, &[("lost", 1), ("foreign", 1)]),
        (Fault::RefusePublication, &[]),
    ] {
        let server = Server::start_with(fault, 1);
        let run = hold(&server, &["--broadcast", &server.api(), "--drain", "300ms"]);
        assert_eq!((&run.faults()[..], run.code), (found, 1), "{fault:?} {}", run.report);
    }
    let server = Server::start_with(Fault::Misdeliver, 1);
    let run = hold(&server, &["--broadcast", &server.api(), "--channels", "4", "--drain", "300ms"]);
    assert_eq!((run.faults(), run.code), (vec![("misdelivered", 1)], 1), "{}", run.report);
}

#[test]
fn an_unanswered_close_frame_is_unclean() {
    let server = Server::start(Fault::AbruptClose);
    let run = hold(&server, &[]);
    assert_eq!((run.faults(), run.code), (vec![("unclean", 1)], 1), "{}", run.report);
}

#[test]
fn where_nobody_listens_every_client_fails_with_the_reason() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{address}");
    for scenario in ["hold", "echo", "churn"] {
        let run = load(&[scenario, "--json", "--url", &url, "--connections", "2", "--for", "100ms"]);
        assert_eq!(run.code, 1, "{scenario} {}", run.report);
        assert!(run.number("failed") >= 2, "{scenario} {}", run.report);
        assert!(run.stderr.contains("Connection refused"), "{}", run.stderr);
    }
}

#[test]
fn churn_lets_clients_come_at_their_rate_and_leave_cleanly() {
    for dialect in ["none", "centrifugo"] {
        let server = Server::start(Fault::None);
        let url = server.url("");
        let churn = ["churn", "--json", "--url", &url, "--connections", "8", "--rate", "200", "--for", "300ms"];
        let run = load(&[&churn[..], &["--dialect", dialect]].concat());
        assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
        assert!((20..=200).contains(&run.number("sent")), "{}", run.report);
        assert_eq!(run.number("sent"), run.number("received"));
        assert_eq!(u64::from(server.seen().closes), run.number("received"));
        assert!(run.report["latency_us"]["p99"].is_u64());
    }
}

#[test]
fn more_clients_than_open_files_are_refused_before_the_first_one() {
    let server = Server::start(Fault::None);
    let url = server.url("");
    let run = load(&["hold", "--url", &url, "-n", "4000000000"]);
    assert_eq!((run.code, server.seen().sources.len()), (2, 0));
    assert!(run.stderr.contains("open files are needed"), "{}", run.stderr);
}
