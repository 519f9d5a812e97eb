//! The body of an answer, in pieces whose way to the peer can be watched.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::activity::{Activity, Running};

/// The largest piece: what one frame of HTTP/2 carries unless its peer takes more.
const PIECE_BYTES_MAX: usize = 16_384;

/// A body in pieces. What hyper holds of it for the peer is counted, and that a piece leaves is noticed.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    /// Of what the body gave last, the part that no piece was made of yet.
    rest: Bytes,
    /// The bytes that are counted already and that no piece was made of yet.
    reserved: usize,
    running: Running,
}

/// Bytes that the peer has not taken yet.
struct Piece {
    bytes: Bytes,
    activity: Activity,
}

impl Answer {
    /// `reserved` bytes of the body are counted by the connection already.
    pub(super) fn new(body: Body, reserved: usize, running: Running) -> Self {
        Self { body, rest: Bytes::new(), reserved, running }
    }

    fn next_piece(&mut self) -> Bytes {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE_BYTES_MAX));
        let activity = &self.running.activity;
        let counted = self.reserved.min(bytes.len());
        self.reserved -= counted;
        activity.hold(bytes.len() - counted);
        activity.piece_waits();
        Bytes::from_owner(Piece { bytes, activity: activity.clone() })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.running.activity.release(self.reserved);
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.activity.piece_left(self.bytes.len());
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole.set_lower(hint.lower() + rest);
        whole
    }
}
