//! The media plane: relay, prompts, digits, and the one gate from a packet to a file.
//!
//! Two pure machines, each told bytes and time: [`Session`](session) relays one call's packets and
//! [`Capture`](capture) turns the frames that a [`consent::Permit`] covers into a sealed recording.
//! [`plane`] runs them on sockets and threads. Signalling and records are elsewhere.

mod command;
mod event;
mod frame;
pub mod g711;
pub mod ogg_opus;
pub mod prompt;
pub mod preamble;
pub mod sealed;
mod tap;
pub mod session;

pub use command::{Command, NewRecording, RecordingKey, RemoteMedia, SourceChange, StreamFormat};
pub use event::{Event, Gap, GapCause, Interval, LegStatistics, Phase, Sealed};
pub use frame::{Codec, Content, Frame, Key, PAYLOAD_BYTES, Payload};
pub use tap::{Admitted, Tap};
