//! `earmark audit`: the audit log.

use clap::Subcommand;
use storage::AuditFilter;

use super::table::table;
use super::{Configured, Failure, Outcome, open, print_json, print_text};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Its entries, oldest first.
    List(Configured),
    /// Whether anything in it was changed, removed or put in another order.
    Verify(Configured),
}

pub(super) async fn run(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::List(configured) => list(&configured).await,
        Command::Verify(configured) => verify(&configured).await,
    }
}

async fn list(configured: &Configured) -> Result<Outcome, Failure> {
    let (_, store) = open(configured).await?;
    let entries = store.audit(&AuditFilter::default()).await?;
    if configured.json {
        print_json(&entries)?;
        return Ok(Outcome::Done);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            [
                entry.at.clone(),
                entry.actor.clone(),
                entry.action.clone(),
                entry.object.clone().unwrap_or_default(),
                entry.detail.clone().unwrap_or_default(),
            ]
        })
        .collect();
    print_text(&table(["AT", "WHO", "DID", "TO", "DETAIL"], &rows));
    Ok(Outcome::Done)
}

async fn verify(configured: &Configured) -> Result<Outcome, Failure> {
    let (_, store) = open(configured).await?;
    let report = store.audit_verify().await?;
    if configured.json {
        print_json(&report)?;
    } else {
        print_text(&format!("{report}\n"));
    }
    Ok(if report.intact() { Outcome::Done } else { Outcome::No("the audit log does not verify".to_owned()) })
}
