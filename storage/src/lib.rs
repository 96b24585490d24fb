//! Call records, the consent ledger, recordings, keys and the audit log.
//!
//! [`entry::Entry`] is everything that can happen to a record. The [`journal`] takes entries first, on
//! local disk; the database is their projection and may lag, be locked or be away. Nothing here knows
//! SIP or RTP.

mod entry;

pub use entry::{CallEnded, CallStarted, Entry, LegMediaRecord, Outcome, RecordingRow, Stamped};
