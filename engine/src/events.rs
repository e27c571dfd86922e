//! Events that wait for the agent: numbered without holes, kept until acknowledged, bounded where they may be dropped.
//!
//! What waits is held in memory for the next agent and beside it in a file, so that a dead engine can be examined. The file is
//! emptied as acknowledgements come.

use dora_remote_protocol::{
    engine_to_agent::{EngineEvent, EngineFrame},
    frame,
    ids::DataflowId,
    limits::MAX_FRAME_BYTES,
};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Messages kept for an agent that is away; further ones are dropped and counted.
pub(crate) const MAX_MESSAGES: usize = 10_000;
/// Bytes of text of kept messages, for the same purpose.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Waiting events above which a mere [`EngineEvent::NodeStarted`] is dropped: a node that dora restarts for ever must not fill the
/// memory while the agent is away. The next welcome tells the agent the latest pid anyway.
const MAX_STARTS_BEHIND: usize = 20_000;
/// Waiting events above which lost lines are counted further before they are told.
const MAX_BEFORE_LOSSES: usize = 1_000;
/// Bytes of acknowledged events in the file at which it is written anew.
const REWRITE_AT: u64 = 1 << 20;

/// The store of one life of an engine.
#[derive(Debug)]
pub(crate) struct EventStore {
    path: PathBuf,
    file: Option<File>,
    file_bytes: u64,
    waiting: VecDeque<EngineFrame>,
    last_seq: u64,
    messages: usize,
    message_bytes: usize,
    dropped: u64,
}

