//! `demo`, `test` and `simulate`: commands that build the product and run it.

use std::process::Command;

use crate::steps::{self, Failure, Steps};
use crate::{debian, mutants, tree};

/// Seeds of the simulation in every run of the tests.
const TEST_SEEDS: &str = "300";
/// Calls in a row in every run of the tests.
const TEST_SOAK_CALLS: &str = "5000";
/// Calls of `cargo xtask soak` when no number is given: a quarter of an hour.
const SOAK_CALLS: &str = "100000";
/// Seeds of `cargo xtask simulate` when none are named.
const USUAL_SEEDS: &str = "2000";

/// Builds the daemon and runs its demonstration with `arguments` (after an optional `--`).
///
/// # Errors
/// Something is missing (2), the build failed, or the demonstration's own exit code.
pub(crate) fn demo(arguments: &[String]) -> Result<(), Failure> {
    debian::install_to_build()?;
    steps::run(&mut steps::cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "earmark",
        "--bin",
        "earmark",
    ]))?;
    let arguments = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    let mut earmark = Command::new(tree::target().join("release/earmark"));
    steps::run(earmark.arg("demo").args(arguments).current_dir(tree::root()))
}

/// Every test, by plain `cargo test` in the one profile, then a soak, the simulation and the planted defects.
///
/// # Errors
/// Something is missing (2), or the names of the steps that failed.
pub(crate) fn test() -> Result<(), Failure> {
    debian::install_to_test()?;
    let mut steps = Steps::new();
    let built = steps.step("build", || {
        // All programs and all tests at once: one resolution of features, so each crate is compiled once.
        let arguments = ["build", "--release", "--locked", "--workspace", "--lib", "--bins", "--tests"];
        steps::run(&mut steps::cargo(&arguments))
    });
    if built {
        steps.step("tests", || {
            let arguments = ["test", "--release", "--locked", "--workspace", "--no-fail-fast"];
            steps::run(&mut steps::cargo(&arguments))
        });
        // Apart: it loads the machine, and others wait for what they see.
        steps.step("soak", || calls_in_a_row(TEST_SOAK_CALLS));
        steps.step("simulation", || steps::run(simulation().args(["--seeds", TEST_SEEDS])));
        steps.step("planted defects", mutants::check);
    }
    steps.finish()
}

/// The black-box test of many calls in a row, with `--calls N` of them.
///
/// # Errors
/// Wrong usage or something missing (2); the build failed, or something grew or was left (1).
pub(crate) fn soak(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let calls = match words.as_slice() {
        [] => SOAK_CALLS,
        ["--calls", count] if count.parse::<u32>().is_ok_and(|count| count >= 2) => count,
        _ => return Err(Failure::usage("usage: cargo xtask soak [--calls N]")),
    };
    debian::install_to_test()?;
    calls_in_a_row(calls)
}

fn calls_in_a_row(calls: &str) -> Result<(), Failure> {
    // Of the whole workspace, so that nothing is compiled with other features than for the other tests.
    let test = ["test", "--release", "--locked", "--workspace", "--test", "blackbox"];
    let arguments = [&test[..], &["soak::", "--", "--ignored", "--nocapture"]].concat();
    steps::run(steps::cargo(&arguments).env("EARMARK_SOAK_CALLS", calls))
}

/// The simulation: `--seeds N` from 0, or `--seed K` alone.
///
/// # Errors
/// Wrong usage (2), the build failed, or an invariant broke (1).
pub(crate) fn simulate(arguments: &[String]) -> Result<(), Failure> {
    debian::install_to_build()?;
    let (seeds, from) = seeds(arguments)?;
    steps::run(&mut steps::cargo(&["build", "--release", "--locked", "--package", "simulation"]))?;
    let began = std::time::Instant::now();
    steps::run(simulation().args(["--seeds", &seeds, "--from", &from]))?;
    println!("{seeds} seeds from {from} in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn simulation() -> Command {
    let mut command = Command::new(tree::target().join("release/simulation"));
    command.current_dir(tree::root());
    command
}

/// Count and first seed from the command line.
fn seeds(arguments: &[String]) -> Result<(String, String), Failure> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map(|number| number.to_string())
            .map_err(|_| Failure::usage(format!("`{text}` is not a number of seeds")))
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => Ok((USUAL_SEEDS.to_owned(), "0".to_owned())),
        ["--seeds", count] => Ok((number(count)?, "0".to_owned())),
        ["--seed", seed] => Ok(("1".to_owned(), number(seed)?)),
        ["--seeds", count, "--seed", first] => Ok((number(count)?, number(first)?)),
        _ => Err(Failure::usage("usage: cargo xtask simulate [--seeds N] [--seed K]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn one_seed_is_replayed_alone() {
        assert_eq!(seeds(&words("--seed 17")), Ok(("1".to_owned(), "17".to_owned())));
        assert_eq!(seeds(&words("--seeds 50 --seed 17")), Ok(("50".to_owned(), "17".to_owned())));
        assert_eq!(seeds(&[]), Ok((USUAL_SEEDS.to_owned(), "0".to_owned())));
    }

    #[test]
    fn wrong_usage_says_so() {
        assert_eq!(soak(&words("--calls 1")).map_err(|failure| failure.exit_code), Err(2));
        assert_eq!(seeds(&words("--seeds many")).map_err(|failure| failure.exit_code), Err(2));
        assert_eq!(seeds(&words("--fast")).map_err(|failure| failure.exit_code), Err(2));
    }
}
