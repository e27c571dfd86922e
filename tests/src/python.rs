//! The Python that nodes run with: an environment that has dora-rs, made by `scripts/test`.

use std::path::{Path, PathBuf};

/// The interpreter: `DORA_REMOTE_TEST_PYTHON`, else `target/venv/bin/python`. None, said loudly, when there is neither.
///
/// # Panics
/// When `DORA_REMOTE_TEST_PYTHON` names a file that does not exist.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test must be heard of")]
pub fn interpreter() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("DORA_REMOTE_TEST_PYTHON") {
        let path = PathBuf::from(path);
        assert!(path.exists(), "DORA_REMOTE_TEST_PYTHON: {} does not exist", path.display());
        return Some(path);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no Python with dora-rs; run scripts/test, or set DORA_REMOTE_TEST_PYTHON");
    None
}

/// A `PATH` on which that interpreter comes first, so that dora finds it as `python`.
#[must_use]
pub fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = std::env::var_os("DORA_REMOTE_TEST_PYTHON").map(PathBuf::from);
    let python = found.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python"));
    match python.parent() {
        Some(folder) => format!("{}:{path}", folder.display()),
        None => path,
    }
}
