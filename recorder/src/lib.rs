//! The media plane: relay, prompts, digits, and the one gate from a packet to a file.
//!
//! Two pure machines, each told bytes and time: [`Session`](session::Session) relays one call's packets and
//! [`Capture`] turns the frames that a [`consent::Permit`] covers into a sealed recording.
//! [`plane`] runs them on sockets and threads. Signalling and records are elsewhere.

mod capture;
mod channel;
mod command;
mod event;
#[cfg(test)]
mod fixture;
mod frame;
pub mod g711;
pub mod ogg_opus;
pub mod plane;
pub mod preamble;
pub mod prompt;
mod recording;
mod recovery;
pub mod sealed;
pub mod session;
pub mod spool;
mod tap;
mod timeline;

pub use capture::{Capture, CaptureCommand, CaptureSettings, Output};
pub use command::{Command, NewRecording, RecordingKey, RemoteMedia, SourceChange, StreamFormat};
pub use event::{Event, LegStatistics, Sealed};
pub use frame::{Codec, Content, Frame, Key, PAYLOAD_BYTES, Payload};
pub use plane::{Plane, PlaneConfig, PlaneError, PlaneMetrics};
pub use recovery::{RecoveryError, Unreadable, UnwrapKey, recover, recover_with};
pub use spool::{SpoolError, SpoolReport, SpoolWriter};
pub use tap::{Admitted, Tap};
