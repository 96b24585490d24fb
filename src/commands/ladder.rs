//! Ladders for people: a column for each end, an arrow for each message, the time since the first at the left.

use std::fmt::Write;
use std::io::IsTerminal;

/// One message between two columns.
pub(super) struct Step {
    pub(super) after_ms: u64,
    /// Index of the column that it comes from.
    pub(super) from: usize,
    /// Index of the column that it goes to.
    pub(super) to: usize,
    /// What stands on the arrow.
    pub(super) label: String,
    /// What stands behind the line.
    pub(super) note: String,
}

/// Between two columns at least: an arrow that looks like one.
const GAP_CHARS: usize = 24;

/// The longest label that is shown whole.
const LABEL_CHARS: usize = 60;

/// What an arrow needs beside its label: a dash and a blank at each side, and the head.
const AROUND_LABEL_CHARS: usize = 5;

const TIME_CHARS: usize = 10;

/// Whether stdout is a terminal that may be coloured (no-color.org).
pub(super) fn in_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Draws a ladder. Every step is between two of the columns.
pub(super) fn draw(columns: &[String], steps: &[Step], colour: bool) -> String {
    let gaps = gaps(columns, steps);
    let mut text = heading(columns, &gaps);
    for step in steps {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:>TIME_CHARS$}  ", step.after_ms);
        let arrow = arrow(step, &gaps);
        text.push_str(&if colour { coloured(&arrow, &step.label) } else { arrow });
        if !step.note.is_empty() {
            let _ = write!(text, "  {}", step.note);
        }
        text.push('\n');
    }
    text
}

/// What stands behind a message that came or went again.
pub(super) fn again(repeats: u32) -> String {
    if repeats == 0 { String::new() } else { format!("(again {repeats}×)") }
}

/// The label of a message.
pub(super) fn label(message: &str, method: &str, sdp: bool) -> String {
    let is_status = message.starts_with(|first: char| first.is_ascii_digit());
    let of = if is_status { format!(" ({method})") } else { String::new() };
    let sdp = if sdp { " SDP" } else { "" };
    format!("{message}{of}{sdp}")
}

/// The characters between each column and the next.
fn gaps(columns: &[String], steps: &[Step]) -> Vec<usize> {
    let heads = columns.windows(2).map(|pair| {
        let widths: usize = pair.iter().map(|head| head.chars().count()).sum();
        (widths / 2 + 3).max(GAP_CHARS)
    });
    let mut gaps: Vec<usize> = heads.collect();
    for step in steps {
        let (left, right) = (step.from.min(step.to), step.from.max(step.to));
        let needed = shown(&step.label).chars().count() + AROUND_LABEL_CHARS;
        let span = gaps.get(left..right).unwrap_or_default();
        let there = span.iter().sum::<usize>() + span.len().saturating_sub(1);
        if let Some(last) = right.checked_sub(1).and_then(|last| gaps.get_mut(last)) {
            *last += needed.saturating_sub(there);
        }
    }
    gaps
}

fn heading(columns: &[String], gaps: &[usize]) -> String {
    let mut line = format!("{:>TIME_CHARS$}  ", "ms");
    let mut at = TIME_CHARS + 2;
    for (index, column) in columns.iter().enumerate() {
        let width = column.chars().count();
        let begin = (at + 1).saturating_sub(width.div_ceil(2)).max(line.chars().count());
        let blanks = begin - line.chars().count();
        // Writing to a String cannot fail.
        let _ = write!(line, "{:blanks$}{column} ", "");
        at += gaps.get(index).map_or(0, |gap| gap + 1);
    }
    format!("{}\n", line.trim_end())
}

fn arrow(step: &Step, gaps: &[usize]) -> String {
    let (left, right) = (step.from.min(step.to), step.from.max(step.to));
    let mut line = String::from("|");
    for (index, gap) in gaps.iter().enumerate() {
        if index == left && left < right {
            let span = gaps.get(left..right).unwrap_or_default();
            let width = span.iter().sum::<usize>() + span.len() - 1;
            line.push_str(&shaft(&shown(&step.label), width, step.from < step.to));
            line.push('|');
        } else if index < left || index >= right {
            // Writing to a String cannot fail.
            let _ = write!(line, "{:gap$}|", "");
        }
    }
    if left == right {
        let _ = write!(line, " {} (to itself)", step.label);
    }
    line
}

fn shaft(label: &str, width: usize, to_the_right: bool) -> String {
    let dashes = width.saturating_sub(label.chars().count() + 3);
    let (before, after) = ("-".repeat(dashes / 2), "-".repeat(dashes - dashes / 2));
    if to_the_right { format!("{before} {label} {after}>") } else { format!("<{before} {label} {after}") }
}

fn shown(label: &str) -> String {
    if label.chars().count() <= LABEL_CHARS {
        return label.to_owned();
    }
    let begin: String = label.chars().take(LABEL_CHARS - 1).collect();
    format!("{begin}…")
}

/// Green: well; yellow: elsewhere; red: refused; bold: a request.
fn coloured(arrow: &str, label: &str) -> String {
    let code = match label.chars().next() {
        Some('1' | '2') => "32",
        Some('3') => "33",
        Some('4'..='6') => "31",
        _ => "1",
    };
    let shown = shown(label);
    arrow.replacen(&shown, &format!("\u{1b}[{code}m{shown}\u{1b}[0m"), 1)
}

#[cfg(test)]
mod tests {
    use super::{Step, draw, label};

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn step(after_ms: u64, from: usize, to: usize, label: &str, note: &str) -> Step {
        Step { after_ms, from, to, label: label.to_owned(), note: note.to_owned() }
    }

    #[test]
    fn arrows_lead_from_column_to_column() {
        let steps = [
            step(0, 0, 1, &label("INVITE sip:<line>", "INVITE", true), ""),
            step(12, 1, 2, "ACK", "(again 2×)"),
            step(3_000, 2, 0, &label("200 OK", "BYE", false), ""),
        ];
        let drawn = draw(&columns(&["carrier", "earmark", "pbx"]), &steps, false);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(
            lines,
            [
                "        ms  carrier                 earmark                    pbx",
                "         0  |- INVITE sip:<line> SDP ->|                        |",
                "        12  |                          |--------- ACK --------->|  (again 2×)",
                "      3000  |<------------------ 200 OK (BYE) ------------------|",
            ]
        );
    }

    #[test]
    fn colours_change_no_character() {
        let steps = [step(0, 0, 1, "486 Busy Here", "")];
        let two = columns(&["a", "b"]);
        let (plain, coloured) = (draw(&two, &steps, false), draw(&two, &steps, true));
        assert_ne!(plain, coloured);
        assert_eq!(coloured.replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""), plain);
    }

    #[test]
    fn a_long_label_is_cut_and_widens_its_gap() {
        let drawn = draw(&columns(&["a", "b"]), &[step(0, 1, 0, &"x".repeat(100), "")], false);
        assert!(drawn.contains(&format!("<- {}… -|", "x".repeat(59))), "{drawn}");
    }
}
