//! Where the program under test is. It is built before the tests run, never by them.

use std::path::PathBuf;

/// The `dora-remote` binary: `DORA_REMOTE_BIN`, else the one beside the test executable's folder.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn program() -> PathBuf {
    beside("DORA_REMOTE_BIN", "dora-remote", "cargo build --workspace --bins")
}

/// A binary of the Rust example.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn example_node(name: &str) -> PathBuf {
    beside("", name, "cargo build --workspace --bins")
}

fn beside(variable: &str, name: &str, build: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable).filter(|_| !variable.is_empty()) {
        return path.into();
    }
    let exe = std::env::current_exe().expect("the test knows its own path");
    // target/debug/deps/theme-0123 stands beside target/debug/dora-remote.
    let path = exe.ancestors().nth(2).expect("target/debug").join(name);
    assert!(path.exists(), "{} does not exist; build it first: {build}", path.display());
    path
}
