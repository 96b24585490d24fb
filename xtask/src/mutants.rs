//! Planted defects: each file of `tests/simulation/mutants` breaks one thing in a copy of the tree, and the
//! simulation of that copy must fail and name the invariant. A check that no defect can trip is no check.
//! All are planted at once and compiled once; each is asleep until the environment names it.
//!
//! A mutant is a text file `NAME.mutant`:
//!
//! ```text
//! # Why this would be a disaster.
//! file: recorder/src/tap.rs
//! invariant: I1
//! --- find
//!     if !permit.covers(call, frame.epoch) {
//! --- replace
//!     if !PLANTED && !permit.covers(call, frame.epoch) {
//! --- end
//! ```
//!
//! `find` must stand exactly once in `file`, so that a mutant goes stale loudly. `PLANTED` becomes the question
//! whether this mutant is awake. With it awake the simulation must exit with 1 and print `I1 violated`. The copy has a build folder of its own, with the product's compiled
//! dependencies in it; no defect is ever in the product's own artefacts.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::steps::{self, Failure};
use crate::tree;

const FOLDER: &str = "tests/simulation/mutants";
const SEEDS: &str = "200";
/// Crates of this workspace that the simulation is made of, and those that only stand beside it.
const OURS: &[&str] =
    &["blackbox", "consent", "earmark", "recorder", "simulation", "sip-gateway", "storage", "xtask"];
/// A defect may also hang the simulation; that is found too late to be called found.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The variable that wakes a mutant, by its name.
const AWAKE: &str = "EARMARK_PLANTED";

#[derive(Debug, PartialEq, Eq)]
struct Mutant {
    name: String,
    file: PathBuf,
    invariant: String,
    find: String,
    replace: String,
}

/// Builds and runs every mutant.
///
/// # Errors
/// A mutant is malformed, stale, does not compile, or survives; all are named.
pub(crate) fn check() -> Result<(), Failure> {
    let mutants = mutants()?;
    let copy = Copy::make()?;
    mutants.iter().try_for_each(|mutant| copy.plant(mutant))?;
    copy.build()?;
    let mut failures = Vec::new();
    for mutant in &mutants {
        let began = Instant::now();
        match copy.simulate(mutant) {
            Ok(line) => println!("{}: found in {:.0} s: {line}", mutant.name, began.elapsed().as_secs_f64()),
            Err(failure) => failures.push(format!("{}: {failure}", mutant.name)),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::check(failures.join("\n"))) }
}

fn mutants() -> Result<Vec<Mutant>, Failure> {
    let mut mutants = Vec::new();
    for file in tree::files()? {
        if file.starts_with(FOLDER) && file.extension().is_some_and(|extension| extension == "mutant") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let mutant = Mutant::parse(&name, &tree::read(&file)?)
                .ok_or_else(|| Failure::check(format!("{}: not a mutant", file.display())))?;
            mutants.push(mutant);
        }
    }
    if mutants.is_empty() {
        return Err(Failure::check(format!("no mutants in {FOLDER}")));
    }
    Ok(mutants)
}

impl Mutant {
    fn parse(name: &str, text: &str) -> Option<Self> {
        let (head, rest) = text.split_once("--- find\n")?;
        let (find, rest) = rest.split_once("--- replace\n")?;
        let (replace, _) = rest.split_once("--- end")?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let awake = format!("std::env::var_os(\"{AWAKE}\").is_some_and(|name| name == \"{name}\")");
        let mutant = Self {
            name: name.to_owned(),
            file: PathBuf::from(field("file:")?),
            invariant: field("invariant:")?.to_owned(),
            find: find.to_owned(),
            replace: replace.replace("PLANTED", &awake),
        };
        (!mutant.find.trim().is_empty() && replace.contains("PLANTED")).then_some(mutant)
    }

    /// The mutated source.
    fn apply(&self, source: &str) -> Result<String, Failure> {
        let times = source.matches(&self.find).count();
        if times != 1 {
            let file = self.file.display();
            return Err(Failure::check(format!(
                "stale: what it would change stands {times} times in {file}"
            )));
        }
        Ok(source.replacen(&self.find, &self.replace, 1))
    }
}

/// A copy of the sources with a build folder of its own.
struct Copy {
    sources: PathBuf,
    build: PathBuf,
}

