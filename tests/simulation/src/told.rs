//! What the journal tells of the parties: nobody's number who is of an employee organisation (I4), and in the
//! decisions the parties by the numbers that the record has (I6).

use std::collections::BTreeMap;

use consent::CallId;
use storage::Entry;

use crate::check::{Violation, violation};
use crate::script::UNION_NUMBER;

/// Who is at each leg of each call, as far as was written.
#[derive(Default)]
pub(crate) struct Told(BTreeMap<CallId, [Option<u32>; 2]>);

impl Told {
    /// Takes in the next entry. `whole` says that none before it was lost.
    pub(crate) fn see(&mut self, entry: &Entry, whole: bool) -> Result<(), Violation> {
        let shown = match entry {
            Entry::CallStarted(started) => [started.from.as_deref(), started.to.as_deref()],
            Entry::PartyJoined { identity, .. } => [identity.as_deref(), None],
            _ => [None, None],
        };
        if shown.contains(&Some(UNION_NUMBER)) {
            return Err(violation("I4", format!("a union number is in a record: {entry:?}")));
        }
        match entry {
            Entry::PartyJoined { call, leg, ordinal, .. } => {
                self.0.entry(*call).or_default()[leg.index()] = Some(*ordinal);
            }
            Entry::Decided { call, decision } if whole => {
                let present = self.0.get(call).copied().unwrap_or_default();
                let other = |party: &&consent::PartyState| present[party.leg.index()] != Some(party.ordinal);
                if let Some(party) = decision.parties.iter().find(other) {
                    let reason = decision.reason;
                    return Err(violation(
                        "I6",
                        format!("{reason:?}: {party:?}, and the record has {present:?}"),
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
