//! Rules of style that a machine can check. Each rule has a test that plants what it forbids.

mod rules;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

/// One text file of the project.
struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = Path::new(&self.path).extension();
        extension.is_some_and(|extension| extensions.iter().any(|one| extension == *one))
    }

    fn is_code(&self) -> bool {
        self.has_extension(&["rs", "py", "js", "mjs", "ts", "html"])
    }
}

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Breach {
    /// Name of the rule.
    pub rule: &'static str,
    /// File, from the root.
    pub path: String,
    /// Line, from 1; 0 when it is about the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {} ({})", self.path, self.what, self.rule),
            line => write!(f, "{}:{line}: {} ({})", self.path, self.what, self.rule),
        }
    }
}

/// What a look at the project found.
#[derive(Debug)]
pub struct Report {
    /// How many files were read.
    pub files: usize,
    /// In the order of paths.
    pub breaches: Vec<Breach>,
}

/// Reads every text file below `root` and applies every rule.
pub fn check(root: &Path) -> Result<Report, String> {
    let mut paths = Vec::new();
    walk(root, &mut paths)?;
    paths.sort();
    let machine = rules::MachinePaths::of(root);
    let mut report = Report { files: 0, breaches: Vec::new() };
    for path in paths {
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        // Pictures and other data have no style.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let source = Source { path: relative.to_string_lossy().into_owned(), text };
        report.files += 1;
        for rule in rules::ALL {
            rule(&source, &mut report.breaches);
        }
        machine.check(&source, &mut report.breaches);
    }
    if report.files == 0 {
        return Err(format!("no file found below {}", root.display()));
    }
    Ok(report)
}

/// Folders that hold what was built or fetched, not what was written.
const NOT_OURS: &[&str] = &["target", "node_modules", "__pycache__"];

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    let complain = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(complain)? {
        let entry = entry.map_err(complain)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type().map_err(complain)?;
        if kind.is_dir() {
            let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
            if !hidden && !NOT_OURS.contains(&&*name) {
                walk(&entry.path(), paths)?;
            }
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}
