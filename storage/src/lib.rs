//! Call records, the consent ledger, recordings, keys and the audit log.
//!
//! [`Entry`] is everything that can happen to a record. The [`journal`] takes entries first, on local
//! disk; the database is their projection and may lag, be locked or be away. Nothing here knows SIP or
//! RTP.

pub mod audit;
mod entry;
pub mod fold;
pub mod journal;
mod keys;
mod objects;
mod utc;

#[cfg(test)]
mod samples;

pub use entry::{CallEnded, CallStarted, Entry, LegMediaRecord, Outcome, RecordingRow, Stamped};
pub use keys::{KeyError, MasterKey, Recordings, WRAPPED_KEY_BYTES, fresh_dek};
pub use objects::{ObjectError, Objects};
pub use utc::Utc;
