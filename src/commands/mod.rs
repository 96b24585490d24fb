//! The commands of the program. Each prints for people, or with `--json` one JSON document on stdout;
//! diagnostics go to stderr.
//!
//! Exit codes: 0 done; 1 it ran and the answer is no; 2 usage or configuration; 3 a dependency is out of
//! reach.

mod audit;
mod calls;
mod check;
mod explain;
mod inspect;
mod ladder;
mod recordings;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use storage::{JournalError, KeyError, Store, StoreError};

use crate::config::{Config, ConfigError};
use crate::{demo, serve};

/// The recording-consent gateway for a public school district's telephone lines.
#[derive(Debug, Parser)]
#[command(name = "earmark", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sets everything up in a folder, places real calls through the gateway, and shows what came of them.
    Demo(DemoArguments),
    /// Runs the service.
    Serve(Configured),
    /// Validates the configuration and says what each line would do; binds nothing.
    Check(check::Arguments),
    /// Call records.
    #[command(subcommand)]
    Calls(calls::Command),
    /// Why a call was, or was not, recorded.
    Explain(explain::Arguments),
    /// Recordings.
    #[command(subcommand)]
    Recordings(recordings::Command),
    /// Reads a capture: ladders, the quality of its media, and what the rules would have said.
    Inspect(inspect::Arguments),
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::Command),
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// End after the calls.
    #[arg(long)]
    once: bool,
    /// Where to set up.
    #[arg(long, default_value = "earmark-demo")]
    dir: PathBuf,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Configured {
    /// The configuration file.
    #[arg(long, env = "EARMARK_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// How a command came out.
pub(crate) enum Outcome {
    /// 0.
    Done,
    /// 1: it ran, and the answer is no.
    No(String),
}

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// 2.
    #[error("{0}")]
    Usage(String),
    /// 3.
    #[error("the database is out of reach")]
    Database(#[from] StoreError),
    /// 3.
    #[error(transparent)]
    Unavailable(anyhow::Error),
    /// 3.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// 1.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// Something that the service cannot be without.
    pub(crate) fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(error.into())
    }

    /// The master key is not to be had.
    pub(crate) fn key(config: &Config, error: KeyError) -> Self {
        match error {
            KeyError::Missing { .. }
            | KeyError::Exposed { .. }
            | KeyError::Malformed { .. }
            | KeyError::Lost { .. }
            | KeyError::NoVariable { .. } => config.unusable("storage.key_file", error).into(),
            KeyError::Exists { .. }
            | KeyError::Io { .. }
            | KeyError::Random { .. }
            | KeyError::Unwrap { .. }
            | KeyError::Wrap { .. } => Self::unavailable(error),
        }
    }

    /// The journal cannot be written.
    pub(crate) fn journal(config: &Config, error: JournalError) -> Self {
        match error {
            JournalError::InUse { .. } => config.unusable("node.data_dir", error).into(),
            JournalError::Open { .. } | JournalError::Random { .. } | JournalError::Unwritten { .. } => {
                Self::unavailable(error)
            }
        }
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(source) = forbid_core_dumps() {
        return report(Err(Failure::Io { what: "forbidding core dumps".to_owned(), source }));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return report(Err(Failure::Io { what: "starting".to_owned(), source })),
    };
    report(runtime.block_on(run(arguments.command)))
}

/// I4: a core dump would hold audio that nobody has agreed to, and keys.
fn forbid_core_dumps() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

async fn run(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Demo(demo) => {
            let options = demo::Options { once: demo.once, dir: demo.dir };
            Ok(if demo::run(options).await? {
                Outcome::Done
            } else {
                Outcome::No("a call did not come out as expected".to_owned())
            })
        }
        Command::Serve(configured) => {
            let config = Config::load(&configured.config)?.unlocked()?;
            serve::run(config).await.map(|()| Outcome::Done)
        }
        Command::Check(arguments) => check::run(&arguments).await,
        Command::Calls(command) => calls::run(command).await,
        Command::Explain(arguments) => explain::run(arguments).await,
        Command::Recordings(command) => recordings::run(command).await,
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Audit(command) => audit::run(command).await,
    }
}

#[expect(clippy::print_stderr, reason = "diagnostics of a command line program")]
fn report(result: Result<Outcome, Failure>) -> ExitCode {
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No(why)) => {
            eprintln!("earmark: {why}");
            ExitCode::from(1)
        }
        Err(failure) => {
            let code = match failure {
                Failure::Config(_) | Failure::Usage(_) => 2,
                Failure::Database(_) | Failure::Unavailable(_) | Failure::Io { .. } => 3,
                Failure::Other(_) => 1,
            };
            // With its causes, in one line.
            eprintln!("earmark: {:#}", anyhow::Error::from(failure));
            ExitCode::from(code)
        }
    }
}

/// Opens the database that the configuration names.
pub(crate) async fn open(configured: &Configured) -> Result<(Config, Store), Failure> {
    let config = Config::load(&configured.config)?;
    let store = Store::open_existing(&config.storage.database).await?;
    Ok((config, store))
}

/// One JSON document on stdout.
#[expect(clippy::print_stdout, reason = "the product of the command")]
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
    println!("{text}");
    Ok(())
}

/// Text for people on stdout.
#[expect(clippy::print_stdout, reason = "the product of the command")]
pub(crate) fn print_text(text: &str) {
    print!("{text}");
}
