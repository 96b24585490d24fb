//! Call records, the consent ledger, recordings, keys and the audit log.
//!
//! [`Entry`] is everything that can happen to a record. The [`journal`] takes entries first, on local
//! disk; the database is their projection and may lag, be locked or be away. Nothing here knows SIP or
//! RTP.

pub mod audit;
mod delivery;
mod entry;
pub mod fold;
pub mod journal;
mod keys;
mod objects;
mod sqlite;
mod utc;

#[cfg(test)]
mod samples;

pub use delivery::{Delivery, DeliveryHealth};
pub use entry::{
    Attestation, CallEnded, CallStarted, ElsewhereState, EndCause, Entry, IdentityVerdict, LadderPart,
    LegMediaRecord, Outcome, RecordingRow, Rung, Stamped, Verstat,
};
pub use journal::{Journal, JournalError, JournalHealth, Receipt};
pub use keys::{KeyError, MasterKey, Recordings, WRAPPED_KEY_BYTES, fill_random, fresh_dek};
pub use objects::{ObjectError, Objects, sha256_of_file};
pub use sqlite::{
    AuditFilter, AuditRow, BUSY_TIMEOUT, CallFilter, CallRow, ConsentRow, DecisionRow, Delivered,
    ElsewhereRow, EvidenceRow, Explanation, GateInterval, LadderRow, LegMediaRow, MINIMUM_SQLITE, MediaRow,
    PartyDecided, PartyRow, PreambleWiped, RecordingDetails, RecordingFilter, RecordingListed,
    RecordingState, Role, Store, StoreError,
};
pub use utc::Utc;
