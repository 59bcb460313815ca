//! Damaged files.

use super::*;

/// Bytes of the manual replaced, removed and doubled at random: every result is a config or errors inside the file.
#[test]
fn a_damaged_file_never_panics_and_its_errors_lie_inside_it() {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("replay with TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let comment_free: String = std::fs::read_to_string(deploy("tidegate.toml"))
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    let original =
        format!("{comment_free}[[namespaces]]\nname = \"chat\"\nallow_publish_for_client = true\n").into_bytes();
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..1500 {
        let mut bytes = original.clone();
        for _ in 0..random.usize(1..3) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] = *random.choice(b"\"'[]{}=.,\n#0a_").unwrap(),
                2 => _ = bytes.remove(at),
                _ => bytes.insert(at, bytes[at]),
            }
        }
        let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
        match load_text(&bytes, random.bool(), &[], Flags::default()) {
            Ok(_) => accepted += 1,
            Err(problems) => {
                refused += 1;
                assert!(!problems.is_empty());
                for problem in problems {
                    let inside = match problem.source {
                        Source::File { line, column, .. } => (1..=lines).contains(&line) && column >= 1,
                        Source::Default => true, // A relation between two defaults, one of which lost its key.
                        _ => false,
                    };
                    assert!(inside, "{problem:?}");
                }
            }
        }
    }
    assert!(refused > 20 && accepted > 20, "refused {refused}, accepted {accepted}");
}