impl Copy {
    fn make() -> Result<Self, Failure> {
        // The simulation as it is, sound: the copy then finds it compiled, with all that it stands on.
        steps::run(&mut steps::cargo(&["build", "--release", "--locked", "--package", "simulation"]))?;
        let folder = tree::target().join("mutants");
        let copy = Self { sources: folder.join("tree"), build: folder.join("build") };
        copy.copy_sources()?;
        copy.share_artefacts()?;
        Ok(copy)
    }

    /// Brings the copy up to date. A file that is new there keeps its time, so that what was compiled from
    /// it counts as compiled from the copy too; one that has changed is of now, so that it is compiled again.
    fn copy_sources(&self) -> Result<(), Failure> {
        for file in tree::files()? {
            let (from, to) = (tree::root().join(&file), self.sources.join(&file));
            if !to.exists() {
                copy_with_time(&from, &to)?;
                continue;
            }
            let bytes = fs::read(&from).map_err(|error| unreadable(&from, &error))?;
            if fs::read(&to).is_ok_and(|present| present == bytes) {
                continue;
            }
            fs::write(&to, bytes).map_err(|error| unreadable(&to, &error))?;
        }
        Ok(())
    }

    /// Gives the copy what is compiled already. Cargo names artefacts by a crate's place in its workspace, so
    /// ours have the same names here and there: they are copied, for these the mutants overwrite. All others
    /// are hard links, which nothing overwrites.
    fn share_artefacts(&self) -> Result<(), Failure> {
        let release = self.build.join("release");
        if release.exists() {
            return Ok(());
        }
        for part in ["deps", "build", ".fingerprint"] {
            let from = tree::target().join("release").join(part);
            let to = release.join(part);
            fs::create_dir_all(&to).map_err(|error| unreadable(&to, &error))?;
            for entry in fs::read_dir(&from).map_err(|error| unreadable(&from, &error))?.flatten() {
                let name = entry.file_name();
                let share = if is_ours(&name.to_string_lossy()) { copy_with_time } else { hard_link };
                mirror(&entry.path(), &to.join(name), share)?;
            }
        }
        Ok(())
    }

    /// Plants a mutant, until the copy is next brought up to date.
    fn plant(&self, mutant: &Mutant) -> Result<(), Failure> {
        let path = self.sources.join(&mutant.file);
        let source = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        fs::write(&path, mutant.apply(&source)?).map_err(|error| unreadable(&path, &error))
    }

    fn build(&self) -> Result<(), Failure> {
        let mut build =
            steps::cargo(&["build", "--quiet", "--release", "--locked", "--package", "simulation"]);
        steps::run(build.current_dir(&self.sources).env("CARGO_TARGET_DIR", &self.build))
    }

    /// Runs the copy with one defect awake; the line that names the broken invariant.
    fn simulate(&self, mutant: &Mutant) -> Result<String, Failure> {
        let mut simulation = Command::new(self.build.join("release/simulation"));
        simulation.args(["--seeds", SEEDS]).current_dir(&self.sources).env(AWAKE, &mutant.name);
        let (code, output) = bounded(simulation)?;
        verdict(code, &output, &mutant.invariant)
    }
}

/// Whether a file or folder of cargo's is of a crate of this workspace.
fn is_ours(name: &str) -> bool {
    let stem = name.rsplit_once('-').map_or(name, |(stem, _)| stem);
    let stem = stem.strip_prefix("lib").unwrap_or(stem).replace('_', "-");
    OURS.contains(&stem.as_str())
}

/// Does `share` with every file below `from`.
fn mirror(from: &Path, to: &Path, share: fn(&Path, &Path) -> Result<(), Failure>) -> Result<(), Failure> {
    if !from.is_dir() {
        return share(from, to);
    }
    fs::create_dir_all(to).map_err(|error| unreadable(to, &error))?;
    for entry in fs::read_dir(from).map_err(|error| unreadable(from, &error))?.flatten() {
        mirror(&entry.path(), &to.join(entry.file_name()), share)?;
    }
    Ok(())
}

fn hard_link(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::hard_link(from, to).map_err(|error| unreadable(from, &error))
}

