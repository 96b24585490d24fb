//! What can be wrong with a message, and whether its sender is told.

use super::message::Response;

/// A field that does not follow its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Malformed {
    #[error("malformed Via")]
    Via,
    #[error("malformed address")]
    NameAddr,
    #[error("malformed URI")]
    Uri,
    #[error("malformed CSeq")]
    CSeq,
    #[error("malformed parameter")]
    Parameter,
    #[error("number out of range")]
    Number,
}

/// What is wrong with a message. The texts hold nothing that a peer sent: they go into reason phrases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Fault {
    #[error("empty, or a keep-alive")]
    KeepAlive,
    #[error("not SIP")]
    NotSip,
    #[error("malformed start line")]
    StartLine,
    #[error("malformed method")]
    Method,
    #[error("malformed Request-URI")]
    RequestUri,
    #[error("Request-URI too long")]
    RequestUriTooLong,
    #[error("version not supported")]
    Version,
    #[error("malformed status line")]
    StatusLine,
    #[error("line break that is not CRLF")]
    LineBreak,
    #[error("control character in a header field")]
    ControlCharacter,
    #[error("malformed header field")]
    HeaderField,
    #[error("too many header fields")]
    TooManyHeaders,
    #[error("header field too long")]
    HeaderTooLong,
    #[error("message too large")]
    TooLarge,
    #[error("no end of header fields")]
    Truncated,
    #[error("missing {header}")]
    Missing { header: &'static str },
    #[error("more than one {header}")]
    Duplicate { header: &'static str },
    #[error("{header}: {source}")]
    Field { header: &'static str, source: Malformed },
    #[error("CSeq names another method")]
    CSeqMethod,
    #[error("body shorter than Content-Length")]
    BodyTooShort,
}

impl Fault {
    /// The status that tells a requester about it.
    pub fn status(&self) -> u16 {
        match self {
            Self::RequestUriTooLong => 414,
            Self::Version => 505,
            Self::TooLarge => 513,
            _ => 400,
        }
    }
}

/// Why a message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A response, an ACK, no SIP, or no readable Via: nothing to answer. Count it.
    #[error("dropped: {fault}")]
    Drop {
        /// What is wrong.
        fault: Fault,
    },
    /// A request that may be answered, if its source may have an answer at all.
    #[error("refused: {fault}")]
    Refuse {
        /// What is wrong.
        fault: Fault,
        /// The answer: its status and reason, and those of Via, From, To, Call-ID and CSeq that were
        /// readable, as received. The To tag and the Via's `received` and `rport` are still to be added
        /// ([`stamp_source`](super::stamp_source)).
        answer: Box<Response>,
    },
}

impl ParseError {
    /// What is wrong.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Drop { fault } | Self::Refuse { fault, .. } => *fault,
        }
    }
}