impl EventStore {
    /// Opens an empty store at `path`; what an earlier engine left there is kept beside it with the ending `.previous`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match fs::rename(path, path.with_added_extension("previous")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Self {
            path: path.to_owned(),
            file: Some(create(path)?),
            file_bytes: 0,
            waiting: VecDeque::new(),
            last_seq: 0,
            messages: 0,
            message_bytes: 0,
            dropped: 0,
        })
    }

    /// Number of the latest event, 0 before the first.
    pub(crate) const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Adds an event, unless it is one that may be dropped and too many wait.
    pub(crate) fn push(&mut self, at_unix_ms: u64, dataflow: Option<DataflowId>, what: EngineEvent) {
        match &what {
            EngineEvent::Message { text, .. } => {
                if self.messages >= MAX_MESSAGES || self.message_bytes + text.len() > MAX_MESSAGE_BYTES {
                    self.dropped += 1;
                    return;
                }
                self.tell_dropped(at_unix_ms);
                self.messages += 1;
                self.message_bytes += text.len();
            }
            EngineEvent::NodeStarted { .. } if self.waiting.len() > MAX_STARTS_BEHIND => return,
            EngineEvent::NodeStarted { .. }
            | EngineEvent::NodeStopped { .. }
            | EngineEvent::BarrierReached { .. }
            | EngineEvent::Finished { .. }
            | EngineEvent::LinesLost { .. }
            | EngineEvent::MessagesDropped { .. } => {}
        }
        self.append(at_unix_ms, dataflow, what);
    }

    /// Whether so few events wait that lost lines may be told.
    pub(crate) fn has_room_for_losses(&self) -> bool {
        self.waiting.len() < MAX_BEFORE_LOSSES
    }

    /// Forgets events up to and with `seq`.
    pub(crate) fn acked(&mut self, seq: u64, now_unix_ms: u64) {
        let stored = self.waiting.partition_point(|frame| seq_of(frame) <= seq);
        for frame in self.waiting.drain(..stored) {
            if let EngineFrame::Event {
                what: EngineEvent::Message { text, .. },
                ..
            } = frame
            {
                self.messages -= 1;
                self.message_bytes -= text.len();
            }
        }
        self.tell_dropped(now_unix_ms);
        if self.waiting.is_empty() || self.file_bytes > REWRITE_AT + self.waiting_bytes() {
            self.rewrite();
        }
    }

    /// At most `max` waiting events above `seq`, in order.
    pub(crate) fn above(&self, seq: u64, max: usize) -> Vec<EngineFrame> {
        let start = self.waiting.partition_point(|frame| seq_of(frame) <= seq);
        self.waiting.iter().skip(start).take(max).cloned().collect()
    }

    fn tell_dropped(&mut self, at_unix_ms: u64) {
        if self.dropped > 0 && self.messages < MAX_MESSAGES {
            let count = std::mem::take(&mut self.dropped);
            self.append(at_unix_ms, None, EngineEvent::MessagesDropped { count });
        }
    }

    fn append(&mut self, at_unix_ms: u64, dataflow: Option<DataflowId>, what: EngineEvent) {
        self.last_seq += 1;
        let frame = EngineFrame::Event {
            seq: self.last_seq,
            at_unix_ms,
            dataflow,
            what,
        };
        self.write(&frame);
        self.waiting.push_back(frame);
    }

    fn write(&mut self, event: &EngineFrame) {
        let Some(file) = &mut self.file else {
            return;
        };
        let written = frame::encode(event, MAX_FRAME_BYTES)
            .map_err(io::Error::other)
            .and_then(|bytes| file.write_all(&bytes).map(|()| bytes.len() as u64));
        match written {
            Ok(bytes) => self.file_bytes += bytes,
            Err(error) => {
                // A full disk must not stop what runs: the events still wait in memory.
                tracing::warn!(path = %self.path.display(), %error, "events are no longer written to disk");
                self.file = None;
            }
        }
    }

    fn waiting_bytes(&self) -> u64 {
        // An estimate is enough: it only spaces rewrites.
        self.waiting.len() as u64 * 64 + self.message_bytes as u64
    }

    fn rewrite(&mut self) {
        if self.file_bytes == 0 && self.file.is_some() {
            return;
        }
        self.file = create(&self.path).ok();
        self.file_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        for frame in &waiting {
            self.write(frame);
        }
        self.waiting = waiting;
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Only events are stored, so that the other arms are never met.
const fn seq_of(frame: &EngineFrame) -> u64 {
    match frame {
        EngineFrame::Event { seq, .. } => *seq,
        EngineFrame::Reply { .. } | EngineFrame::Alive => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dora_remote_protocol::log_line::{LogLevel, LogSource};

    fn message(text: &str) -> EngineEvent {
        EngineEvent::Message {
            source: LogSource::Machine,
            level: LogLevel::Info,
            text: text.to_owned(),
        }
    }

    fn started(pid: u32) -> EngineEvent {
        EngineEvent::NodeStarted {
            node: "n".parse().expect("an id"),
            pid,
        }
    }

    fn seqs(store: &EventStore) -> Vec<u64> {
        store.above(0, usize::MAX).iter().map(seq_of).collect()
    }

    #[test]
    fn numbers_have_no_holes_and_acknowledged_events_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.log");
        let mut store = EventStore::open(&path).expect("opens");
        for pid in 0..5 {
            store.push(1, None, started(pid));
        }
        assert_eq!(seqs(&store), [1, 2, 3, 4, 5]);
        assert!(fs::metadata(&path).expect("a file").len() > 0);
        store.acked(3, 2);
        assert_eq!(seqs(&store), [4, 5]);
        assert_eq!(store.above(4, 10).len(), 1);
        store.acked(5, 2);
        assert_eq!(store.last_seq(), 5);
        assert_eq!(fs::metadata(&path).expect("a file").len(), 0, "the file is emptied");
        store.push(1, None, started(9));
        assert_eq!(seqs(&store), [6]);
    }

    #[test]
    fn too_many_messages_are_dropped_counted_and_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = EventStore::open(&dir.path().join("events.log")).expect("opens");
        for _ in 0..MAX_MESSAGES + 7 {
            store.push(1, None, message("hello"));
        }
        store.push(1, None, started(1));
        assert_eq!(
            store.last_seq(),
            MAX_MESSAGES as u64 + 1,
            "lifecycle is never dropped for messages"
        );
        store.acked(MAX_MESSAGES as u64 + 1, 2);
        let left = store.above(0, 10);
        assert!(
            matches!(left.as_slice(), [EngineFrame::Event { seq, what: EngineEvent::MessagesDropped { count: 7 }, .. }] if *seq == MAX_MESSAGES as u64 + 2)
        );
    }

    #[test]
    fn what_an_earlier_engine_left_is_kept_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.log");
        EventStore::open(&path).expect("opens").push(1, None, started(1));
        let store = EventStore::open(&path).expect("opens");
        assert_eq!(store.last_seq(), 0);
        assert!(fs::metadata(dir.path().join("events.log.previous")).expect("kept").len() > 0);
    }
}
