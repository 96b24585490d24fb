//! `earmark calls`: call records.

use std::fmt::Write;

use clap::{Args, Subcommand};
use consent::{CallId, Direction, Leg};
use storage::{CallFilter, CallRow, LadderRow, Store, StoreError};

use super::ladder::{self, Step};
use super::table::table;
use super::{Configured, Failure, Outcome, open, print_json, print_text};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The latest calls, newest first.
    List(List),
    /// One call.
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    configured: Configured,
    /// Only calls on this line (full number).
    #[arg(long)]
    line: Option<String>,
    /// At most so many; all, if not given with --json, else 50.
    #[arg(long)]
    limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The call's id.
    id: CallId,
    /// Its SIP messages in place of its record.
    #[arg(long)]
    ladder: bool,
    #[command(flatten)]
    configured: Configured,
}

/// How many calls a person is shown where no number is asked for.
const ROWS_FOR_PEOPLE: u32 = 50;

pub(super) async fn run(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::List(list) => run_list(list).await,
        Command::Show(show) => run_show(show).await,
    }
}

async fn run_list(list: List) -> Result<Outcome, Failure> {
    let (_, store) = open(&list.configured).await?;
    let limit = list.limit.unwrap_or(if list.configured.json { u32::MAX } else { ROWS_FOR_PEOPLE });
    let calls = store.calls(&CallFilter { line: list.line, limit, ..CallFilter::default() }).await?;
    if list.configured.json {
        print_json(&calls)?;
        return Ok(Outcome::Done);
    }
    let rows: Vec<_> = calls
        .iter()
        .map(|call| {
            [
                call.id.to_string(),
                call.started_at.clone(),
                word(&call.direction),
                call.from.clone().unwrap_or_else(|| "(withheld)".to_owned()),
                call.to.clone().unwrap_or_else(|| "(withheld)".to_owned()),
                word(&call.outcome),
                word(&call.recording_outcome),
                word(&call.basis),
            ]
        })
        .collect();
    print_text(&table(["ID", "STARTED", "DIRECTION", "FROM", "TO", "OUTCOME", "RECORDING", "BASIS"], &rows));
    Ok(Outcome::Done)
}

async fn run_show(show: Show) -> Result<Outcome, Failure> {
    let (_, store) = open(&show.configured).await?;
    let Some(call) = store.call(show.id).await? else {
        return Ok(Outcome::No(format!("there is no call {}", show.id)));
    };
    if show.ladder {
        return show_ladder(&show, &store, &call).await;
    }
    if show.configured.json {
        print_json(&call)?;
    } else {
        print_text(&for_people(&call));
    }
    Ok(Outcome::Done)
}

async fn show_ladder(show: &Show, store: &Store, call: &CallRow) -> Result<Outcome, Failure> {
    let Some(ladder) = ladder_of(store, call).await? else {
        let why =
            "it has just begun, was refused for want of room, or came while journal or database were behind";
        return Ok(Outcome::No(format!("no ladder of call {} is known: {why}", show.id)));
    };
    if show.configured.json {
        print_json(&ladder)?;
    } else {
        print_text(&drawn(&ladder));
    }
    Ok(Outcome::Done)
}

/// The ladder of a call, as it is shown; `None` if none is known.
pub(super) async fn ladder_of(store: &Store, call: &CallRow) -> Result<Option<LadderRow>, StoreError> {
    let Some(mut ladder) = store.ladder(call.id).await? else { return Ok(None) };
    if let Some(leg) = line_leg(call) {
        let role = if leg == Leg::A { "<caller>" } else { "<callee>" };
        for rung in &mut ladder.rungs {
            rung.message = rung.message.replace(role, "<line>");
        }
    }
    Ok(Some(ladder))
}

/// The leg at whose far end the district's line is.
fn line_leg(call: &CallRow) -> Option<Leg> {
    let line = call.line.as_ref()?;
    match call.direction {
        Direction::Inbound => Some(Leg::B),
        Direction::Outbound => Some(Leg::A),
        Direction::Internal if call.from.as_ref() == Some(line) => Some(Leg::A),
        Direction::Internal => Some(Leg::B),
    }
}

/// The gateway in the middle, the caller's peer at the left.
pub(super) fn drawn(ladder: &LadderRow) -> String {
    let first = |leg| ladder.rungs.iter().find(|rung| rung.leg == leg).map_or("-", |rung| &rung.peer);
    let peers = [first(Leg::A), first(Leg::B)];
    let columns = [peers[0], "earmark", peers[1]].map(str::to_owned);
    let steps = ladder.rungs.iter().map(|rung| {
        let (end, peer) = if rung.leg == Leg::A { (0, peers[0]) } else { (2, peers[1]) };
        let (from, to) = if rung.sent { (1, end) } else { (end, 1) };
        let elsewhere = if rung.peer == peer { String::new() } else { format!("{} ", rung.peer) };
        Step {
            after_ms: rung.after_ms.into(),
            from,
            to,
            label: ladder::label(&rung.message, &rung.method, rung.sdp),
            note: format!("{elsewhere}{}", ladder::again(rung.repeats)),
        }
    });
    let steps: Vec<_> = steps.collect();
    let mut text = ladder::draw(&columns, &steps, ladder::in_colour());
    if ladder.left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} further messages were left out", ladder.left_out);
    }
    text
}

fn for_people(call: &CallRow) -> String {
    let withheld = || "(withheld)".to_owned();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let value = if value.is_empty() { "-" } else { value };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:18} {value}");
    };
    line("call", &call.id.to_string());
    line("line", call.line.as_deref().unwrap_or("not a listed line"));
    line("class", &word(&call.line_class));
    line("direction", &word(&call.direction));
    line("from", &call.from.clone().unwrap_or_else(withheld));
    line("to", &call.to.clone().unwrap_or_else(withheld));
    line("started", &call.started_at);
    line("ringing", call.ringing_at.as_deref().unwrap_or_default());
    line("answered", call.answered_at.as_deref().unwrap_or_default());
    line("ended", call.ended_at.as_deref().unwrap_or_default());
    line("outcome", &word(&call.outcome));
    line("final status", &call.final_status.map(|status| status.to_string()).unwrap_or_default());
    line("ended by", &word(&call.ended_by));
    if let Some(cause) = &call.end_cause {
        line("because", &word(cause));
    }
    for said in &call.recorded_elsewhere {
        line(
            "recorded elsewhere",
            &format!("by the {}: {} from {}", word(&said.role), word(&said.state), said.at),
        );
    }
    if let Some(verdict) = &call.identity_verdict {
        let attested = verdict.attestation.map(|letter| format!(", attestation {}", word(&letter)));
        line("number verified", &(word(&verdict.verstat) + &attested.unwrap_or_default()));
    }
    if call.foreign_caller_id {
        line("caller-ID", "a number that is none of the district's");
    }
    line("emergency", if call.emergency { "yes" } else { "no" });
    line("recording", &word(&call.recording_outcome));
    line("basis", &word(&call.basis));
    for id in &call.recordings {
        line("recorded as", &id.to_string());
    }
    for party in &call.parties {
        let identity = party.identity.clone().unwrap_or_else(withheld);
        line("party", &format!("{} {identity}: {}", word(&party.role), word(&party.consent.state)));
    }
    text
}

/// A word of the contract as it stands in JSON; nothing for null.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
