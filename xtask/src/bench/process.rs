//! The daemon under measure: its process, and the CPU time it has used.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::steps::{self, Failure};
use crate::tree;

/// A running `earmark serve`; killed when dropped.
pub(super) struct Daemon {
    child: Child,
    ticks_per_second: f64,
}

impl Daemon {
    /// Writes the configuration into `folder`, starts the release build, and waits for its ready line.
    pub(super) fn start(folder: &Path, configuration: &str) -> Result<Self, Failure> {
        let unwritable = |error| Failure::check(format!("{}: {error}", folder.display()));
        let file = folder.join("earmark.toml");
        fs::write(&file, configuration).map_err(unwritable)?;
        let log = folder.join("log");
        let ticks = steps::output(Command::new("getconf").arg("CLK_TCK"))?;
        let mut child = Command::new(tree::target().join("release/earmark"))
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .env("EARMARK_LOG", "warn")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(unwritable)?)
            .spawn()
            .map_err(|error| Failure::check(format!("cannot start earmark: {error}")))?;
        let stdout = child.stdout.take();
        let daemon = Self { child, ticks_per_second: ticks.trim().parse().unwrap_or(100.0) };
        let mut line = String::new();
        let read = stdout.map_or(Ok(0), |stdout| BufReader::new(stdout).read_line(&mut line));
        if read.is_err() || !line.starts_with("ready") {
            let log = fs::read_to_string(&log).unwrap_or_default();
            return Err(Failure::check(format!("earmark is not ready: {line}{log}")));
        }
        Ok(daemon)
    }

    /// CPU seconds, user and system, of all its threads since it started.
    pub(super) fn cpu(&self) -> Result<f64, Failure> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path).map_err(|error| Failure::check(format!("{path}: {error}")))?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| Failure::check(format!("{path}: unreadable: {stat}")))?;
        Ok(ticks as f64 / self.ticks_per_second)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// utime and stime, fields 14 and 15 of proc(5)'s stat; the name in field 2 may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 700 80 1 1 20 0 5 0";
        assert_eq!(cpu_ticks(stat), Some(780));
        assert_eq!(cpu_ticks("42 (x) S 1"), None);
    }
}
