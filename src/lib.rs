//! The daemon: wiring only. Signalling, media, rules and records are the four crates beside it.

pub mod commands;
pub mod config;
pub mod demo;
pub mod hub;
mod inspect;
mod serve;

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, for what a command writes down.
fn wall_now() -> consent::Wall {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    consent::Wall(i64::try_from(micros).unwrap_or(i64::MAX))
}
