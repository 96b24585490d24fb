//! docs/POLICY.md promises, for each clause, code that keeps it and a test that would fail if it did not.
//! This checks that both are there: a promise whose test was renamed away is no promise.

use std::collections::BTreeSet;
use std::path::Path;

use crate::rust_source::{Function, Masked};
use crate::steps::Failure;
use crate::tree;

const POLICY: &str = "docs/POLICY.md";

/// Checks every row of the page's tables.
///
/// # Errors
/// Each row that names code or a test that is not there, or names none.
pub(crate) fn check() -> Result<(), Failure> {
    let rows = rows(&tree::read(Path::new(POLICY))?);
    let tests = all_tests()?;
    let exists = |path: &str| {
        let path = tree::root().join(path);
        path.exists() || path.with_extension("rs").exists()
    };
    let breaches: Vec<String> = rows.iter().flat_map(|row| faults(row, exists, &tests)).collect();
    println!("{} clauses, each with its code and tests", rows.len());
    if rows.is_empty() {
        return Err(Failure::check(format!("{POLICY}: no table of clauses")));
    }
    if breaches.is_empty() { Ok(()) } else { Err(Failure::check(breaches.join("\n"))) }
}

/// A row: clause, behaviour, code, test.
struct Row {
    clause: String,
    code: Vec<String>,
    tests: Vec<String>,
}

fn rows(page: &str) -> Vec<Row> {
    page.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| clause"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [clause, _, code, tests] = cells.as_slice() else { return None };
            Some(Row { clause: (*clause).to_owned(), code: quoted(code), tests: quoted(tests) })
        })
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn faults(row: &Row, exists: impl Fn(&str) -> bool, tests: &BTreeSet<String>) -> Vec<String> {
    let clause = &row.clause;
    let mut faults = Vec::new();
    // A path has a slash; a type named beside it has none.
    let paths: Vec<&String> = row.code.iter().filter(|code| code.contains('/')).collect();
    if paths.is_empty() || row.tests.is_empty() {
        faults.push(format!("{POLICY}: `{clause}` names no code or no test"));
    }
    for path in paths.into_iter().filter(|path| !exists(path)) {
        faults.push(format!("{POLICY}: `{clause}` names {path}, which is not there"));
    }
    for test in row.tests.iter().filter(|test| !tests.contains(*test)) {
        faults.push(format!("{POLICY}: `{clause}` names the test {test}, which is not there"));
    }
    faults
}

fn all_tests() -> Result<BTreeSet<String>, Failure> {
    let mut tests = BTreeSet::new();
    for file in tree::files()? {
        if file.extension().is_some_and(|extension| extension == "rs") {
            let found = tests_in(&Masked::new(&tree::read(&file)?));
            tests.extend(found.into_iter().map(|test| test.name));
        }
    }
    Ok(tests)
}

/// The functions that a test attribute stands before.
pub(crate) fn tests_in(source: &Masked) -> Vec<Function> {
    let text = source.text();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_test = |line: usize| {
        // Attributes stand on the lines before `fn`, whose line counts from 1.
        lines[..line - 1]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#[") || line.is_empty())
            .any(|line| line.starts_with("#[test]") || line.contains("::test"))
    };
    source.functions().into_iter().filter(|function| is_test(function.line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| clause | behaviour | code | test |\n|---|---|---|---|\n\
        | cl. 8 | nothing is stored | `a/b.rs` (`Tag`), `c/d` | `one`, `two` |\n\nText.\n";

    #[test]
    fn a_row_gives_its_code_and_tests() {
        let rows = rows(PAGE);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].code, ["a/b.rs", "Tag", "c/d"]);
        assert_eq!(rows[0].tests, ["one", "two"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let row = &rows(PAGE)[0];
        let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert!(faults(row, |_| true, &known(&["one", "two"])).is_empty());
        assert_eq!(faults(row, |_| true, &known(&["one"])).len(), 1);
        assert_eq!(faults(row, |path| path != "c/d", &known(&["one", "two"])).len(), 1);
        let empty = Row { clause: "x".to_owned(), code: Vec::new(), tests: Vec::new() };
        assert_eq!(faults(&empty, |_| true, &known(&[])).len(), 1);
    }

    #[test]
    fn only_functions_under_a_test_attribute_are_tests() {
        let source = "fn no() {\n}\n#[test]\n#[ignore]\nfn yes() {\n}\n#[tokio::test]\nasync fn too() {\n}\n// #[test]\nfn not() {\n}\n";
        let names: Vec<String> = tests_in(&Masked::new(source)).into_iter().map(|test| test.name).collect();
        assert_eq!(names, ["yes", "too"]);
    }
}
