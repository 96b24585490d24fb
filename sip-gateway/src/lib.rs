//! The back-to-back user agent.
//!
//! [`Core`] is sans-IO: bytes and time in; messages to send, timers and call events out. [`shell`] owns
//! the sockets. Nothing here knows a database, a file, a rule or an audio sample.

mod account;
mod b2bua;
mod command;
mod config;
mod core;
mod destination;
mod dialog;
mod digest;
pub mod emergency;
mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod ladder;
pub mod locate;
mod media;
mod registration;
pub mod sdp;
pub mod shell;
mod standing;
pub mod topology;
mod transaction;
pub mod wire;

pub use self::core::{Core, Counters, Excess, Input, Output, Refusal, StreamId};
pub use account::{Account, Algorithm, Secret};
pub use command::{Command, Route};
pub use config::{
    Allowance, Config, Limits, Listener, ListenerId, Peer, PeerId, Redirects, Routes, SessionTimer, Transport,
};
pub use destination::{Destinations, NoPattern, Pattern};
pub use event::{
    Attestation, Cause, Change, End, EndedBy, Event, Identity, Offer, Replacement, Target, Validation,
    Verdict,
};
pub use ladder::{Ladder, Rung, masked};
pub use media::{Flow, Format, LegMedia, MediaKind, StreamMedia};
pub use shell::{Resolver, ShellCounters, Sockets};
