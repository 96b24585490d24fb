//! `fuzz`: lets the targets of `fuzz/` look for what the tests do not know yet.

use crate::debian;
use crate::steps::{self, Failure, Steps};
use crate::tree;

/// The targets, each with its seeds beside its corpus.
const TARGETS: [(&str, &[&str]); 4] = [
    ("datagram", &["sip-gateway/tests/torture/rfc4475", "sip-gateway/tests/torture/rfc5118"]),
    ("stream", &[]),
    ("description", &[]),
    ("digest", &[]),
];

/// For each target.
const USUAL_SECONDS: u64 = 600;

/// No message that a stream or a datagram brings is much longer and has more to say.
const MAX_INPUT_BYTES: &str = "-max_len=4096";

/// Relative to the folder that we start it in.
const WORDS: &str = "-dict=fuzz/words.dict";

/// Runs each target for `--seconds N`, or the one that is named. What it learns goes to `fuzz/found`, what
/// breaks it to `fuzz/artifacts`; a file from there that is worth keeping goes into `fuzz/corpus`, whose files
/// every `cargo test` replays. The stable compiler does, as no sanitizer is asked for.
///
/// # Errors
/// Wrong usage, no cargo-fuzz (2), or the targets that broke.
pub(crate) fn fuzz(arguments: &[String]) -> Result<(), Failure> {
    let (seconds, only) = wanted(arguments)?;
    if !debian::on_path("cargo-fuzz") {
        return Err(Failure::usage("cargo-fuzz is not installed: `cargo install --locked cargo-fuzz`"));
    }
    let mut steps = Steps::new();
    for (target, seeds) in TARGETS.iter().filter(|(target, _)| only.is_none_or(|only| only == *target)) {
        steps.step(target, || run(target, seeds, seconds));
    }
    steps.finish()
}

fn run(target: &str, seeds: &[&str], seconds: u64) -> Result<(), Failure> {
    let found = format!("fuzz/found/{target}");
    std::fs::create_dir_all(tree::root().join(&found))
        .map_err(|error| Failure::usage(format!("cannot make {found}: {error}")))?;
    let (corpus, time) = (format!("fuzz/corpus/{target}"), format!("-max_total_time={seconds}"));
    // The code has no `unsafe`: what the address sanitizer looks for is not there, and it costs half the speed.
    let mut cargo =
        steps::cargo(&["fuzz", "run", "--release", "--sanitizer", "none", target, &found, &corpus]);
    cargo.args(seeds).args(["--", &time, MAX_INPUT_BYTES, WORDS, "-print_final_stats=1"]);
    steps::run(&mut cargo)
}

fn wanted(arguments: &[String]) -> Result<(u64, Option<&str>), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (only, seconds) = match words.as_slice() {
        [] => (None, None),
        ["--seconds", seconds] => (None, Some(*seconds)),
        [only, "--seconds", seconds] | ["--seconds", seconds, only] => (Some(*only), Some(*seconds)),
        [only] => (Some(*only), None),
        _ => return Err(Failure::usage("usage: cargo xtask fuzz [TARGET] [--seconds N]")),
    };
    let seconds = seconds.map_or(Ok(USUAL_SECONDS), |text| {
        text.parse().map_err(|_| Failure::usage(format!("`{text}` is not a number of seconds")))
    })?;
    match only {
        Some(only) if !TARGETS.iter().any(|(target, _)| *target == only) => {
            Err(Failure::usage(format!("there is no target `{only}`")))
        }
        _ => Ok((seconds, only)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_built_and_has_a_corpus() {
        let manifest = tree::read("fuzz/Cargo.toml".as_ref()).unwrap_or_default();
        for (target, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(tree::root().join("fuzz/corpus").join(target).is_dir(), "{target}");
        }
    }

    #[test]
    fn usage() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(wanted(&words("stream --seconds 30")), Ok((30, Some("stream"))));
        assert_eq!(wanted(&words("--seconds 30 stream")), Ok((30, Some("stream"))));
        assert_eq!(wanted(&words("")), Ok((USUAL_SECONDS, None)));
        for line in ["nothing", "--seconds x", "stream digest --seconds 1"] {
            assert_eq!(wanted(&words(line)).map_err(|failure| failure.exit_code), Err(2), "{line}");
        }
    }
}
