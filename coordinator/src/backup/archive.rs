//! The form of a backup: a mark, a header, the files one after another, and the BLAKE3 of all that.
//!
//! Nothing is believed before the hash of the whole was compared.

use dora_remote_protocol::frame::{self, FrameError, PREFIX_BYTES};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
};
use thiserror::Error;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupHeader {
    /// SPIFFE id of the coordinator.
    pub(crate) coordinator: String,
    /// Build that made it.
    pub(crate) build: String,
    /// Life of the store that it was taken in.
    pub(crate) store_epoch: u64,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) made_unix_ms: u64,
    /// Names and sizes of the files, in the order in which they follow.
    pub(crate) files: Vec<(String, u64)>,
}

impl BackupHeader {
    /// Everything that stands before the first file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut bytes = MARK.to_vec();
        bytes.extend(frame::encode(self, MAX_HEADER_BYTES)?);
        Ok(bytes)
    }
}

/// A backup that is being read from its begin to its end.
pub(crate) struct ArchiveReader {
    source: BufReader<File>,
    hasher: blake3::Hasher,
}

impl ArchiveReader {
    /// Reads what stands before the first file.
    pub(crate) fn open(source: File) -> Result<(Self, BackupHeader), ArchiveError> {
        let mut this = Self {
            source: BufReader::with_capacity(PIECE_BYTES, source),
            hasher: blake3::Hasher::new(),
        };
        let mut mark = [0; MARK.len()];
        this.fill(&mut mark)?;
        if mark != *MARK {
            return Err(ArchiveError::NotOne);
        }
        let mut prefix = [0; PREFIX_BYTES];
        this.fill(&mut prefix)?;
        let length = frame::body_length(prefix, MAX_HEADER_BYTES).map_err(|_| ArchiveError::Damaged)?;
        let mut body = vec![0; length];
        this.fill(&mut body)?;
        let header = frame::decode(&body).map_err(|_| ArchiveError::Damaged)?;
        Ok((this, header))
    }

    /// Copies the next `bytes` bytes.
    pub(crate) fn copy(&mut self, mut bytes: u64, to: &mut impl Write) -> Result<(), ArchiveError> {
        let mut piece = vec![0; PIECE_BYTES];
        while bytes > 0 {
            let length = usize::try_from(bytes).map_or(PIECE_BYTES, |bytes| bytes.min(PIECE_BYTES));
            self.fill(&mut piece[..length])?;
            to.write_all(&piece[..length]).map_err(ArchiveError::Write)?;
            bytes -= length as u64;
        }
        Ok(())
    }

    /// Compares the hash, and sees that nothing follows.
    pub(crate) fn finish(mut self) -> Result<(), ArchiveError> {
        let expected = *self.hasher.finalize().as_bytes();
        let mut found = [0; 32];
        self.fill(&mut found)?;
        let mut surplus = [0; 1];
        let follows = self.source.read(&mut surplus).map_err(ArchiveError::Read)?;
        if found == expected && follows == 0 {
            return Ok(());
        }
        Err(ArchiveError::Damaged)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Torn,
            _ => ArchiveError::Read(error),
        })?;
        self.hasher.update(bytes);
        Ok(())
    }
}

/// Why a file is not a whole backup.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// What it holds cannot be written.
    #[error("what it holds cannot be written: {0}")]
    Write(#[source] io::Error),
    /// It begins otherwise than a backup does.
    #[error("it is not a backup of a coordinator, or one of another version")]
    NotOne,
    /// It ends too early.
    #[error("it ends before it is whole")]
    Torn,
    /// Its hash is another one.
    #[error("it is damaged: its hash does not match")]
    Damaged,
}

/// First bytes of every backup of this form.
const MARK: &[u8; 21] = b"dora-remote backup 1\n";
/// Longest header in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Bytes that are copied at once.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tempfile::TempDir;

    fn written(change: impl FnOnce(&mut Vec<u8>)) -> (TempDir, PathBuf) {
        let header = BackupHeader {
            coordinator: "spiffe://lab/coordinator/c".to_owned(),
            build: "test".to_owned(),
            store_epoch: 7,
            made_unix_ms: 8,
            files: vec![("a".to_owned(), 100_000), ("b".to_owned(), 3)],
        };
        let mut bytes = header.encode().unwrap();
        bytes.extend(std::iter::repeat_n(7_u8, 100_003));
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        change(&mut bytes);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn read(path: &std::path::Path) -> Result<BackupHeader, ArchiveError> {
        let (mut reader, header) = ArchiveReader::open(File::open(path).unwrap())?;
        for (_, bytes) in &header.files {
            let mut copy = Vec::new();
            reader.copy(*bytes, &mut copy)?;
            assert_eq!(copy.len() as u64, *bytes);
        }
        reader.finish()?;
        Ok(header)
    }

    #[test]
    fn a_whole_backup_is_read_and_any_other_is_not() {
        let (_dir, path) = written(|_| {});
        assert_eq!(read(&path).unwrap().files.len(), 2);
        let (_dir, path) = written(|bytes| bytes[50_000] ^= 1);
        assert!(matches!(read(&path), Err(ArchiveError::Damaged)));
        let (_dir, path) = written(|bytes| bytes.truncate(50_000));
        assert!(matches!(read(&path), Err(ArchiveError::Torn)));
        let (_dir, path) = written(|bytes| bytes.push(0));
        assert!(matches!(read(&path), Err(ArchiveError::Damaged)));
        let (_dir, path) = written(|bytes| bytes[3] ^= 1);
        assert!(matches!(read(&path), Err(ArchiveError::NotOne)));
    }
}
