//! The developers' commands, run as `cargo xtask COMMAND`. No dependencies, so that they build in seconds
//! on a machine that has nothing but Rust and a C compiler yet.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]

mod arrows;
mod bench;
mod conformance;
mod conventions;
mod debian;
mod fuzz;
mod lint;
mod mutants;
mod policy;
mod queries;
mod rust_source;
mod steps;
mod suite;
mod tree;

use std::process::ExitCode;

use steps::Failure;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [-- ARGS]             build the release binary and run `earmark demo ARGS` (--once ends after the calls)
  test                       every test: unit, black-box, simulation (300 seeds), planted defects
  lint                       format, clippy, rustdoc, arrows, names and lengths, policy, licences
  arrows                     only the dependency arrows of docs/ARCHITECTURE.md
  conventions                only names and lengths
  simulate [--seeds N] [--seed K]
                             the simulation: N seeds (2000) from 0, or the one seed K
  mutants                    each planted defect of tests/simulation/mutants must be found by the simulation
  fuzz [TARGET] [--seconds N]
                             the targets of fuzz/, or one of them, 600 seconds each (with cargo-fuzz)
  bench [--runs N]           CPU per signalled call and per relayed packet, with and without recording
  soak [--calls N]           N calls in a row (100000): memory, descriptors and ports stay as they are
  conformance                write docs/CONFORMANCE.md anew from the tests
  bench signalling [--runs N]
                             a signalled call beside Kamailio's: CPU, delays, overload
  sqlx                       write storage's offline query descriptions anew

Exit codes: 0 done, 1 a check failed, 2 wrong usage or something is missing on this machine.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", [].as_slice()),
    };
    let outcome = match command {
        "demo" => suite::demo(rest),
        "test" => no_arguments(rest).and_then(|()| suite::test()),
        "lint" => no_arguments(rest).and_then(|()| lint::lint()),
        "arrows" => no_arguments(rest).and_then(|()| arrows::check()),
        "conventions" => no_arguments(rest).and_then(|()| conventions::check()),
        "simulate" => suite::simulate(rest),
        "mutants" => no_arguments(rest).and_then(|()| mutants::check()),
        "soak" => suite::soak(rest),
        "fuzz" => fuzz::fuzz(rest),
        "bench" => bench::bench(rest),
        "conformance" => no_arguments(rest).and_then(|()| conformance::write()),
        "sqlx" => no_arguments(rest).and_then(|()| queries::describe()),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        unknown => Err(Failure::usage(format!("no command `{unknown}`\n\n{USAGE}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::from(failure.exit_code)
        }
    }
}

fn no_arguments(rest: &[String]) -> Result<(), Failure> {
    match rest.first() {
        None => Ok(()),
        Some(argument) => Err(Failure::usage(format!("unexpected argument `{argument}`\n\n{USAGE}"))),
    }
}
