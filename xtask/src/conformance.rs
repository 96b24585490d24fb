//! docs/CONFORMANCE.md: which section of which RFC is kept, as the tests show it.
//!
//! A test is evidence for what its own doc comment names, or else for the sections that its file's first
//! paragraph names. Its name, which says in words what is done, becomes the row. The torture messages' table
//! is read from its test. What stands above the mark is written by hand: what is not done, and why.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::policy::tests_in;
use crate::rust_source::Masked;
use crate::steps::Failure;
use crate::tree;

const PAGE: &str = "docs/CONFORMANCE.md";
const MARK: &str = "<!-- From here on written by `cargo xtask conformance`. -->\n";
const TORTURE: &str = "sip-gateway/tests/calls/torture.rs";
/// Crates whose tests show what is done on the wire.
const SHOWN: &[&str] = &["sip-gateway", "recorder", "tests/blackbox"];

/// Sections of one RFC, in order; all of it where there are none. A section is the numbers of `17.1.1.2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    rfc: u32,
    sections: Vec<Vec<u32>>,
}

/// Writes the page anew.
///
/// # Errors
/// If a source cannot be read, or the page not be written.
pub(crate) fn write() -> Result<(), Failure> {
    let page = page()?;
    fs::write(tree::root().join(PAGE), page).map_err(|error| Failure::check(format!("{PAGE}: {error}")))
}

/// Whether the page is what [`write()`] would write.
///
/// # Errors
/// If it is not.
pub(crate) fn check() -> Result<(), Failure> {
    if tree::read(Path::new(PAGE))? == page()? {
        return Ok(());
    }
    Err(Failure::check(format!("{PAGE} is not what the tests say: run `cargo xtask conformance`")))
}

fn page() -> Result<String, Failure> {
    let present = tree::read(Path::new(PAGE))?;
    let Some((by_hand, _)) = present.split_once(MARK) else {
        return Err(Failure::check(format!("{PAGE}: the line `{}` is gone", MARK.trim_end())));
    };
    let mut rows: BTreeMap<Named, Vec<(String, String)>> = BTreeMap::new();
    for file in tree::files()? {
        let shown = SHOWN.iter().any(|folder| file.starts_with(folder));
        if shown && file.extension().is_some_and(|extension| extension == "rs") {
            for (named, test) in evidence(&tree::read(&file)?) {
                rows.entry(named).or_default().push((file.display().to_string(), test));
            }
        }
    }
    let torture = torture(&tree::read(Path::new(TORTURE))?)?;
    Ok(format!("{by_hand}{MARK}\n## What the tests show\n{}\n{torture}", tables(&rows)))
}

fn tables(rows: &BTreeMap<Named, Vec<(String, String)>>) -> String {
    let mut text = String::new();
    let mut rfc = 0;
    for (named, tests) in rows {
        if named.rfc != rfc {
            rfc = named.rfc;
            text += &format!("\n### RFC {rfc}\n\n| § | what is done | test |\n|---|---|---|\n");
        }
        for (file, test) in tests {
            text += &format!("| {} | {} | `{file}` |\n", named.label(), test.replace('_', " "));
        }
    }
    text
}

impl Named {
    fn label(&self) -> String {
        let dotted = |numbers: &Vec<u32>| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        self.sections.iter().map(dotted).collect::<Vec<_>>().join(", ")
    }
}

/// The tests of a source, each with what it shows.
fn evidence(source: &str) -> Vec<(Named, String)> {
    let lines: Vec<&str> = source.lines().collect();
    let head = lines.iter().map_while(|line| line.strip_prefix("//!")).take_while(|line| !line.is_empty());
    let mut of_file = named(&head.collect::<String>());
    of_file.retain(|named| !named.sections.is_empty());
    let mut found = Vec::new();
    for test in tests_in(&Masked::new(source)) {
        let above = lines[..test.line - 1].iter().rev().map(|line| line.trim());
        let doc: Vec<&str> =
            above.take_while(|line| line.starts_with("#[") || line.starts_with("///")).collect();
        let own = named(&doc.into_iter().rev().collect::<Vec<_>>().join(" "));
        let shown = if own.is_empty() { &of_file } else { &own };
        found.extend(shown.iter().map(|named| (named.clone(), test.name.clone())));
    }
    found
}

