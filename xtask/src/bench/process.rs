//! A program under measure: its processes, their CPU time and memory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::steps::{self, Failure};
use crate::{debian, tree};

/// Where the program under measure runs, where there is more than one core.
const ITS_CORE: &str = "0";
/// Where its load comes from.
const OUR_CORE: &str = "1";

/// Shared memory in MB and bytes of its socket's buffer. Its defaults (64, 256 kB) do not hold the transactions
/// of 500 calls/s, nor what comes while the load of a busy machine has its core.
const KAMAILIO_ROOM: [&str; 4] = ["-m", "1024", "-b", "4194304"];

/// A running program with all the processes of its group; killed when dropped.
pub(super) struct Program {
    child: Child,
    ticks_per_second: f64,
}

/// Which cores a program may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cores {
    All,
    /// One of its own, if there are two.
    One,
}

impl Program {
    /// Starts the release build in `folder` and waits for its ready line.
    pub(super) fn earmark(folder: &Path, configuration: &str, cores: Cores) -> Result<Self, Failure> {
        let file = folder.join("earmark.toml");
        fs::write(&file, configuration).map_err(|error| failed(folder, &error))?;
        let program = tree::target().join("release/earmark");
        let mut command = on_cores(&program.to_string_lossy(), cores);
        command.arg("serve").arg("--config").arg(&file).env("EARMARK_LOG", "warn");
        let (program, stdout) = Self::start(command, folder, Stdio::piped())?;
        let mut line = String::new();
        let read = stdout.map_or(Ok(0), |stdout| BufReader::new(stdout).read_line(&mut line));
        if read.is_err() || !line.starts_with("ready") {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            return Err(Failure::check(format!("earmark is not ready: {line}{log}")));
        }
        Ok(program)
    }

    /// Starts Debian's Kamailio in `folder`; it is ready a moment later. Its accounting goes to a file there
    /// instead of syslog: where no daemon listens, syslog(3) writes to the console, which takes longer than
    /// the call.
    pub(super) fn kamailio(folder: &Path, configuration: &str, cores: Cores) -> Result<Self, Failure> {
        let file = folder.join("kamailio.cfg");
        fs::write(&file, configuration).map_err(|error| failed(folder, &error))?;
        let kamailio = debian::located("kamailio").ok_or_else(|| Failure::usage("there is no kamailio"))?;
        let mut command = on_cores(&kamailio.to_string_lossy(), cores);
        command.arg("-DD").arg("-E").arg("-f").arg(&file).arg("-Y").arg(folder).args(KAMAILIO_ROOM);
        Ok(Self::start(command, folder, Stdio::null())?.0)
    }

    fn start(
        mut command: Command,
        folder: &Path,
        stdout: Stdio,
    ) -> Result<(Self, Option<ChildStdout>), Failure> {
        let log = File::create(folder.join("log")).map_err(|error| failed(folder, &error))?;
        let ticks = steps::output(Command::new("getconf").arg("CLK_TCK"))?;
        let mut child = command
            .current_dir(folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::check(format!("cannot start {command:?}: {error}")))?;
        let stdout = child.stdout.take();
        Ok((Self { child, ticks_per_second: ticks.trim().parse().unwrap_or(100.0) }, stdout))
    }

    /// CPU seconds, user and system, of all its processes since it started.
    pub(super) fn cpu(&self) -> Result<f64, Failure> {
        let ticks: u64 = self.stats()?.iter().map(|stat| stat.ticks).sum();
        Ok(ticks as f64 / self.ticks_per_second)
    }

    /// Resident memory of all its processes, MB.
    pub(super) fn memory_mb(&self) -> Result<f64, Failure> {
        let pages: u64 = self.stats()?.iter().map(|stat| stat.resident_pages).sum();
        Ok(pages as f64 * 4_096.0 / 1e6)
    }

    fn stats(&self) -> Result<Vec<Stat>, Failure> {
        let processes = fs::read_dir("/proc").map_err(|error| failed(Path::new("/proc"), &error))?;
        let group = u64::from(self.child.id());
        let stats: Vec<Stat> = processes
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
            // A process may end while we look.
            .filter_map(|entry| Stat::read(&fs::read_to_string(entry.path().join("stat")).ok()?))
            .filter(|stat| stat.group == group)
            .collect();
        if stats.is_empty() { Err(Failure::check("the program under measure has ended")) } else { Ok(stats) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Moves this process, and the threads that it starts from now on, to the core of the load; whether there is
/// one.
pub(super) fn leave_a_core() -> Result<bool, Failure> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Ok(false);
    }
    let own = std::process::id().to_string();
    steps::output(Command::new("taskset").args(["--pid", "--cpu-list", OUR_CORE, &own]))?;
    Ok(true)
}

fn on_cores(program: &str, cores: Cores) -> Command {
    if cores == Cores::All {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", ITS_CORE, program]);
    command
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::check(format!("{}: {error}", path.display()))
}

/// What proc(5)'s stat says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    group: u64,
    ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// pgrp, utime, stime and rss are fields 5, 14, 15 and 24; the name in field 2 may hold anything.
    fn read(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { group: field(5)?, ticks: field(14)? + field(15)?, resident_pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 700 80 1 1 20 0 5 0 100 5000 321 18446744073709551615 1";
        assert_eq!(Stat::read(stat), Some(Stat { group: 2, ticks: 780, resident_pages: 321 }));
        assert_eq!(Stat::read("42 (x) S 1"), None);
    }
}
