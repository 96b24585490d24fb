//! `earmark inspect`: a capture file as ladders, with the quality of its media and what the rules say.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use consent::GateState;

use super::calls::word;
use super::ladder::{self, Step};
use super::table::table;
use super::{Failure, Outcome, print_json, print_text};
use crate::config::Config;
use crate::inspect::{CallReport, Finding, Judgement, Report, RungReport, StreamReport, inspect};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A capture: pcap or pcapng.
    file: PathBuf,
    /// The configuration whose rules are asked; without it none are.
    #[arg(long, env = "EARMARK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Show roles in place of numbers and names.
    #[arg(long)]
    masked: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let config = arguments.config.as_deref().map(Config::load).transpose()?;
    let report = inspect(&arguments.file, config.as_ref(), arguments.masked)
        .with_context(|| arguments.file.display().to_string())
        .map_err(|error| Failure::Usage(format!("{error:#}")))?;
    if arguments.json {
        print_json(&report)?;
    } else {
        print_text(&for_people(&report, config.is_some(), ladder::in_colour()));
    }
    Ok(Outcome::Done)
}

fn for_people(report: &Report, configured: bool, colour: bool) -> String {
    let span = report.began_at.as_deref().zip(report.ended_at.as_deref());
    let span = span.map_or_else(String::new, |(from, to)| format!(", {from} to {to}"));
    let mut text = format!("{} packets{span}\n", report.packets);
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for remark in &report.remarks {
        line(format!("note: {remark}"));
    }
    for (method, count) in &report.other_exchanges {
        line(format!("{count} exchanges without a call that begin with {method}"));
    }
    for (index, call) in report.calls.iter().enumerate() {
        let id = call.call_id.as_deref().unwrap_or("(masked)");
        line(format!("\nCall {}, Call-ID {id}, began {}", index + 1, call.began_at));
        line(draw(call, colour));
        line(rules(call.rules.as_ref(), configured));
    }
    if !report.streams.is_empty() {
        let rows: Vec<_> = report.streams.iter().map(row).collect();
        let head = ["FROM", "TO", "SSRC", "CODEC", "PACKETS", "LOST", "JITTER MS", "MOS", "S", "CALL"];
        line(format!("\n{}", table(head, &rows).trim_end()));
    }
    text
}

fn draw(call: &CallReport, colour: bool) -> String {
    let columns = Columns::of(&call.rungs);
    let steps = call.rungs.iter().map(|rung| Step {
        after_ms: rung.after_ms,
        from: columns.at(rung.from),
        to: columns.at(rung.to),
        label: ladder::label(&rung.message, &rung.method, rung.sdp),
        note: ladder::again(rung.repeats),
    });
    let steps: Vec<_> = steps.collect();
    let mut text = ladder::draw(&columns.names, &steps, colour);
    if call.left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} further messages were left out", call.left_out);
    }
    text
}

/// The hosts of a ladder, in the order in which they appear; with their ports where all are one host.
struct Columns {
    names: Vec<String>,
    with_ports: bool,
}

impl Columns {
    fn of(rungs: &[RungReport]) -> Self {
        let ends: Vec<SocketAddr> = rungs.iter().flat_map(|rung| [rung.from, rung.to]).collect();
        let with_ports = ends.windows(2).all(|pair| pair[0].ip() == pair[1].ip());
        let mut columns = Self { names: Vec::new(), with_ports };
        for end in ends {
            let name = columns.name(end);
            if !columns.names.contains(&name) {
                columns.names.push(name);
            }
        }
        columns
    }

    fn name(&self, end: SocketAddr) -> String {
        if self.with_ports { end.to_string() } else { end.ip().to_string() }
    }

    fn at(&self, end: SocketAddr) -> usize {
        let name = self.name(end);
        self.names.iter().position(|known| *known == name).unwrap_or_default()
    }
}

fn rules(judged: Option<&Judgement>, configured: bool) -> String {
    match judged {
        None if configured => "rules: the capture does not hold how this call began".to_owned(),
        None => "rules: no configuration was given (--config)".to_owned(),
        Some(Judgement::Stranger) => {
            "rules: it comes from no configured peer; the gateway would not have answered".to_owned()
        }
        Some(Judgement::Refused { status }) => {
            format!("rules: the gateway would have refused it with {status}")
        }
        Some(Judgement::Call(finding)) => found(finding),
    }
}

fn found(finding: &Finding) -> String {
    let line = match (&finding.line, &finding.line_name) {
        (Some(number), Some(name)) => format!("line {number} ({name})"),
        (None, Some(name)) => format!("line {name}"),
        (Some(number), None) => format!("line {number}"),
        (None, None) => "no listed line".to_owned(),
    };
    let class = word(&finding.line_class);
    let emergency = if finding.emergency { "emergency call, " } else { "" };
    let direction = word(&finding.direction);
    let mut text = format!("rules: {emergency}{direction} from {}, {line}, class {class}", finding.peer);
    if let Some(verdict) = &finding.decision {
        let gate = match verdict.gate {
            GateState::Open => "recorded from the answer on",
            GateState::Shut => "not recorded at the answer",
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n       {gate}: {}", verdict.sentence);
        let _ = write!(text, "\n       clause {}, rules version {}", verdict.clause, verdict.rule_version.0);
        if !verdict.otherwise.is_empty() {
            let _ = write!(text, "\n       otherwise: {}", verdict.otherwise);
        }
    }
    text
}

fn row(stream: &StreamReport) -> [String; 10] {
    [
        stream.from.to_string(),
        stream.to.to_string(),
        format!("{:08x}", stream.ssrc),
        stream.codec.clone(),
        stream.packets.to_string(),
        stream.lost.to_string(),
        format!("{:.1}", stream.jitter_ms),
        stream.mos.map_or_else(String::new, |mos| format!("{mos:.2}")),
        format!("{:.1}", stream.duration_s),
        stream.call.map_or_else(String::new, |call| (call + 1).to_string()),
    ]
}
