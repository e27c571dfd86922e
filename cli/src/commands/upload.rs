//! Brings a bundle to the coordinator, unless it is there already.

use crate::{
    bundle::Bundle,
    client::Session,
    failure::Failure,
    output::{Printer, progress},
};
use dora_remote_protocol::{
    cli_to_coordinator::{HasBundle, PutBundle},
    limits::{MAX_DEADLINE, QUERY_DEADLINE},
};
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Sends the bundle if it is not there yet.
///
/// # Errors
/// What the coordinator refuses, and all that can go wrong on the way. No dataflow was started.
pub async fn run(session: &Session, bundle: Bundle, printer: &Printer) -> Result<(), Failure> {
    let Bundle { reference, file } = bundle;
    let question = HasBundle { hash: reference.hash };
    if session.call("send the dataflow's files", &question, QUERY_DEADLINE).await? {
        return Ok(());
    }
    let sent = Rc::new(Cell::new(0));
    let source = Counted {
        inner: tokio::fs::File::from_std(file),
        read: Rc::clone(&sent),
    };
    let shown = || {
        let bar = progress::bar(sent.get(), reference.bytes);
        format!("sending files {bar} of {}", progress::bytes(reference.bytes))
    };
    let peer = session.peer().await;
    let request = PutBundle { bundle: reference };
    let sending = peer.upload(&request, source, MAX_DEADLINE);
    progress::showing(printer, shown, sending)
        .await
        .map_err(|error| Failure::of_call("send the dataflow's files", &error))?;
    Ok(())
}

/// Counts what is read through it.
struct Counted {
    inner: tokio::fs::File,
    read: Rc<Cell<u64>>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.read.set(self.read.get() + (buffer.filled().len() - before) as u64);
        polled
    }
}
