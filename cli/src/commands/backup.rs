//! `coordinator backup`: everything that a coordinator must not forget, in one file that only its owner can read.

use super::Context;
use crate::{args::CoordinatorBackup, asking::Asking, exit::Exit, failure::Failure, output::json::SCHEMA};
use dora_remote_link::DialKind;
use dora_remote_protocol::{backup::ReadBackup, refusal::Changed};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

#[derive(Serialize)]
struct Document {
    schema: u32,
    file: String,
    bytes: u64,
}

/// Saves a backup: whole, or not at all.
///
/// # Errors
/// Those of asking; exit code 1 when the file cannot be written.
pub async fn run(context: &Context, backup: &CoordinatorBackup) -> Result<Exit, Failure> {
    let socket = backup.locally.admin_socket.as_deref();
    let to_stdout = backup.out == Path::new("-");
    if !to_stdout && !backup.overwrite && backup.out.symlink_metadata().is_ok() {
        return Err(exists(&backup.out));
    }
    let saving = async |asking: &Asking| {
        if to_stdout {
            return save(asking, io::stdout()).await.map(|(bytes, _)| bytes);
        }
        let (bytes, file) = save(asking, staged(&backup.out)?).await?;
        let (out, overwrite) = (backup.out.clone(), backup.overwrite);
        blocking(move || finish(file, &out, overwrite)).await??;
        Ok(bytes)
    };
    let bytes = context.asking(socket, DialKind::Command, saving).await?;
    if to_stdout {
        return Ok(Exit::Ok);
    }
    let file = backup.out.display().to_string();
    if context.printer.is_json() {
        context.printer.document(&Document {
            schema: SCHEMA,
            file,
            bytes,
        })?;
    } else {
        context.printer.line(&file)?;
    }
    context.printer.note(&format!(
        "saved {bytes} bytes; private keys are not among them: keep the folder of the authority as well"
    ));
    Ok(Exit::Ok)
}

/// A file with mode 0600 beside the final one.
fn staged(out: &Path) -> Result<NamedTempFile, Failure> {
    if out.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", out.display())).changed(Changed::Nothing));
    }
    NamedTempFile::new_in(folder_of(out)).map_err(|error| cannot_write(out, &error))
}

/// Writes the chunks of a feed, and gives the sink back with the number of bytes.
async fn save<W: Write + Send + 'static>(asking: &Asking, mut sink: W) -> Result<(u64, W), Failure> {
    let mut items = asking.feed("save a backup", &ReadBackup {}).await?;
    let mut bytes = 0;
    while let Some(chunk) = items.next().await? {
        let chunk = chunk.0;
        bytes += chunk.len() as u64;
        // The disk may be slow, and the connection must go on meanwhile.
        sink = blocking(move || sink.write_all(&chunk).map(|()| sink))
            .await?
            .map_err(|error| {
                Failure::new(Exit::Failed, "cannot write the backup")
                    .because(&error)
                    .changed(Changed::Nothing)
            })?;
    }
    Ok((bytes, sink))
}

fn finish(file: NamedTempFile, out: &Path, overwrite: bool) -> Result<(), Failure> {
    let named = file.as_file().sync_all().and_then(|()| {
        let named = if overwrite {
            file.persist(out)
        } else {
            file.persist_noclobber(out)
        };
        named.map(drop).map_err(|error| error.error)
    });
    match named.and_then(|()| File::open(folder_of(out))?.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(out)),
        done => done.map_err(|error| cannot_write(out, &error)),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Exit::Failed, "cannot write the backup").because(&error))
}

fn folder_of(out: &Path) -> PathBuf {
    match out.parent() {
        Some(dir) if dir != Path::new("") => dir.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn exists(out: &Path) -> Failure {
    Failure::new(Exit::Failed, format!("{} exists", out.display()))
        .hint("name another file, or replace it with `--overwrite`")
        .changed(Changed::Nothing)
}

fn cannot_write(out: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot write {}", out.display()))
        .because(error)
        .changed(Changed::Nothing)
}
