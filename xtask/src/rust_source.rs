//! As much of Rust's lexis as the checks need: which bytes are code, where functions begin and end, and
//! which lines are tests. It follows the Reference's chapter on tokens; macros are taken as plain code.

use std::ops::Range;

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both counted.
    pub(crate) lines: usize,
    /// Whether it stands in a `#[cfg(test)]` module.
    pub(crate) test: bool,
}

/// A source with comments and the contents of literals blanked out, byte for byte.
pub(crate) struct Masked {
    code: Vec<u8>,
    tests: Vec<Range<usize>>,
}

impl Masked {
    /// Blanks `source`.
    pub(crate) fn new(source: &str) -> Self {
        let code = blank(source.as_bytes());
        let tests = test_modules(&code);
        Self { code, tests }
    }

    /// The blanked text, with the same lines as the source.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.code).into_owned()
    }

    /// Lines that are not in a `#[cfg(test)]` module.
    pub(crate) fn lines_without_tests(&self) -> usize {
        let in_tests: usize = self.tests.iter().map(|range| lines(&self.code[range.clone()])).sum();
        lines(&self.code).saturating_sub(in_tests)
    }

    /// Every function with a body, in order, nested ones included.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        let mut at = 0;
        while let Some(start) = word(&self.code, b"fn", at) {
            at = start + 2;
            let name = identifier(&self.code, at);
            // `fn(u8)` is a type.
            if name.is_empty() {
                continue;
            }
            let Some(open) = body(&self.code, at) else { continue };
            let end = closing(&self.code, open);
            functions.push(Function {
                name,
                line: lines(&self.code[..=start]),
                lines: lines(&self.code[start..end]),
                test: self.tests.iter().any(|range| range.contains(&start)),
            });
        }
        functions
    }
}

/// Lines that `code` touches.
fn lines(code: &[u8]) -> usize {
    let breaks = code.iter().filter(|byte| **byte == b'\n').count();
    if code.last().is_none_or(|byte| *byte == b'\n') { breaks } else { breaks + 1 }
}

fn blank(source: &[u8]) -> Vec<u8> {
    let mut code = source.to_vec();
    let mut at = 0;
    while at < source.len() {
        let end = match source[at] {
            b'/' if source.get(at + 1) == Some(&b'/') => find(source, at, b"\n").unwrap_or(source.len()),
            b'/' if source.get(at + 1) == Some(&b'*') => block_comment(source, at),
            b'"' => string(source, at),
            b'r' if starts_raw(source, at) => raw_string(source, at),
            b'\'' => character(source, at),
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    code
}

fn find(source: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    source[from..].windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

/// Block comments nest.
fn block_comment(source: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at + 1 < source.len() {
        match &source[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    source.len()
}

fn string(source: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < source.len() {
        match source[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    source.len()
}

/// Whether `r` at `at` begins a raw string (and is not the end of an identifier or `r#ident`).
fn starts_raw(source: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| source[before]);
    if before.is_some_and(|byte| is_identifier(byte) && byte != b'b' && byte != b'c') {
        return false;
    }
    let hashes = source[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    source.get(at + 1 + hashes) == Some(&b'"')
}

fn raw_string(source: &[u8], start: usize) -> usize {
    let hashes = source[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    find(source, start + 2 + hashes, &close).map_or(source.len(), |at| at + close.len())
}

/// The end of a character literal, or of the quote alone where it begins a lifetime.
fn character(source: &[u8], start: usize) -> usize {
    if source.get(start + 1) == Some(&b'\\') {
        return find(source, (start + 3).min(source.len()), b"'").map_or(source.len(), |at| at + 1);
    }
    let width = match source.get(start + 1) {
        Some(lead) if *lead >= 0xF0 => 4,
        Some(lead) if *lead >= 0xE0 => 3,
        Some(lead) if *lead >= 0xC0 => 2,
        _ => 1,
    };
    if source.get(start + 1 + width) == Some(&b'\'') { start + 2 + width } else { start + 1 }
}

const fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Where `wanted` next stands as a whole word.
fn word(code: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = find(code, at, wanted) {
        let before = found.checked_sub(1).map(|before| code[before]);
        let after = code.get(found + wanted.len()).copied();
        if !before.is_some_and(is_identifier) && !after.is_some_and(is_identifier) {
            return Some(found);
        }
        at = found + wanted.len();
    }
    None
}

fn identifier(code: &[u8], from: usize) -> String {
    let rest = code[from..].trim_ascii_start();
    let length = rest.iter().take_while(|byte| is_identifier(**byte)).count();
    String::from_utf8_lossy(&rest[..length]).into_owned()
}

/// The brace that opens the body of the item whose head begins at `from`; `None` if it has no body.
fn body(code: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, byte) in code[from..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(from + offset),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Just after the brace that closes the one at `open`.
fn closing(code: &[u8], open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in code[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

fn test_modules(code: &[u8]) -> Vec<Range<usize>> {
    const ATTRIBUTE: &[u8] = b"#[cfg(test)]";
    let mut modules = Vec::new();
    let mut at = 0;
    while let Some(start) = find(code, at, ATTRIBUTE) {
        let end =
            body(code, start + ATTRIBUTE.len()).map_or(start + ATTRIBUTE.len(), |open| closing(code, open));
        modules.push(start..end);
        at = end;
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_and_lines_stay() {
        let source = "a /* x /* y */ { */ b // {\nc \"{\\\"{\" 'd' '{' '\\'' &'e f r#\"{\"\"#";
        let masked = Masked::new(source).text();
        assert!(!masked.contains('{'));
        assert_eq!(masked.split_whitespace().collect::<Vec<_>>(), ["a", "b", "c", "&", "e", "f"]);
        assert_eq!(masked.len(), source.len());
        assert_eq!(masked.lines().count(), 2);
    }

    #[test]
    fn functions_are_measured_from_fn_to_closing_brace() {
        let source = "struct S { f: fn(u8) }\ntrait T { fn declared(&self); }\nfn one() {\n  if x { }\n}\n\nimpl S { fn two<'a>(x: [u8; 2]) -> &'a str\n where X: Y\n { \"}\" }\n}\n";
        let measured: Vec<_> = Masked::new(source)
            .functions()
            .into_iter()
            .map(|function| (function.name, function.line, function.lines))
            .collect();
        assert_eq!(measured, [("one".to_owned(), 3, 3), ("two".to_owned(), 7, 3)]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let source = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n  fn b() {\n  }\n}\n";
        let masked = Masked::new(source);
        assert_eq!(masked.lines_without_tests(), 2);
        let tests: Vec<_> = masked.functions().iter().map(|function| function.test).collect();
        assert_eq!(tests, [false, true]);
    }
}
