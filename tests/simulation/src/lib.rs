//! The whole gateway with its PBX, carrier, callers, disk and database in one thread on virtual time, all
//! drawn from one seed; the invariants of the design (I1, I2, I3, I5, and I4 and I6 as far as records tell of
//! the parties) are checked after every step.
//!
//! Real: the SIP core, the hub, the consent machine, the relay, the capture, the spool's format and its
//! recovery, the journal and its reader, the fold into call records, the audio store. Stood in for: sockets,
//! threads, clocks, the journal's disk, the SQL database (by the fold), the master key.

mod check;
mod clock;
mod disk;
mod faults;
mod gateway;
mod media;
mod message;
mod network;
mod phone;
mod random;
mod reference;
mod script;
mod sound;
mod told;
mod world;

pub use world::{Counts, Failure, run};
