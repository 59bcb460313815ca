//! `--report` writes a page whose plots are those of the run.

use crate::fake::{Fault, Server, load};
use serde_json::Value;
use std::fs;

/// What the script of a page reads.
fn data(page: &str) -> Value {
    let data = page.split_once("id=\"data\">").expect("it has data").1.split_once("</script>").expect("they end").0;
    serde_json::from_str(data).expect("they are JSON")
}

fn numbers(list: &Value, name: &str) -> Vec<u64> {
    list.as_array().expect("a list").iter().map(|item| item[name].as_u64().expect("a number")).collect()
}

#[test]
fn a_page_has_the_numbers_of_the_run_over_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    let server = Server::start(Fault::None);
    let (url, api, pid) = (server.url(""), server.api(), std::process::id().to_string());
    let fixed = ["fanout", "--json", "--url", &url, "--api", &api, "-n", "6", "--loops", "2", "--publications", "50"];
    let more = ["--rate", "100", "--key", "sesame", "--server-pid", &pid, "--report", file.to_str().unwrap()];
    let run = load(&[&fixed[..], &more].concat());
    assert_eq!((run.faults(), run.code), (vec![], 0), "{}\n{}", run.report, run.stderr);

    let page = fs::read_to_string(&file).unwrap();
    assert!(!page.contains("sesame"), "the key is kept secret");
    let data = data(&page);
    assert_eq!(data["report"], run.report, "the same numbers as the JSON line has");
    let curves = &data["curves"];
    assert_eq!(numbers(&curves["latency"], "count").iter().sum::<u64>(), 300, "each delivery lies in one slot");
    assert!(curves["latency"].as_array().unwrap().len() >= 3, "over time: {curves}");
    assert_eq!(numbers(&curves["opening"], "count").iter().sum::<u64>(), 6);
    assert_eq!(numbers(&curves["samples"], "received").last(), Some(&300));
    assert!(numbers(&curves["samples"], "ready").contains(&6));
    assert!(curves["samples"][0]["server"]["rss_bytes"].as_u64() > Some(0), "{curves}");
    let parts: Vec<&str> = curves["parts"].as_array().unwrap().iter().filter_map(|p| p["label"].as_str()).collect();
    assert_eq!(parts, ["opening", "publishing", "draining", "closing"]);
    assert!(data["machine"]["congestion_control"].is_string(), "{}", data["machine"]);
}

#[test]
fn a_page_that_cannot_be_written_is_refused_before_the_first_client_and_its_twin_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Fault::None);
    let url = server.url("");
    let hold = |file: &str| {
        let path = folder.path().join(file);
        load(&["hold", "--url", &url, "--json", "-n", "1", "--for", "1ms", "--report", path.to_str().unwrap()])
    };
    let refused = hold("missing/page.html");
    assert_eq!((refused.code, server.seen().sources.len()), (2, 0));
    assert!(refused.stderr.contains("--report"), "{}", refused.stderr);
    assert_eq!(hold("page.html").code, 0);
}
