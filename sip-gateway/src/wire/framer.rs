//! Messages out of a stream (RFC 3261 §18.3, RFC 5626 §3.5.1).
//!
//! On a stream Content-Length alone says where a message ends, so it is mandatory, and a message whose
//! end is in doubt ends the stream: nothing behind it is ever read as a message.

use bytes::{Buf as _, BytesMut};
use memchr::memmem;

use crate::Limits;

use super::error::{Fault, ParseError};
use super::headers::name;
use super::message::Message;
use super::parse::{Head, refusal, set_body};

/// What a stream held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message(Message),
    /// A double CRLF: answer it with one CRLF (RFC 5626 §4.4.1).
    Ping,
    /// A faulty message whose end was clear: answer if it may be answered, and go on.
    Refused(ParseError),
    /// A faulty message whose end is in doubt: answer if it may be answered, then close. Nothing more comes.
    Broken(ParseError),
}

/// Cuts a stream into messages. Holds at most one message within `max_message_bytes` beside what was fed
/// last, if [`Self::next_frame`] is called until `None` after each [`Self::feed`]. Its work is linear in the
/// bytes fed, however they are cut into segments.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: BytesMut,
    /// Up to here the buffer holds no end of a head.
    searched: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Head,
    Body {
        message: Box<Message>,
        length: usize,
    },
    /// The body of a refused message.
    Skip {
        left: usize,
    },
    Broken,
}

impl Framer {
    /// A framer for a new stream.
    pub fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), buffer: BytesMut::new(), searched: 0, state: State::Head }
    }

    /// Takes bytes as read. After [`Frame::Broken`] they are discarded.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Broken) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Whether nothing is held but line breaks, which belong to no message.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Head) && self.buffer.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// The next frame, or `None` until more is fed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            match std::mem::replace(&mut self.state, State::Head) {
                State::Broken => {
                    self.state = State::Broken;
                    return None;
                }
                State::Skip { left } => {
                    let now = left.min(self.buffer.len());
                    self.buffer.advance(now);
                    if now < left {
                        self.state = State::Skip { left: left - now };
                        return None;
                    }
                }
                State::Body { mut message, length } => {
                    if self.buffer.len() < length {
                        self.state = State::Body { message, length };
                        return None;
                    }
                    set_body(&mut message, self.buffer.split_to(length).freeze());
                    return Some(Frame::Message(*message));
                }
                State::Head => {
                    if let Some(frame) = self.between_messages()? {
                        return Some(frame);
                    }
                    if let Some(frame) = self.head()? {
                        return Some(frame);
                    }
                }
            }
        }
    }

    /// Whether a message has begun whose end has not come.
    pub fn is_inside(&self) -> bool {
        !matches!(self.state, State::Skip { .. } | State::Broken) && !self.is_between_messages()
    }

    /// Line breaks before a start line. `None`: more is needed to tell.
    fn between_messages(&mut self) -> Option<Option<Frame>> {
        while self.searched == 0 {
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.buffer.advance(4);
                return Some(Some(Frame::Ping));
            }
            if b"\r\n\r\n".starts_with(&self.buffer) {
                return None;
            }
            if !self.buffer.starts_with(b"\r\n") {
                break;
            }
            self.buffer.advance(2);
        }
        Some(None)
    }

    /// Reads a head. `None`: more is needed; `Some(None)`: its body is next.
    fn head(&mut self) -> Option<Option<Frame>> {
        // Nothing beyond the limit is looked at, so that it makes no difference how much came at once.
        let most = self.limits.max_message_bytes.min(self.buffer.len());
        let from = self.searched.saturating_sub(3);
        let rest = self.buffer.get(from..most).unwrap_or_default();
        let Some(end) = memmem::find(rest, b"\r\n\r\n").map(|at| from + at + 4) else {
            if self.buffer.len() > most {
                return Some(Some(self.oversized(most)));
            }
            self.searched = most;
            return None;
        };
        self.searched = 0;
        let head = Head::read(&self.buffer.split_to(end), &self.limits);
        let left = self.limits.max_message_bytes.saturating_sub(end);
        match (head.outcome, head.content_length) {
            (Ok(message), Ok(Some(length))) if length <= left => {
                self.state = State::Body { message: Box::new(message), length };
                Some(None)
            }
            (Ok(message), Ok(Some(_))) => Some(Some(self.broken(refusal(&message, Fault::TooLarge)))),
            (Ok(message), _) => {
                let fault = Fault::Missing { header: name::CONTENT_LENGTH };
                Some(Some(self.broken(refusal(&message, fault))))
            }
            (Err(error), Ok(Some(length))) if length <= left && end_is_clear(error.fault()) => {
                self.state = State::Skip { left: length };
                Some(Some(Frame::Refused(error)))
            }
            (Err(error), _) => Some(Some(self.broken(error))),
        }
    }

    /// A head that does not end within the limit.
    fn oversized(&mut self, most: usize) -> Frame {
        let fault = Fault::TooLarge;
        self.buffer.truncate(most);
        let whole_lines = self.buffer.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let octets = self.buffer.get(..whole_lines).unwrap_or_default();
        let error = match Head::read(octets, &self.limits).outcome {
            Ok(message) => refusal(&message, fault),
            Err(ParseError::Drop { .. }) => ParseError::Drop { fault },
            Err(refused @ ParseError::Refuse { .. }) => refused,
        };
        self.broken(error)
    }

    fn broken(&mut self, error: ParseError) -> Frame {
        self.state = State::Broken;
        self.buffer = BytesMut::new();
        Frame::Broken(error)
    }
}

/// Whether the head's own lines are beyond doubt, so that its Content-Length can be believed.
fn end_is_clear(fault: Fault) -> bool {
    !matches!(
        fault,
        Fault::NotSip
            | Fault::LineBreak
            | Fault::ControlCharacter
            | Fault::HeaderField
            | Fault::HeaderTooLong
            | Fault::TooManyHeaders
            | Fault::Truncated
    )
}
