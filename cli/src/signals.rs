//! Ctrl-C and SIGTERM, as one stream of requests to end.

use crate::{exit::Exit, failure::Failure};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens to both signals from its making on: they no longer end the process by themselves.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Starts to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A failure when the system does not allow it.
    pub fn new() -> Result<Self, Failure> {
        let fault = |error: io::Error| Failure::new(Exit::Failed, "cannot listen to signals").because(&error);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(fault)?,
            terminate: signal(SignalKind::terminate()).map_err(fault)?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
