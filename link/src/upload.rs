//! The raw bytes that follow the body of an upload, as the answering side reads them.

use crate::patience::Patience;
use dora_remote_protocol::limits::MAX_BUNDLE_BYTES;
use quinn::RecvStream;
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// What the asker uploads: at most [`MAX_BUNDLE_BYTES`], and an error instead of an end when the asker gave up halfway, or was
/// slower than [`Patience::upload`] allows.
pub struct UploadBody {
    stream: RecvStream,
    left: u64,
    window: Duration,
    window_ends: Pin<Box<Sleep>>,
    in_window: u64,
}

impl UploadBody {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(stream: RecvStream, patience: &Patience) -> Self {
        Self {
            stream,
            left: MAX_BUNDLE_BYTES,
            window: patience.upload,
            window_ends: Box::pin(sleep(patience.upload)),
            in_window: 0,
        }
    }

    /// Judges the asker when nothing of it is waiting to be read: then it is not we who are slow.
    fn poll_slowness(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.window_ends.as_mut().poll(cx));
            if self.in_window < Patience::UPLOAD_BYTES {
                let (came, seconds) = (self.in_window, self.window.as_secs_f64());
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the upload stalled: {came} bytes came within {seconds:.1} s"),
                ));
            }
            self.in_window = 0;
            let next = Instant::now() + self.window;
            self.window_ends.as_mut().reset(next);
        }
    }
}

impl AsyncRead for UploadBody {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buffer) {
            Poll::Ready(result) => result?,
            Poll::Pending => return self.poll_slowness(cx).map(Err),
        }
        let read = (buffer.filled().len() - before) as u64;
        match self.left.checked_sub(read) {
            Some(left) => {
                self.left = left;
                self.in_window += read;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the upload has more than {MAX_BUNDLE_BYTES} bytes"),
            ))),
        }
    }
}

impl fmt::Debug for UploadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadBody").field("left", &self.left).finish_non_exhaustive()
    }
}
