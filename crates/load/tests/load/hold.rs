//! `hold` and `churn`: clients come, answer pings, leave with a close frame, and say why where they could not.

use crate::fake::{Fault, Run, Server, load};
use std::net::{IpAddr, Ipv4Addr, TcpListener};

fn hold(server: &Server, more: &[&str]) -> Run {
    let url = server.url("");
    let fixed = ["hold", "--json", "--url", &url, "--connections", "4", "--for", "300ms", "--timeout", "2s"];
    load(&[&fixed[..], more].concat())
}

#[test]
fn pings_of_both_kinds_are_answered_and_counted() {
    let server = Server::start(Fault::None);
    let run = hold(&server, &[]);
    assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
    assert_eq!(run.report["pings"], serde_json::json!({"total": 8, "min": 2, "max": 2}));
    let seen = server.seen();
    assert_eq!((seen.pongs, seen.answers, seen.closes), (4, 4, 4));
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
    let run = load(&["hold", "--url", &url, "--connections", "4000000000"]);
    assert_eq!((run.code, server.seen().sources.len()), (2, 0));
    assert!(run.stderr.contains("open files are needed"), "{}", run.stderr);
}
