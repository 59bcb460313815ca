//! What is wrong with a config, where, and what to do about it.

use super::values::HINT_MARK;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value of the config came from, the weakest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The default, which `--dev` may have changed.
    Default,
    /// The config file.
    File {
        /// As it was given.
        path: Arc<Path>,
        /// From 1; 0 when the file could not be read at all.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// This environment variable.
    Env(String),
    /// This flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong, or that is allowed and most likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub source: Source,
    /// The key as `section.key`; empty when it is not about one.
    pub key: String,
    /// What. Never contains a secret.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// Takes a message apart that may carry a hint.
    pub(super) fn new(source: Source, key: impl Into<String>, message: &str) -> Self {
        let (message, hint) = match message.split_once(HINT_MARK) {
            Some((message, hint)) => (message, Some(hint.to_owned())),
            None => (message, None),
        };
        Self { source, key: key.into(), message: message.to_owned(), hint }
    }

    pub(super) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    /// `tidegate.toml:12:1: outbox.high_watre: unknown key`, and the hint on a second, indented line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source != Source::Default {
            write!(f, "{}: ", self.source)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The one of `known` that `word` was most likely meant to be.
///
/// Case and `-` for `_` are forgiven for free; beyond that one edit (an insertion, a deletion, a replacement or a swap
/// of neighbours) in three characters and four in all, since a hint that has nothing to do with the word is worse than
/// none.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const WORD_CHARS_MAX: usize = 64; // The table below is quadratic.
    let fold = |text: &str| -> Vec<char> { text.to_lowercase().replace('-', "_").chars().collect() };
    let word = fold(word);
    if word.len() > WORD_CHARS_MAX {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (edits(&word, &fold(candidate)), candidate))
        .filter(|(edits, candidate)| *edits <= candidate.len().max(word.len()).div_ceil(3).min(4))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_the_one_with_fewest_edits() {
        let known = ["high_water", "low_water", "bytes_max", "write_timeout", "io", "listen"];
        let table = [
            ("high_watre", Some("high_water")),
            ("high-water", Some("high_water")),
            ("HighWater", Some("high_water")),
            ("lowwater", Some("low_water")),
            ("byte_max", Some("bytes_max")),
            ("lisen", Some("listen")),
            ("oi", Some("io")),
            ("colour", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn edits_count_swaps_as_one() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, n) in [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("abcd", "xbc", 2)] {
            assert_eq!(edits(&chars(a), &chars(b)), n, "{a} {b}");
            assert_eq!(edits(&chars(b), &chars(a)), n, "{b} {a}");
        }
    }
}