fn copy_with_time(from: &Path, to: &Path) -> Result<(), Failure> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| unreadable(parent, &error))?;
    }
    fs::copy(from, to)
        .and_then(|_| fs::metadata(from)?.modified())
        .and_then(|time| fs::File::options().append(true).open(to)?.set_modified(time))
        .map_err(|error| unreadable(from, &error))
}

/// Whether the simulation found the defect, and the line in which it says so.
fn verdict(code: Option<i32>, output: &str, invariant: &str) -> Result<String, Failure> {
    let wanted = format!("{invariant} violated");
    let named = output.lines().find(|line| line.contains(&wanted));
    match (code, named) {
        (Some(1), Some(line)) => Ok(line.trim().to_owned()),
        (Some(0), _) => Err(Failure::check(format!("survived {SEEDS} seeds"))),
        (Some(1), None) => Err(Failure::check(format!("found, but without `{wanted}`:\n{}", tail(output)))),
        (Some(code), _) => {
            Err(Failure::check(format!("the simulation ended with {code}:\n{}", tail(output))))
        }
        (None, _) => {
            Err(Failure::check(format!("killed after {} s:\n{}", TIME_LIMIT.as_secs(), tail(output))))
        }
    }
}

/// The last lines of an output, for a person to read.
fn tail(output: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Exit code (`None` after the time limit) and all output of a command.
fn bounded(mut command: Command) -> Result<(Option<i32>, String), Failure> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::usage(format!("cannot start the simulation: {error}")))?;
    let streams = [reader(child.stdout.take()), reader(child.stderr.take())];
    let code = wait(&mut child);
    let text: Vec<String> = streams.into_iter().filter_map(|stream| stream.join().ok()).collect();
    Ok((code, text.concat()))
}

fn reader(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream
            && let Err(error) = stream.read_to_end(&mut bytes)
        {
            eprintln!("the simulation's output is cut short: {error}");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + TIME_LIMIT;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return status.code(),
            Ok(None) => std::thread::sleep(Duration::from_millis(100)),
            Err(_) => break,
        }
    }
    // It may just have ended by itself: then there is nothing to kill, only to collect.
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::check(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# why\nfile: a/b.rs\ninvariant: I1\n--- find\n    if x {\n--- replace\n    if PLANTED || x {\n--- end\n";

    #[test]
    fn a_mutant_is_read_and_applied() {
        let mutant = Mutant::parse("gate", TEXT);
        let source = "fn f() {\n    if x {\n    }\n}\n";
        let broken = mutant.map(|mutant| mutant.apply(source));
        let awake = "std::env::var_os(\"EARMARK_PLANTED\").is_some_and(|name| name == \"gate\")";
        assert_eq!(broken, Some(Ok(format!("fn f() {{\n    if {awake} || x {{\n    }}\n}}\n"))));
    }

    #[test]
    fn a_stale_mutant_fails() {
        for source in ["fn f() {}\n", "    if x {\n    if x {\n"] {
            let broken = Mutant::parse("gate", TEXT).map(|mutant| mutant.apply(source).is_err());
            assert_eq!(broken, Some(true), "{source}");
        }
    }

    #[test]
    fn a_mutant_that_never_wakes_or_lacks_a_field_is_refused() {
        for (part, other) in [("PLANTED || x", "x"), ("invariant", "invention"), ("--- end", "")] {
            assert_eq!(Mutant::parse("gate", &TEXT.replace(part, other)), None, "{part}");
        }
    }

    #[test]
    fn what_a_mutant_may_overwrite_is_ours() {
        for ours in ["consent-0123", "libconsent-0123.rlib", "sip-gateway-89ab", "libsip_gateway-89ab.rmeta"]
        {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["libserde-0123.rlib", "storage_types-0123", "libsqlite3-sys-45cd", "lib.rs"] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn only_a_failure_that_names_the_invariant_counts_as_found() {
        assert!(verdict(Some(1), "seed 4: I1 violated: a frame\n", "I1").is_ok());
        assert!(verdict(Some(1), "seed 4: I3 violated\n", "I1").is_err());
        assert!(verdict(Some(0), "I1 violated", "I1").is_err(), "survived");
        assert!(verdict(Some(101), "I1 violated", "I1").is_err(), "panicked");
        assert!(verdict(None, "", "I1").is_err(), "hung");
    }
}
