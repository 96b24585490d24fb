//! What the rules and a call's machine do, seen from outside: facts and events in, actions out, time given.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod consent_line;
mod dispatch_line;
mod invariant;
mod numbers;
mod preference;
mod rules;
mod stage;
