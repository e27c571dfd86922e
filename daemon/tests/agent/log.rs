//! What the programs of a test say in their log, so that it can be waited for.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

const DEADLINE: Duration = Duration::from_secs(60);

/// The log of this thread, from when it was made until it is dropped.
pub(crate) struct Log {
    text: watch::Receiver<String>,
    _guard: DefaultGuard,
}

impl Log {
    pub(crate) fn new() -> Self {
        let (sender, text) = watch::channel(String::new());
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(Sink(Arc::new(Mutex::new(sender))))
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Waits until a line holds all of `parts`.
    pub(crate) async fn until(&mut self, parts: &[&str]) {
        self.times(1, parts).await;
    }

    /// Waits until so many lines do.
    pub(crate) async fn times(&mut self, count: usize, parts: &[&str]) {
        let waiting = self.text.wait_for(|text| lines(text, parts) >= count);
        let found = tokio::time::timeout(DEADLINE, waiting).await.is_ok();
        assert!(found, "{parts:?} was not said:\n{}", *self.text.borrow());
    }

    /// How many lines hold all of `parts`.
    pub(crate) fn count(&self, parts: &[&str]) -> usize {
        lines(&self.text.borrow(), parts)
    }
}

fn lines(text: &str, parts: &[&str]) -> usize {
    text.lines()
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .count()
}

#[derive(Clone)]
struct Sink(Arc<Mutex<watch::Sender<String>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.lock().expect("good").send_modify(|all| all.push_str(&text));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sink {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
