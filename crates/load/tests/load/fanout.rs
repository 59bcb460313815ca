//! `fanout` finds whatever a server does wrong with publications, and nothing where it does all right.

use crate::fake::{Fault, Reaches, Run, Server, load};

const CLIENTS: u64 = 5;
const PUBLICATIONS: u64 = 10;

fn fanout_with(fault: Fault, more: &[&str]) -> (Run, Server) {
    let server = Server::start(fault);
    let (url, api) = (server.url(""), if more.contains(&"nats") { server.nats() } else { server.api() });
    let fixed = ["fanout", "--json", "--url", &url, "--api", &api, "--connections", "5", "--publications", "10"];
    let times = ["--rate", "500", "--drain", "1s", "--timeout", "2s"];
    (load(&[&fixed[..], &times, more].concat()), server)
}

fn fanout(fault: Fault) -> Run {
    fanout_with(fault, &[]).0
}

#[track_caller]
fn assert_clean(run: &Run) {
    assert_eq!(run.faults(), [], "{}", run.report);
    assert_eq!((run.code, run.number("connections")), (0, CLIENTS), "{}\n{}", run.report, run.stderr);
    assert_eq!(run.number("sent"), PUBLICATIONS);
}

#[test]
fn a_server_without_faults_passes_in_every_dialect() {
    for dialect in ["centrifugo", "plain", "raw", "nchan", "nats"] {
        let (run, server) = fanout_with(Fault::None, &["--dialect", dialect, "--publishers", "2"]);
        assert_clean(&run);
        assert_eq!(run.number("received"), CLIENTS * PUBLICATIONS, "{dialect}");
        assert_eq!(server.seen().closes, 5, "every client leaves with a close frame");
        for percentile in ["p50", "p90", "p99", "p999", "max"] {
            assert!(run.report["latency_us"][percentile].is_u64(), "{}", run.report);
        }
    }
}

#[test]
fn channels_share_the_clients_and_personal_ones_are_added() {
    let (run, server) = fanout_with(Fault::None, &["--channels", "2", "--personal", "1", "--channel", "ns:c"]);
    assert_clean(&run);
    // Clients 0, 2 and 4 have the first channel; publications alternate.
    assert_eq!(run.number("received"), 3 * 5 + 2 * 5);
    let subscribed = server.seen().subscribed;
    assert_eq!((subscribed["ns:c.0"], subscribed["ns:c.1"], subscribed["ns:c.4.0"]), (3, 2, 1));
}

#[test]
fn faults_are_found_in_the_dialects_of_others_too() {
    for dialect in ["raw", "nats"] {
        for (fault, found) in [
            (Fault::Drop, &[("lost", 1)][..]),
            (Fault::Duplicate, &[("duplicated", 1)]),
            (Fault::Swap, &[("out_of_order", 1)]),
            (Fault::Misdeliver, &[("misdelivered", 1)]),
            (Fault::Corrupt, &[("lost", 1), ("foreign", 1)]),
            (Fault::Close, &[("lost", 4), ("disconnected", 1)]),
        ] {
            let (run, _) = fanout_with(fault, &["--dialect", dialect, "--channels", "2"]);
            assert_eq!((&run.faults()[..], run.code), (found, 1), "{dialect} {fault:?} {}\n{}", run.report, run.stderr);
        }
    }
}

#[test]
fn a_publication_that_nats_refuses_is_refused() {
    let (run, server) = fanout_with(Fault::RefusePublication, &["--dialect", "nats"]);
    assert_eq!((run.faults(), run.code), (vec![], 1), "{}", run.report);
    assert_eq!((run.number("sent"), run.report["publishing"]["refused"].as_u64()), (9, Some(1)));
    assert!(run.stderr.contains("the server refused: Permissions Violation"), "{}", run.stderr);
    assert_eq!(server.seen().answers, 5, "each client has answered the server's PING");
}

#[test]
fn a_dropped_publication_is_lost() {
    let run = fanout(Fault::Drop);
    assert_eq!(run.faults(), [("lost", 1)]);
    assert_eq!(run.code, 1);
    assert_eq!(run.number("received"), CLIENTS * PUBLICATIONS - 1);
}

#[test]
fn a_doubled_publication_is_duplicated() {
    let run = fanout(Fault::Duplicate);
    assert_eq!((run.faults(), run.code), (vec![("duplicated", 1)], 1));
}

#[test]
fn two_swapped_publications_are_out_of_order() {
    let run = fanout(Fault::Swap);
    assert_eq!((run.faults(), run.code), (vec![("out_of_order", 1)], 1));
}

#[test]
fn publications_of_two_publishers_in_another_order_than_elsewhere_are_out_of_order() {
    let (run, _) = fanout_with(Fault::SwapPublishers, &["--publishers", "2"]);
    assert_eq!((run.faults(), run.code), (vec![("out_of_order", 1)], 1));
}

#[test]
fn a_publication_for_somebody_else_is_misdelivered() {
    let (run, _) = fanout_with(Fault::Misdeliver, &["--channels", "2"]);
    assert_eq!((run.faults(), run.code), (vec![("misdelivered", 1)], 1));
}

#[test]
fn a_publication_with_one_wrong_letter_is_foreign_and_the_right_one_lost() {
    let run = fanout(Fault::Corrupt);
    assert_eq!((run.faults(), run.code), (vec![("lost", 1), ("foreign", 1)], 1));
}

#[test]
fn a_closed_client_is_disconnected_and_lacks_the_rest() {
    let run = fanout(Fault::Close);
    assert_eq!((run.faults(), run.code), (vec![("lost", 8), ("disconnected", 1)], 1));
    assert!(run.stderr.contains("closed by the server: 3008 slow"), "{}", run.stderr);
}

