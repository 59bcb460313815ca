//! Every input that is kept, read by the function that the fuzzer calls: part of the tests of `wire` and of `conn`.

use std::path::Path;

/// Replays a target's folder; a failure names the file.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
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
