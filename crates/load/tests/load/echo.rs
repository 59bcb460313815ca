//! `echo` finds whatever a server does wrong with messages, and nothing where it does all right.

use crate::fake::{Fault, Run, Server, load};

fn echo(fault: Fault, more: &[&str]) -> Run {
    let server = Server::start(fault);
    let url = server.url("");
    let fixed = ["echo", "--json", "--url", &url, "--for", "300ms", "--drain", "1s"];
    let clients = if more.contains(&"-n") { &[][..] } else { &["-n", "3"] };
    load(&[&fixed[..], clients, more].concat())
}

#[test]
fn a_server_without_faults_passes_with_a_window_and_at_a_rate() {
    for more in [&["--pipeline", "8"][..], &["--rate", "1000", "--size", "300"]] {
        let run = echo(Fault::None, more);
        assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);
        assert!(run.number("sent") > 100, "{}", run.report);
        assert_eq!(run.number("sent"), run.number("received"));
    }
}

#[test]
fn a_rate_is_kept() {
    let run = echo(Fault::None, &["--rate", "200"]);
    let due = (run.report["seconds"].as_f64().unwrap() * 200.0) as u64;
    // Never ahead of the schedule but by what the end takes to arrive; a busy machine may be behind it at that moment.
    assert!((due / 2..=due + 20).contains(&run.number("sent")), "{}", run.report);
}

#[test]
fn a_window_of_one_waits_for_each_message() {
    // The third does not come back, so the victim sends three and no more, and one is lost.
    let run = echo(Fault::Drop, &["-n", "1"]);
    assert_eq!((run.faults(), run.code), (vec![("lost", 1)], 1));
    assert_eq!((run.number("sent"), run.number("received")), (3, 2));
}

#[test]
fn all_messages_of_a_window_leave_in_one_write() {
    let server = Server::start(Fault::None);
    let url = server.url("");
    let run = load(&["echo", "--json", "--url", &url, "--for", "300ms", "-n", "1", "--pipeline", "32"]);
    assert_eq!((run.faults(), run.code), (vec![], 0), "{}", run.report);
    assert_eq!(server.seen().messages_per_read_max, 32);
}

#[test]
fn each_fault_is_found_and_named() {
    for (fault, found) in [
        (Fault::Drop, &[("lost", 1)][..]),
        (Fault::Duplicate, &[("duplicated", 1)]),
        (Fault::Swap, &[("out_of_order", 1)]),
        (Fault::Corrupt, &[("lost", 1), ("foreign", 1)]),
    ] {
        let run = echo(fault, &["--pipeline", "4", "--size", "21"]);
        assert_eq!((&run.faults()[..], run.code), (found, 1), "{fault:?} {}", run.report);
    }
}

#[test]
fn a_client_closed_by_the_server_is_disconnected() {
    let run = echo(Fault::Close, &[]);
    assert_eq!(run.faults(), [("lost", 1), ("disconnected", 1)], "{}", run.report);
    assert!(run.stderr.contains("closed by the server: 3008 slow"), "{}", run.stderr);
}

#[test]
fn a_window_and_a_rate_exclude_each_other() {
    assert_eq!(echo(Fault::None, &["--pipeline", "2", "--rate", "10"]).code, 2);
    assert_eq!(echo(Fault::None, &["--rate", "10"]).code, 0);
}