#[test]
fn an_unsubscribed_client_is_disconnected_and_lacks_the_rest() {
    let run = fanout(Fault::Unsubscribe);
    assert_eq!((run.faults(), run.code), (vec![("lost", 8), ("disconnected", 1)], 1));
    assert!(run.stderr.contains("unsubscribed by the server: 2500 insufficient state"), "{}", run.stderr);
}

#[test]
fn a_client_that_cannot_subscribe_has_failed_with_the_reason_and_awaits_nothing() {
    let run = fanout(Fault::RefuseSubscribe);
    assert_eq!((run.faults(), run.code), (vec![("failed", 1)], 1));
    assert_eq!(run.number("received"), (CLIENTS - 1) * PUBLICATIONS);
    assert!(run.stderr.contains("subscribe refused: 103 permission denied"), "{}", run.stderr);
}

#[test]
fn a_refused_publication_is_a_fault_but_nothing_is_lost() {
    let run = fanout(Fault::RefusePublication);
    assert_eq!((run.faults(), run.code), (vec![], 1));
    assert_eq!((run.number("sent"), run.number("received")), (9, 9 * CLIENTS));
    assert_eq!(run.report["publishing"]["refused"], 1);
    assert!(run.stderr.contains("the API refused a publication: 100"), "{}", run.stderr);
}

#[test]
fn an_unanswered_publication_may_reach_all_or_nobody_but_not_some() {
    for (reaches, lost) in [(Reaches::Nobody, 0), (Reaches::All, 0), (Reaches::AllButVictim, 1)] {
        let run = fanout(Fault::LoseAnswer(reaches));
        assert_eq!(run.number("lost"), lost, "{reaches:?} {}", run.report);
        assert_eq!(run.report["publishing"]["unknown"], 1);
        assert_eq!(run.code, 1);
    }
}

#[test]
fn a_burst_is_due_at_once_and_arrives_whole_in_order() {
    // One by one the last of them is due after nine seconds.
    let more = ["--publishers", "4", "--burst", "10", "--rate", "1"];
    let server = Server::start(Fault::None);
    let (url, api) = (server.url(""), server.api());
    let fixed = ["fanout", "--json", "--url", &url, "--api", &api, "--connections", "5", "--publications", "10"];
    let run = load(&[&fixed[..], &more].concat());
    assert_clean(&run);
    assert_eq!(run.number("received"), CLIENTS * PUBLICATIONS);
    let seconds = run.report["seconds"].as_f64().unwrap();
    assert!(seconds < 9.0, "{seconds} s");
}

#[test]
fn probes_report_beside_the_subscribers_before_and_during_publishing() {
    let server = Server::start(Fault::None);
    let (url, api) = (server.url(""), server.api());
    let run = load(&[
        "fanout",
        "--json",
        "--url",
        &url,
        "--api",
        &api,
        "--connections",
        "5",
        "--publications",
        "50",
        "--rate",
        "100",
        "--echo-probe",
        &url,
        "--accept-probe",
        "50",
        "--baseline",
        "300ms",
    ]);
    assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
    for when in ["idle", "loaded"] {
        let probe = &run.report["probes"][when];
        assert!(probe["echo"]["received"].as_u64() >= Some(20), "{probe}");
        assert!(probe["echo"]["latency_us"]["p99"].is_u64(), "{probe}");
        assert!(probe["accept"]["accepted"].as_u64() >= Some(10), "{probe}");
        assert_eq!(probe["echo"]["faults"].as_u64().zip(probe["accept"]["faults"].as_u64()), Some((0, 0)), "{probe}");
    }
}

#[test]
fn a_fault_that_only_a_probe_meets_counts_with_its_reason() {
    // The echo probe is the first client of its server, and the subscribers have another one.
    let (server, probed) = (Server::start(Fault::None), Server::start(Fault::Close));
    let (url, api, probe) = (server.url(""), server.api(), probed.url(""));
    let run = load(&[
        "fanout",
        "--json",
        "--url",
        &url,
        "--api",
        &api,
        "-n",
        "2",
        "--publications",
        "20",
        "--rate",
        "100",
        "--echo-probe",
        &probe,
    ]);
    assert_eq!((run.faults(), run.code), (vec![], 1), "{}", run.report);
    assert!(run.stderr.contains("1 x echo probe: closed by the server: 3008 slow"), "{}", run.stderr);
}

#[test]
fn a_command_line_that_cannot_be_is_refused_and_its_twin_is_not() {
    let server = Server::start(Fault::None);
    let (url, api) = (server.url(""), server.api());
    let with = |more: &[&str]| {
        let fixed = ["fanout", "--json", "--url", &url, "--api", &api, "-n", "1", "--publications", "1"];
        load(&[&fixed[..], more].concat()).code
    };
    for (bad, good) in [
        (&["--dialect", "none"][..], &["--dialect", "plain"][..]),
        (&["--dialect", "nats"], &["--dialect", "raw"]),
        (&["--dialect", "raw", "--key", "k"], &["--key", "k"]),
        (&["--dialect", "raw", "--personal", "1"], &["--personal", "1"]),
        (&["--loops", "0"], &["--loops", "1"]),
        (&["--loops", "few"], &["--loops", "auto"]),
        (&["--size", "39"], &["--size", "40"]),
        (&["--rate", "0"], &["--rate", "1"]),
        (&["--channel", "a,b"], &["--channel", "a.b"]),
        (&["--baseline", "1ms"], &["--baseline", "1ms", "--accept-probe", "1"]),
        (&["--publishers", "257"], &["--publishers", "256"]),
        (&["--burst", "0"], &["--burst", "1"]),
        (&["--burst", "65537"], &["--burst", "65536"]),
    ] {
        assert_eq!((with(bad), with(good)), (2, 0), "{bad:?}");
    }
}
