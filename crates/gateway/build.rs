//! Finds out which commit is built, for `tidegate --version`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=TIDEGATE_GIT_HASH={}", hash().unwrap_or_else(|| "unknown".into()));
}

/// `None` outside a git checkout of this project, and where git is not installed. Neither is an error.
fn hash() -> Option<String> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).join("../..").canonicalize().ok()?;
    // Sources unpacked inside somebody else's repository must not take its commit for theirs.
    if Path::new(&git(&root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != root {
        return None;
    }
    // HEAD changes with a checkout, a branch with a commit. A path that does not exist would rebuild every time.
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        if let Some(path) = git(&root, &["rev-parse", "--git-path", name]).map(|path| root.join(path))
            && path.exists()
        {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    git(&root, &["rev-parse", "--short=12", "HEAD"])
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
