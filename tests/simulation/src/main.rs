//! `simulation --seeds N [--from K]` runs N seeds on two threads; `--seed K` runs one.
//! Exit codes: 0 every invariant held, 1 one did not (printed with its seed), 2 wrong usage.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use simulation::{Counts, Failure, run};

/// From so many seeds on, everything in [`EXPECTED`] must have happened.
const ENOUGH: u64 = 200;
const THREADS: u64 = 2;
const EXPECTED: [&str; 23] = [
    "Recorded",
    "PartlyRecorded",
    "NotPermitted",
    "Refused",
    "Withdrawn",
    "PromptIncomplete",
    "NotAsked",
    "NeverLine",
    "UnionLine",
    "Emergency",
    "Failed",
    "basis dispatch-line",
    "basis all-party-consent",
    "sealed",
    "sealed by recovery",
    "stored",
    "kill -9",
    "power cut",
    "preambles wiped",
    "recordings failed",
    "taken over unannounced",
    "transferred by REFER",
    "voices heard in recordings",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((from, count)) = seeds(&arguments) else {
        eprintln!("usage: simulation --seeds N [--from K] | --seed K");
        return ExitCode::from(2);
    };
    let (counts, failure) = run_all(from, count);
    if let Some(failure) = failure {
        tell(&failure);
        return ExitCode::FAILURE;
    }
    let told: Vec<String> = counts.0.iter().map(|(what, count)| format!("{what} {count}")).collect();
    println!("{count} seeds from {from}: every invariant held. {}", told.join(", "));
    let missing: Vec<_> = EXPECTED.into_iter().filter(|what| !counts.0.contains_key(what)).collect();
    if count >= ENOUGH && !missing.is_empty() {
        println!("but these never happened: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn seeds(arguments: &[String]) -> Option<(u64, u64)> {
    let (mut from, mut count) = (0, None);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        let value = value.parse().ok()?;
        match name.as_str() {
            "--seeds" => count = Some(value),
            "--from" => from = value,
            "--seed" => (from, count) = (value, Some(1)),
            _ => return None,
        }
    }
    count.map(|count| (from, count))
}

/// Runs the seeds until one fails; the failure of the lowest that was run.
fn run_all(from: u64, count: u64) -> (Counts, Option<Failure>) {
    let lines = if count == 1 { 10_000 } else { 60 };
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let found = Mutex::new((Counts::default(), None::<Failure>));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(from + n, lines);
                    let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match outcome {
                        Ok(counts) => found.0.merge(&counts),
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            if found.1.as_ref().is_none_or(|other| failure.seed < other.seed) {
                                found.1 = Some(*failure);
                            }
                        }
                    }
                    if n % 200 == 199 {
                        eprintln!("{} seeds", n + 1);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn tell(failure: &Failure) {
    for line in &failure.trace {
        println!("{line}");
    }
    println!(
        "seed {}: {} violated at step {}: {}",
        failure.seed, failure.invariant, failure.step, failure.what
    );
    println!("again with: simulation --seed {}", failure.seed);
}
