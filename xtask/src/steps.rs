//! Running programs one after another, timing them, and saying at the end which failed.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Why a command ended, and the process's exit code for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// 1: a check failed; 2: wrong usage, or something is missing; else the child's own code.
    pub(crate) exit_code: u8,
    message: String,
}

impl Failure {
    /// A check ran and the answer is no.
    pub(crate) fn check(message: impl Into<String>) -> Self {
        Self { exit_code: 1, message: message.into() }
    }

    /// The user must change something: the command line, or what is installed.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit_code: 2, message: message.into() }
    }

    /// A child's exit code, handed on.
    pub(crate) fn exited(exit_code: u8, message: impl Into<String>) -> Self {
        Self { exit_code, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs `command` to its end with this process's streams.
///
/// # Errors
/// It could not be started (2), or ended with another code than 0 (that code).
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = command_line(command);
    let status =
        command.status().map_err(|error| Failure::usage(format!("cannot start `{line}`: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure::exited(code, format!("`{line}` failed ({status})")))
}

/// Runs `command` and returns its standard output; its standard error is passed through.
///
/// # Errors
/// It could not be started (2), or failed (1).
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let line = command_line(command);
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| Failure::usage(format!("cannot start `{line}`: {error}")))?;
    if !output.status.success() {
        return Err(Failure::check(format!("`{line}` failed ({})", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `cargo` of the toolchain that runs us, started in the workspace root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(crate::tree::root());
    command
}

/// A list of named steps; all are run, and the summary names those that failed.
pub(crate) struct Steps {
    done: Vec<(String, Duration, Result<(), Failure>)>,
}

impl Steps {
    pub(crate) const fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Runs one step; returns whether it succeeded.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<(), Failure>) -> bool {
        println!("\n== {name}");
        let began = Instant::now();
        let result = work();
        if let Err(failure) = &result {
            eprintln!("{name}: {failure}");
        }
        let succeeded = result.is_ok();
        self.done.push((name.to_owned(), began.elapsed(), result));
        succeeded
    }

    /// Prints what each step took.
    ///
    /// # Errors
    /// Any step failed; all of them are named.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        println!();
        let mut failed = Vec::new();
        for (name, took, result) in &self.done {
            let verdict = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{verdict:>7}  {:>7.1} s  {name}", took.as_secs_f64());
            if result.is_err() {
                failed.push(name.as_str());
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::check(format!("failed: {}", failed.join(", ")))) }
    }
}

fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_whole_and_the_others_still_run() {
        let mut steps = Steps::new();
        assert!(!steps.step("first", || Err(Failure::check("no"))));
        assert!(steps.step("second", || Ok(())));
        assert_eq!(steps.finish(), Err(Failure::check("failed: first")));
    }

    #[test]
    fn a_childs_exit_code_is_handed_on() {
        let failure = run(Command::new("sh").args(["-c", "exit 7"])).err();
        assert_eq!(failure.map(|failure| failure.exit_code), Some(7));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = run(&mut Command::new("no-such-program")).err();
        assert!(failure.is_some_and(|failure| failure.message.contains("no-such-program")));
    }
}
