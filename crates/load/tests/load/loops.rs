//! A fleet over several event loops is one fleet: the same clients, the same numbers, the same faults found.

use crate::fake::{Fault, Run, Server, load, load_with_files};
use std::net::{IpAddr, Ipv4Addr};

fn on_loops(loops: &str, fault: Fault, scenario: &[&str]) -> (Run, Server) {
    let server = Server::start(fault);
    let url = server.url("");
    let fixed = ["--json", "--url", &url, "--loops", loops, "--timeout", "2s", "--drain", "1s"];
    (load(&[&scenario[..1], &fixed, &scenario[1..]].concat()), server)
}

fn fanout(fault: Fault, more: &[&str]) -> Run {
    let server = Server::start(fault);
    let (url, api) = (server.url(""), server.api());
    let fixed = ["fanout", "--json", "--url", &url, "--api", &api, "-n", "10", "--publications", "10", "--loops", "3"];
    load(&[&fixed[..], &["--rate", "500", "--drain", "1s"], more].concat())
}

#[test]
fn more_clients_than_one_table_has_files_for_are_held_by_loops_with_tables_of_their_own() {
    let server = Server::start(Fault::None);
    let (url, api) = (server.url(""), server.api());
    let hold = ["hold", "--json", "--url", &url, "--broadcast", &api, "-n", "150", "--for", "200ms"];
    let run = load_with_files(64, &hold);
    assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
    // 16 files of each 64 are no clients.
    assert_eq!((run.number("connections"), run.number("loops")), (150, 4));
    assert_eq!(run.number("received"), 150, "the broadcast");
    let seen = server.seen();
    assert_eq!((seen.closes, seen.subscribed["load"]), (150, 150));
    let own: Vec<IpAddr> = (2..6).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))).collect();
    assert_eq!(seen.sources.into_iter().collect::<Vec<_>>(), own, "each loop has addresses of its own");
}

#[test]
fn the_files_of_each_loop_are_counted_before_the_first_client() {
    let server = Server::start(Fault::None);
    let url = server.url("");
    let hold = |clients, loops| {
        let fixed = ["hold", "--json", "--url", &url, "--for", "10ms"];
        load_with_files(64, &[&fixed[..], &["-n", clients, "--loops", loops]].concat())
    };
    let refused = hold("97", "2");
    assert_eq!((refused.code, server.seen().sources.len()), (2, 0), "{}", refused.stderr);
    assert!(refused.stderr.contains("open files are needed by one loop"), "{}", refused.stderr);
    assert_eq!(hold("96", "2").code, 0);
}

#[test]
fn every_channel_gets_its_clients_whatever_the_number_of_loops() {
    for loops in ["1", "3", "4"] {
        let hold = ["hold", "-n", "10", "--channels", "5", "--personal", "1", "--for", "50ms"];
        let (run, server) = on_loops(loops, Fault::None, &hold);
        assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
        let subscribed = server.seen().subscribed;
        assert!((0..5).all(|channel| subscribed[&format!("load.{channel}")] == 2), "{loops}: {subscribed:?}");
        assert!((0..10).all(|client| subscribed[&format!("load.{client}.0")] == 1), "{loops}: {subscribed:?}");
    }
}

#[test]
fn publications_reach_the_clients_of_all_loops() {
    let run = fanout(Fault::None, &["--publishers", "2"]);
    assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
    assert_eq!((run.number("connections"), run.number("received")), (10, 100));
}

#[test]
fn each_fault_with_a_publication_is_found_on_one_of_several_loops() {
    for (fault, more, found) in [
        (Fault::Drop, &[][..], &[("lost", 1)][..]),
        (Fault::Duplicate, &[], &[("duplicated", 1)]),
        (Fault::Swap, &[], &[("out_of_order", 1)]),
        (Fault::SwapPublishers, &["--publishers", "2"], &[("out_of_order", 1)]),
        (Fault::Misdeliver, &["--channels", "2"], &[("misdelivered", 1)]),
        (Fault::Corrupt, &[], &[("lost", 1), ("foreign", 1)]),
        (Fault::Close, &[], &[("lost", 8), ("disconnected", 1)]),
        (Fault::RefuseSubscribe, &[], &[("failed", 1)]),
    ] {
        let run = fanout(fault, more);
        assert_eq!((&run.faults()[..], run.code), (found, 1), "{fault:?} {}", run.report);
    }
}

#[test]
fn each_fault_with_a_message_is_found_on_one_of_several_loops() {
    for (fault, found) in [
        (Fault::None, &[][..]),
        (Fault::Drop, &[("lost", 1)]),
        (Fault::Duplicate, &[("duplicated", 1)]),
        (Fault::Swap, &[("out_of_order", 1)]),
        (Fault::Corrupt, &[("lost", 1), ("foreign", 1)]),
    ] {
        let (run, _) = on_loops("3", fault, &["echo", "-n", "7", "--pipeline", "4", "--for", "300ms"]);
        assert_eq!(&run.faults()[..], found, "{fault:?} {}", run.report);
        assert_eq!(run.code, i32::from(fault != Fault::None));
    }
}

#[test]
fn a_rate_is_that_of_all_loops_together() {
    for (scenario, more) in [("echo", &["-n", "7", "--rate", "200"][..]), ("churn", &["-n", "20", "--rate", "200"])] {
        let (run, _) = on_loops("3", Fault::None, &[&[scenario], more, &["--for", "500ms"]].concat());
        assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
        let due = (run.report["seconds"].as_f64().unwrap() * 200.0) as u64;
        // Three times as much if each loop kept the rate. A busy machine may be behind at the end, never ahead.
        assert!((due / 2..=due + 20).contains(&run.number("sent")), "{scenario} {}", run.report);
        assert_eq!(run.number("sent"), run.number("received"), "{scenario}");
    }
}
