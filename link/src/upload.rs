//! The raw bytes that follow the body of an upload, as the answering side reads them.

use dora_remote_protocol::limits::MAX_BUNDLE_BYTES;
use quinn::RecvStream;
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};

/// What the asker uploads: at most [`MAX_BUNDLE_BYTES`], and an error instead of an end when the asker gave up halfway.
pub struct UploadBody {
    stream: RecvStream,
    left: u64,
}

impl UploadBody {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            left: MAX_BUNDLE_BYTES,
        }
    }
}

impl AsyncRead for UploadBody {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        match self.left.checked_sub(read) {
            Some(left) => {
                self.left = left;
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