/// What a text names: `RFC 3261 §8.2, §16.3 and §18; RFC 3311`.
fn named(text: &str) -> Vec<Named> {
    let mut found: BTreeMap<u32, Vec<Vec<u32>>> = BTreeMap::new();
    for part in text.split("RFC ").skip(1) {
        let digits = part.len() - part.trim_start_matches(|char: char| char.is_ascii_digit()).len();
        let Ok(rfc) = part[..digits].parse() else { continue };
        let sections = found.entry(rfc).or_default();
        let mut rest = &part[digits..];
        while let Some(after) = next_section(rest) {
            let end = after.find(|char: char| !(char.is_ascii_digit() || char == '.')).unwrap_or(after.len());
            sections.push(after[..end].split('.').filter_map(|number| number.parse().ok()).collect());
            rest = &after[end..];
        }
    }
    let in_order = |(rfc, mut sections): (u32, Vec<Vec<u32>>)| {
        sections.sort();
        sections.dedup();
        Named { rfc, sections }
    };
    found.into_iter().map(in_order).collect()
}

/// What follows the next section sign, if only the joints of a list stand before it.
fn next_section(text: &str) -> Option<&str> {
    let (joint, after) = text.split_once('§')?;
    matches!(joint.trim(), "" | "," | "and" | "to").then(|| after.trim_start_matches('§'))
}

/// The torture messages: section, message, what becomes of it.
fn torture(source: &str) -> Result<String, Failure> {
    let mut text = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(rfc) = line.strip_prefix("const RFC").and_then(|rest| rest.split(':').next()) {
            text += &format!(
                "\n### RFC {rfc}, message by message\n\n| § | message | the wire layer | the user agent | |\n|---|---|---|---|---|\n"
            );
        } else if let Some((section, rest)) =
            line.strip_prefix("(\"").and_then(|rest| rest.split_once("\", \""))
            && let Some((name, rest)) = rest.split_once("\", ")
            && let Some((outcome, remark)) = rest.split_once("),")
            && let Some((wire, then)) = words(outcome)
        {
            let remark = remark.trim().trim_start_matches("// ");
            text += &format!("| {section} | {name} | {wire} | {then} | {remark} |\n");
        }
    }
    if text.is_empty() { Err(Failure::check(format!("{TORTURE}: no table"))) } else { Ok(text) }
}

/// `Refuses(400, Fault::RequestUri`, `Drops(…` or `Accepts(Answers(405)` in words.
fn words(outcome: &str) -> Option<(String, String)> {
    let (layer, rest) = outcome.split_once('(')?;
    let wire = match layer {
        "Refuses" => format!("refuses with {}", rest.get(..3)?),
        "Drops" => "drops: a response is never answered".to_owned(),
        "Accepts" => "accepts".to_owned(),
        _ => return None,
    };
    let then = match rest.split_once('(') {
        Some(("Answers", status)) => format!("answers {}", status.get(..3)?),
        None if rest.starts_with("Calls") => "lets the call go on".to_owned(),
        None if rest.starts_with("Discards") => "discards it: it belongs to nothing".to_owned(),
        _ => String::new(),
    };
    Some((wire, then))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(rfc: u32, sections: &[&[u32]]) -> Named {
        Named { rfc, sections: sections.iter().map(|numbers| numbers.to_vec()).collect() }
    }

    #[test]
    fn sections_are_read_from_words() {
        let text = "Requests (RFC 3261 §12.2, §9 and §15; RFC 3311; RFC 6086 §4.2.1). See §2.";
        let expected = [one(3261, &[&[9], &[12, 2], &[15]]), one(3311, &[]), one(6086, &[&[4, 2, 1]])];
        assert_eq!(named(text), expected);
        assert_eq!(named("no such thing; RFC of ours"), []);
    }

    #[test]
    fn a_test_shows_what_it_names_or_else_the_sections_of_its_file() {
        let source = "//! Ends (RFC 3261 §15; RFC 2).\n//!\n//! RFC 1 §1.\n\n#[test]\nfn bye_ends() {}\n\n\
            /// RFC 3326.\n#[test]\nfn a_reason_passes() {}\n\nfn no_test() {}\n";
        let expected = [(one(3261, &[&[15]]), "bye_ends"), (one(3326, &[]), "a_reason_passes")];
        assert_eq!(evidence(source), expected.map(|(named, test)| (named, test.to_owned())));
    }

    #[test]
    fn the_torture_table_is_read() {
        let source = "const RFC4475: [Row; 3] = [\n    (\"3.1.1.1\", \"wsinv\", Accepts(Answers(405))), // here\n\
            \x20   (\"3.1.1.3\", \"y\", Accepts(Calls)),\n    (\"3.2\", \"x\", Refuses(400, Fault::A)),\n];\n";
        let text = torture(source).unwrap_or_default();
        assert!(text.contains("| 3.1.1.1 | wsinv | accepts | answers 405 | here |\n"), "{text}");
        assert!(text.contains("| 3.1.1.3 | y | accepts | lets the call go on |  |\n"), "{text}");
        assert!(text.contains("| 3.2 | x | refuses with 400 |  |  |\n"), "{text}");
    }
}
