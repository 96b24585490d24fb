//! The back-to-back user agent.
//!
//! [`Core`] is sans-IO: bytes and time in; messages to send, timers and call events out. [`shell`] owns
//! the sockets. Nothing here knows a database, a file, a rule or an audio sample.

mod command;
mod config;
pub mod core;
pub mod emergency;
mod event;
mod media;
pub mod sdp;
pub mod wire;

pub use command::{Command, Route};
pub use self::core::{Input, Output, StreamId};
pub use config::{Config, Limits, Listener, ListenerId, Peer, PeerId, Transport};
pub use event::{Change, End, EndedBy, Event, Identity, Offer};
pub use media::{Flow, Format, LegMedia, MediaKind, StreamMedia};
