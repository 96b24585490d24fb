//! What the demonstration says to people.

use std::fmt::Write as _;

use serde_json::Value;

use super::outcome::Told;

/// Width of a paragraph.
const WIDTH: usize = 96;

/// Of a paragraph under a call's heading.
const INDENT: usize = 3;

/// Of a decision's further lines: under its words, past the time.
const DECISION_INDENT: usize = 12;

/// Colours (ECMA-48 SGR), on a terminal only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) colour: bool,
}

impl Style {
    fn paint(self, code: u8, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint(1, text)
    }

    fn verdict(self, as_expected: bool, text: &str) -> String {
        self.paint(if as_expected { 32 } else { 31 }, text)
    }
}

/// The table of all calls, then a paragraph on each.
pub(super) fn calls(told: &[Told], style: Style) -> String {
    let mut text = String::new();
    let title_width = told.iter().map(|call| call.title.len()).max().unwrap_or(0);
    let header = format!("   {:title_width$}  {:16}  {:17}  {:14}", "CALL", "OUTCOME", "BASIS", "STORED");
    line(&mut text, &style.bold(header.trim_end()));
    for (number, call) in told.iter().enumerate() {
        let outcome = style.verdict(call.as_expected(), &format!("{:16}", call.outcome));
        let basis = call.basis.as_deref().unwrap_or("-");
        let row =
            format!("{}  {:title_width$}  {outcome}  {basis:17}  {}", number + 1, call.title, call.stored());
        line(&mut text, &row);
    }
    for (number, call) in told.iter().enumerate() {
        line(&mut text, "");
        let heading = format!("{}  {}, {} ({})", number + 1, call.title, call.line, call.id);
        line(&mut text, &style.bold(&heading));
        for decision in &call.decisions {
            paragraph(&mut text, &decision_text(decision, call.started_at), DECISION_INDENT);
        }
        for note in &call.notes {
            paragraph(&mut text, note, INDENT);
        }
        for fault in &call.faults {
            line(&mut text, &style.verdict(false, &format!("   NOT AS EXPECTED: {fault}")));
        }
    }
    text
}

/// `+3.1 s  recording: why (clause)`.
fn decision_text(decision: &Value, started_at: Option<jiff::Timestamp>) -> String {
    let word = |key: &str| decision.get(key).and_then(Value::as_str).unwrap_or_default();
    let at = word("at").parse::<jiff::Timestamp>().ok();
    let after = at.zip(started_at).map_or_else(String::new, |(at, start)| {
        format!("{:5.1} s  ", (at.as_millisecond() - start.as_millisecond()) as f64 / 1_000.0)
    });
    let gate = if word("gate") == "open" { "recording" } else { "not recording" };
    format!("{after}{gate}: {} [{}]", why(decision), word("clause"))
}

/// The reason in plain English.
fn why(decision: &Value) -> String {
    if let Some(sentence) = decision.get("sentence").and_then(Value::as_str) {
        return sentence.to_owned();
    }
    let reason = decision.get("reason").cloned().unwrap_or(Value::Null);
    match serde_json::from_value::<consent::Reason>(reason.clone()) {
        Ok(code) => code.sentence().to_owned(),
        Err(_) => reason.as_str().unwrap_or("no reason is given").to_owned(),
    }
}

/// Wrapped text: the first line as indented as it comes and 3 more, the others by `hang`.
fn paragraph(text: &mut String, words: &str, hang: usize) {
    let lead = words.len() - words.trim_start().len();
    let mut current = " ".repeat(INDENT + lead);
    let mut fresh = true;
    for word in words.split_whitespace() {
        if !fresh && current.chars().count() + 1 + word.chars().count() > WIDTH {
            line(text, &current);
            current = " ".repeat(hang);
            fresh = true;
        }
        if !fresh {
            current.push(' ');
        }
        current.push_str(word);
        fresh = false;
    }
    line(text, &current);
}

fn line(text: &mut String, words: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{words}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_decision_is_told_with_its_time_its_reason_in_words_and_its_clause() {
        let start = "2026-11-22T10:00:00.000Z".parse().ok();
        let decision = serde_json::json!({
            "at": "2026-11-22T10:00:03.140Z", "gate": "open", "reason": "all-agreed", "clause": "C.G.S. § 52-570d",
        });
        assert_eq!(
            decision_text(&decision, start),
            "  3.1 s  recording: Every party on the line agreed to be recorded. [C.G.S. § 52-570d]"
        );
        let decision = serde_json::json!({ "gate": "shut", "reason": "Because.", "clause": "c" });
        assert_eq!(decision_text(&decision, start), "not recording: Because. [c]");
    }

    #[test]
    fn paragraphs_are_wrapped() {
        let mut text = String::new();
        paragraph(&mut text, &format!("  {}", "word ".repeat(40)), 7);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= WIDTH));
        assert!(lines[0].starts_with("     word") && lines[1].starts_with("       word"));
        assert_eq!(text.split_whitespace().count(), 40);
    }
}
