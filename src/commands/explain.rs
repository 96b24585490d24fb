//! `earmark explain`: why a call was, or was not, recorded.

use std::fmt::Write;

use clap::Args;
use consent::{CallId, GateState};
use storage::Explanation;

use super::calls::word;
use super::{Configured, Failure, Outcome, open, print_json, print_text};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The call's id.
    id: CallId,
    #[command(flatten)]
    configured: Configured,
}

pub(super) async fn run(arguments: Arguments) -> Result<Outcome, Failure> {
    let (_, store) = open(&arguments.configured).await?;
    let Some(explanation) = store.explain(arguments.id).await? else {
        return Ok(Outcome::No(format!("there is no call {}", arguments.id)));
    };
    if arguments.configured.json {
        print_json(&explanation)?;
    } else {
        print_text(&for_people(&explanation));
    }
    Ok(Outcome::Done)
}

fn for_people(explanation: &Explanation) -> String {
    let mut text = format!("Call {}\n", explanation.call_id);
    if explanation.decisions.is_empty() {
        text.push_str("No decision was made: the call ended before there was one to make.\n");
    }
    for decision in &explanation.decisions {
        let gate = match decision.gate {
            GateState::Open => "recording",
            GateState::Shut => "not recording",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}  {gate}: {}", decision.at, decision.sentence);
        if let Some(basis) = &decision.basis {
            let _ = writeln!(text, "  basis      {}", word(basis));
        }
        let _ = writeln!(text, "  clause     {}", decision.clause);
        let _ = writeln!(text, "  rules      version {}", decision.rule_version.0);
        for party in &decision.parties {
            let who = if party.leg == consent::Leg::A { "caller" } else { "called party" };
            let _ = writeln!(text, "  party      {who}: {}", word(&party.consent));
        }
        for evidence in &decision.evidence {
            let _ = writeln!(text, "  evidence   {} {}", evidence.at, evidence.what);
        }
        if !decision.otherwise.is_empty() {
            let _ = writeln!(text, "  otherwise  {}", decision.otherwise);
        }
    }
    text
}
