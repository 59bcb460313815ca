//! The fuzzers' corpus: every input that is kept, read by the function that the fuzzer calls.
#![allow(unexpected_cfgs, reason = "the planted bug is a feature of the fuzz crate")]
#![allow(unreachable_pub, reason = "the fuzzers use these as public modules")]

#[path = "../../fuzz/src/frames.rs"]
mod frames;
#[path = "../../fuzz/src/http.rs"]
mod http;
#[path = "../../fuzz/src/corpus.rs"]
mod kept;
#[path = "support/naive.rs"]
mod naive;
#[path = "../../fuzz/src/text.rs"]
mod text;

use kept::replay;

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
    replay("proxy_header", http::proxy);
    replay("handshake", http::upgrade);
    replay("extension", http::extension);
}

#[test]
fn texts_of_the_corpus_keep_every_claim() {
    replay("utf8", text::utf8);
    replay("mask", text::mask);
}
