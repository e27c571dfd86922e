//! Engines that run for this state directory and that no record knows: the directory was emptied while they ran.
//!
//! Nobody can talk to them any more, as their socket is gone with the directory, so they are ended with all that they have made.

use crate::{environment::ENGINE_ID, processes};
use dora_remote_protocol::ids::EngineId;
use nix::unistd::getuid;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};
use tracing::warn;
use uuid::Uuid;

/// Ends all engines that have one of these directories. Blocks for up to ten seconds for each.
pub(crate) fn end_all(dirs: &[PathBuf]) {
    for engine in running_in(dirs) {
        let processes = processes::end_marked(engine);
        warn!(%engine, processes, "an engine that this state directory no longer knows was ended, with its nodes");
    }
}

/// Engines of our user that have one of these directories.
fn running_in(dirs: &[PathBuf]) -> BTreeSet<EngineId> {
    let uid = getuid().as_raw();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = processes.filter(|process| fs::metadata(process.path()).is_ok_and(|meta| meta.uid() == uid));
    ours.filter_map(|process| engine_of(&process.path(), dirs).ok().flatten())
        .collect()
}

fn engine_of(process: &Path, dirs: &[PathBuf]) -> io::Result<Option<EngineId>> {
    // As `engine_child` starts it.
    let line = fs::read(process.join("cmdline"))?;
    let mut words = line.split(|byte| *byte == 0).map(OsStr::from_bytes).skip(1);
    let is_engine = words.next() == Some(OsStr::new("engine"))
        && words.next() == Some(OsStr::new("--state"))
        && words
            .next()
            .is_some_and(|state| dirs.iter().any(|dir| dir == Path::new(state)));
    if !is_engine {
        return Ok(None);
    }
    let environment = fs::read(process.join("environ"))?;
    let mark = format!("{ENGINE_ID}=");
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(mark.as_bytes()));
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    Ok(text.and_then(|text| Uuid::parse_str(text).ok()).map(EngineId))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    #[test]
    fn an_engine_is_known_by_its_directory_and_ended_with_what_it_has_made() {
        use std::os::unix::process::CommandExt;
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // A shell that runs a script called `engine` has the command line of an engine.
        fs::write(ours.path().join("engine"), "sleep 600 & wait\n").unwrap();
        let engine = EngineId(Uuid::new_v4());
        let mut child = Command::new("sh")
            .args(["engine", "--state"])
            .arg(ours.path())
            .current_dir(ours.path())
            .env(ENGINE_ID, engine.to_string())
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // Its command line and environment show once its program is started.
        let deadline = Instant::now() + Duration::from_secs(30);
        let [ours_alone, others] = [&ours, &other].map(|dir| [dir.path().to_owned()]);
        while running_in(&ours_alone) != BTreeSet::from([engine]) {
            assert!(Instant::now() < deadline, "the child never showed up");
            thread::yield_now();
        }
        end_all(&others);
        assert!(processes::find(child.id()).is_some(), "it is none of that directory");
        end_all(&ours_alone);
        child.wait().unwrap();
        assert!(running_in(&ours_alone).is_empty());
    }
}
