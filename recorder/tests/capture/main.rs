//! Calls through the consent machine and the capture to sealed files, on virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod crash;
mod gate;
mod rig;
mod spool;
