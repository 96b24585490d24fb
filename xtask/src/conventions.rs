//! Rules of the house that no compiler knows: names that say nothing, and lengths.

use std::path::Path;

use crate::rust_source::Masked;
use crate::steps::Failure;
use crate::tree;

/// Lines of a file, its test modules not counted.
const MOST_FILE_LINES: usize = 1_000;
/// Lines of a function, unless it is listed with a reason.
const MOST_FUNCTION_LINES: usize = 100;
/// Nine functions of ten stay within this.
const USUAL_FUNCTION_LINES: usize = 40;
const USUAL_SHARE: f64 = 0.9;
/// Where longer functions are listed, one a line: `path::name reason`.
const LONG_FUNCTIONS: &str = "xtask/long-functions.txt";

/// Names that would fit any file.
const EMPTY_NAMES: &[&str] = &[
    "common",
    "data",
    "handler",
    "handlers",
    "helper",
    "helpers",
    "info",
    "manager",
    "managers",
    "misc",
    "processor",
    "types",
    "util",
    "utils",
];
/// Endings of type names that say nothing.
const EMPTY_ENDINGS: &[&str] = &["Handler", "Helper", "Manager", "Processor", "Utils"];

/// A source file under its path from the root.
struct Source {
    path: String,
    masked: Masked,
}

/// Checks every Rust source of the project.
///
/// # Errors
/// All breaches, each with its place.
pub(crate) fn check() -> Result<(), Failure> {
    let mut sources = Vec::new();
    for file in tree::files()? {
        if file.extension().is_some_and(|extension| extension == "rs") {
            let masked = Masked::new(&tree::read(&file)?);
            sources.push(Source { path: file.to_string_lossy().into_owned(), masked });
        }
    }
    let excepted = exceptions(&tree::read(Path::new(LONG_FUNCTIONS))?);
    let mut breaches = names(&sources);
    breaches.extend(lengths(&sources, &excepted));
    let (usual, all) = shares(&sources);
    println!("{usual} of {all} functions within {USUAL_FUNCTION_LINES} lines");
    if (usual as f64) < USUAL_SHARE * all as f64 {
        breaches.push(format!(
            "fewer than {USUAL_SHARE} of all functions stay within {USUAL_FUNCTION_LINES} lines"
        ));
    }
    if breaches.is_empty() { Ok(()) } else { Err(Failure::check(breaches.join("\n"))) }
}

fn names(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let path = Path::new(&source.path);
        for part in path.with_extension("").iter().map(|part| part.to_string_lossy()) {
            if EMPTY_NAMES.contains(&part.as_ref()) {
                breaches.push(format!("{}: `{part}` says nothing; name what is in it", source.path));
            }
        }
        for name in declared_types(&source.masked.text()) {
            if EMPTY_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                breaches.push(format!("{}: type `{name}`: name what it is", source.path));
            }
        }
    }
    breaches
}

fn declared_types(code: &str) -> Vec<String> {
    let words: Vec<&str> =
        code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    words
        .windows(2)
        .filter(|pair| ["struct", "enum", "trait"].contains(&pair[0]))
        .map(|pair| pair[1].to_owned())
        .collect()
}

fn lengths(sources: &[Source], excepted: &[(String, String)]) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut used = Vec::new();
    for source in sources {
        let lines = source.masked.lines_without_tests();
        if lines > MOST_FILE_LINES {
            breaches.push(format!(
                "{}: {lines} lines without its tests (at most {MOST_FILE_LINES})",
                source.path
            ));
        }
        for function in source.masked.functions() {
            if function.lines <= MOST_FUNCTION_LINES {
                continue;
            }
            let name = format!("{}::{}", source.path, function.name);
            if excepted.iter().any(|(listed, _)| *listed == name) {
                used.push(name);
                continue;
            }
            breaches.push(format!(
                "{}:{}: fn {} has {} lines (at most {MOST_FUNCTION_LINES}, or list it in {LONG_FUNCTIONS})",
                source.path, function.line, function.name, function.lines
            ));
        }
    }
    for (listed, reason) in excepted {
        if reason.is_empty() {
            breaches.push(format!("{LONG_FUNCTIONS}: {listed} has no reason"));
        }
        if !used.contains(listed) {
            breaches.push(format!("{LONG_FUNCTIONS}: {listed} is not long, or not there: strike it"));
        }
    }
    breaches
}

/// How many functions outside test modules are of usual length, and how many there are.
fn shares(sources: &[Source]) -> (usize, usize) {
    let lengths: Vec<usize> = sources
        .iter()
        .flat_map(|source| source.masked.functions())
        .filter(|function| !function.test)
        .map(|function| function.lines)
        .collect();
    (lengths.iter().filter(|lines| **lines <= USUAL_FUNCTION_LINES).count(), lengths.len())
}

fn exceptions(list: &str) -> Vec<(String, String)> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(char::is_whitespace).unwrap_or((line, "")))
        .map(|(name, reason)| (name.to_owned(), reason.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), masked: Masked::new(text) }
    }

    fn function_of(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
    }

    #[test]
    fn an_empty_name_is_found_in_a_file_a_folder_and_a_type() {
        let sources =
            [source("a/src/utils.rs", ""), source("common/b.rs", ""), source("c.rs", "struct CallManager;")];
        assert_eq!(names(&sources).len(), 3);
        assert!(names(&[source("recorder/src/tap.rs", "// a manager\nstruct Tap;")]).is_empty());
    }

    #[test]
    fn a_function_of_101_lines_needs_a_reason() {
        assert!(lengths(&[source("a.rs", &function_of(100))], &[]).is_empty());
        let long = [source("a.rs", &function_of(101))];
        assert_eq!(lengths(&long, &[]).len(), 1);
        assert!(lengths(&long, &exceptions("a.rs::long one table, row by row")).is_empty());
        assert_eq!(lengths(&long, &exceptions("a.rs::long")).len(), 1, "a reason is asked for");
    }

    #[test]
    fn an_exception_that_nothing_needs_is_struck() {
        let short = [source("a.rs", &function_of(3))];
        assert_eq!(lengths(&short, &exceptions("a.rs::long a table")).len(), 1);
    }

    #[test]
    fn a_file_of_1001_lines_is_too_long_but_its_tests_are_free() {
        let text = "\n".repeat(1_000);
        assert!(lengths(&[source("a.rs", &text)], &[]).is_empty());
        assert_eq!(lengths(&[source("a.rs", &format!("{text}\n"))], &[]).len(), 1);
        let with_tests = format!("{text}#[cfg(test)]\nmod tests {{\n}}\n");
        assert!(lengths(&[source("a.rs", &with_tests)], &[]).is_empty());
    }
}
