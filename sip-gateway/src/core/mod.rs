//! The sans-IO core: one entry for bytes, commands and time, one queue of what to do.

mod io;

pub use io::{Input, Output, StreamId};
