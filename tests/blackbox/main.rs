//! The built daemon from outside: real sockets, real time, real peers (SIPp, baresip, scripted telephones).
//! Each test has a folder and loopback addresses of its own; each file is one part of what users rely on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

mod awareness;
mod barrage;
mod conformance;
mod consent_line;
mod crafted;
mod demonstration;
mod dispatch_line;
mod dns;
mod emergency;
mod failover;
mod faults;
mod gateway;
mod hostile;
mod identity;
mod impairment;
mod ladder;
mod linphone;
mod media;
mod message;
mod mistakes;
mod operations;
mod patient;
mod phone;
mod sessions;
mod soak;
mod sound;
mod spoilt;
mod stock_clients;
mod tls;
mod transfer;
mod trunk;
mod wire;
