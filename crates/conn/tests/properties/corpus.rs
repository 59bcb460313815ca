//! The fuzzers' corpus: every input that is kept, read by the function that the fuzzer calls.

use crate::fuzzed;
use std::path::Path;

/// Replays a target's folder; a failure names the file.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).expect("every target has a folder") {
        let path = entry.expect("readable").path();
        let bytes = std::fs::read(&path).expect("readable");
        assert!(std::panic::catch_unwind(|| run(&bytes)).is_ok(), "{}", path.display());
        inputs += 1;
    }
    assert!(inputs > 0, "nothing in {}", folder.display());
}

#[test]
fn commands_of_the_corpus_keep_every_claim() {
    replay("json", fuzzed::json);
    replay("protobuf", fuzzed::protobuf);
}

#[test]
fn lives_of_the_corpus_keep_every_claim() {
    replay("life", fuzzed::life);
}
