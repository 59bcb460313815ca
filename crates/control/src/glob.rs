//! Patterns over channel names: `*` is any run of characters, `?` is exactly one.

use std::fmt;

/// Bytes of one pattern. Matching is linear in the name for patterns without `*` and at worst pattern times name with
/// it.
pub const PATTERN_BYTES_MAX: usize = 255;

/// A checked pattern; cheap to clone into a letter for every worker.
///
/// ```
/// let glob = control::Glob::new("chat:*").unwrap();
/// assert!(glob.matches("chat:index"));
/// assert!(!glob.matches("news"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: Box<str>,
}

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobError {
    /// Longer than [`PATTERN_BYTES_MAX`].
    TooLong(usize),
    /// `[`, `]`, `{`, `}` and `\` mean something in other globs. Taking them for themselves would silently list the
    /// wrong channels.
    Unsupported(char),
}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GlobError::TooLong(bytes) => {
                write!(f, "`pattern` has {bytes} bytes, at most {PATTERN_BYTES_MAX} are taken")
            }
            GlobError::Unsupported(sign) => write!(f, "`pattern` may use `*` and `?`, not `{sign}`"),
        }
    }
}

impl std::error::Error for GlobError {}

impl Glob {
    /// Checks a pattern.
    pub fn new(pattern: &str) -> Result<Glob, GlobError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(GlobError::TooLong(pattern.len()));
        }
        match pattern.chars().find(|sign| matches!(sign, '[' | ']' | '{' | '}' | '\\')) {
            Some(sign) => Err(GlobError::Unsupported(sign)),
            None => Ok(Glob { pattern: pattern.into() }),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole of `name` matches.
    ///
    /// Greedy with one point of return: only the last `*` seen can need to take more, so no recursion and no
    /// exponential case.
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut rest) = (self.pattern.chars(), name.chars());
        let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            let rest_before = rest.clone();
            match (pattern.next(), rest.next()) {
                (Some('*'), _) => {
                    rest = rest_before;
                    retry = Some((pattern.clone(), rest.clone()));
                }
                (None, None) => return true,
                (Some('?'), Some(_)) => {}
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => {
                    let Some((after_star, mut taken)) = retry else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    pattern = after_star.clone();
                    rest = taken.clone();
                    retry = Some((after_star, taken));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, exponential and obviously right.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) => naive(&pattern[1..], name) || (!name.is_empty() && naive(pattern, &name[1..])),
            (Some('?'), Some(_)) => naive(&pattern[1..], &name[1..]),
            (Some(wanted), Some(found)) => wanted == found && naive(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    /// All words of up to `len` letters of `alphabet`.
    fn words(alphabet: &[char], len: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..len {
            let until = all.len();
            for index in from..until {
                for letter in alphabet {
                    let longer = format!("{}{letter}", all[index]);
                    all.push(longer);
                }
            }
            from = until;
        }
        all
    }

    #[test]
    fn every_short_pattern_agrees_with_the_definition_on_every_short_name() {
        let (mut matched, mut refused) = (0, 0);
        for pattern in words(&['a', 'b', '*', '?'], 5) {
            let glob = Glob::new(&pattern).expect("plain letters and wildcards");
            let pattern: Vec<char> = pattern.chars().collect();
            for name in words(&['a', 'b'], 5) {
                let expected = naive(&pattern, &name.chars().collect::<Vec<_>>());
                assert_eq!(glob.matches(&name), expected, "pattern {pattern:?}, name {name:?}");
                if expected { matched += 1 } else { refused += 1 }
            }
        }
        assert!(matched > 10_000 && refused > 10_000, "both answers were exercised: {matched}, {refused}");
    }

    #[test]
    fn a_question_mark_is_one_character_not_one_byte() {
        let glob = Glob::new("news:?").unwrap();
        assert!(glob.matches("news:é"));
        assert!(!glob.matches("news:éé"));
    }

    #[test]
    fn many_stars_end_in_time() {
        let glob = Glob::new(&"a*".repeat(127)).unwrap();
        assert!(!glob.matches(&format!("{}b", "a".repeat(126))));
        assert!(glob.matches(&"a".repeat(127)));
    }

    #[test]
    fn foreign_glob_syntax_and_overlong_patterns_are_refused() {
        assert_eq!(Glob::new("chat:[ab]"), Err(GlobError::Unsupported('[')));
        assert!(Glob::new("chat:ab").is_ok());
        assert_eq!(Glob::new(&"a".repeat(256)), Err(GlobError::TooLong(256)));
        assert!(Glob::new(&"a".repeat(255)).is_ok());
    }
}
