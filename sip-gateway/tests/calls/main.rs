//! The core from outside: messages in, messages and events out, on virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod answer;
mod awareness;
mod basic;
mod cancel;
mod challenged;
mod challenged_transfers;
mod challenging;
mod chaos;
mod defence;
mod emergency;
mod emergency_named;
mod endurance;
mod failover;
mod glare;
mod hunting;
mod identity;
mod inside;
mod joining;
mod ladder;
mod limits;
mod newcomers;
mod passing;
mod proof;
mod redirect;
mod refreshing;
mod refused;
mod registering;
mod reliable;
mod requests;
mod session_timer;
mod streams;
mod tls;
mod topology;
mod torture;
mod transfer;
mod transports;
mod undoing;
mod world;
