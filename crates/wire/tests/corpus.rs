//! The fuzzers' corpus: every input that is kept, read by the function that the fuzzer calls.
#![allow(unexpected_cfgs, reason = "the planted bug is a feature of the fuzz crate")]
#![allow(unreachable_pub, reason = "the fuzzers use these as public modules")]

#[path = "../../fuzz/src/frames.rs"]
mod frames;
#[path = "../../fuzz/src/http.rs"]
mod http;
#[path = "support/naive.rs"]
mod naive;
#[path = "../../fuzz/src/text.rs"]
mod text;

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
fn frames_of_the_corpus_keep_every_claim() {
    replay("frames", frames::stream);
    replay("frame_writer", frames::write);
}

#[test]
fn compressed_messages_of_the_corpus_keep_every_claim() {
    replay("inflate", frames::inflate);
    replay("deflate", frames::deflate);
}

#[test]
fn heads_of_the_corpus_keep_every_claim() {
    replay("http_head", http::head);
    replay("handshake", http::upgrade);
    replay("extension", http::extension);
}

#[test]
fn texts_of_the_corpus_keep_every_claim() {
    replay("utf8", text::utf8);
    replay("mask", text::mask);
}
