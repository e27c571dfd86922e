//! A small disk that fills up: a tmpfs, mounted where no other process sees it.

use nix::unistd::Uid;
use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// Set within a test's own mount namespace.
const INSIDE: &str = "DORA_REMOTE_TEST_OWN_MOUNTS";

/// Whether this process is in a mount namespace of its own. If not, runs the test of this name once more in one, and passes its failure
/// on; so a test begins with `if !in_own_mounts("its name") { return }`. Skipped, and said loudly, without the rights.
///
/// # Panics
/// When the test fails there, or when there are no rights and `DORA_REMOTE_REQUIRE_NETNS` is 1.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test must be heard of")]
pub fn in_own_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let can = Uid::effective().is_root()
        && Command::new("unshare")
            .args(["--mount", "true"])
            .status()
            .is_ok_and(|status| status.success());
    if !can {
        let required = std::env::var_os("DORA_REMOTE_REQUIRE_NETNS").is_some_and(|value| value == "1");
        assert!(!required, "DORA_REMOTE_REQUIRE_NETNS=1, and file systems cannot be mounted");
        eprintln!("SKIPPED: a small disk needs root and mount namespaces");
        return false;
    }
    let this = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("a mount namespace");
    assert!(status.success(), "the test failed in its mount namespace; see above");
    false
}

/// A file system of a few MiB.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `path`, which is made.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(path: &Path, mebibytes: u32) -> Self {
        fs::create_dir(path).expect("a fresh path");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=700"), "small"])
            .arg(path)
            .status()
            .expect("the mount command");
        assert!(status.success(), "a tmpfs can be mounted: {status}");
        Self { path: path.to_owned() }
    }

    /// Takes all the space that is left, as another program might.
    ///
    /// # Panics
    /// When it fails otherwise than for want of space.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("room for a name");
        for block in [vec![0_u8; 64 << 10], vec![0; 1]] {
            loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the disk cannot be filled: {error}"),
                }
            }
        }
    }

    /// Gives the space back.
    ///
    /// # Panics
    /// When it was not taken.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("somebody-elses-file")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Processes of the cluster may still be in it; it goes with the last of them.
        drop(Command::new("umount").arg("--lazy").arg(&self.path).status());
    }
}
