//! The fuzzers' corpus: every input that is kept, read by the function that the fuzzer calls.

#[path = "../../../fuzz/src/corpus.rs"]
mod kept;

use crate::fuzzed;
use kept::replay;

#[test]
fn commands_of_the_corpus_keep_every_claim() {
    replay("json", fuzzed::json);
    replay("protobuf", fuzzed::protobuf);
}

#[test]
fn lives_of_the_corpus_keep_every_claim() {
    replay("life", fuzzed::life);
}
