//! Which calls of the records are those of a step, while the service runs and other people telephone.
//!
//! A step's call is the first of the peer's that began after the last step's and has ended. With it belong the
//! calls that its record links it to, and, where a telephone is given, whatever else that telephone did meanwhile.
//! Without one, another answered call of the peer's at the same time makes it unsure which was the step's.

use std::collections::BTreeSet;

use consent::{CallId, Direction, Numbering, Side, Wall};
use jiff::Timestamp;
use sip_gateway::Peer;
use storage::{CallFilter, CallRow, LadderRow, Store, StoreError};

use super::judgement::{Kept, legs, linked, over, overlap, reaches_the_end};
use crate::commands::calls;
use crate::wall_now;

/// A ladder is told 2 s after the end of its call.
const TOLD_S: i64 = 3;
/// And is with the database by then, or will never be.
const LADDER_S: i64 = 12;
/// So many calls within a step are looked at; more belong to a PBX that is too busy for the run.
const MOST_CALLS: u32 = 1_000;

/// What the records hold of a step so far.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing that has ended; how many answered calls are going on.
    Nothing { going_on: usize },
    /// Its calls, all over.
    Calls(Vec<Kept>),
    /// Several calls at once, and no telephone to tell them apart.
    Crowd(Vec<Kept>),
}

/// Looks for the calls of one step after the other.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    store: &'a Store,
    peer: &'a Peer,
    numbering: &'a Numbering,
    telephone: Option<&'a str>,
    /// Calls that began earlier were not made for the step.
    since: Wall,
    /// Calls known not to be the peer's.
    foreign: BTreeSet<CallId>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        store: &'a Store,
        peer: &'a Peer,
        numbering: &'a Numbering,
        telephone: Option<&'a str>,
    ) -> Self {
        Self { store, peer, numbering, telephone, since: wall_now(), foreign: BTreeSet::new() }
    }

    /// Somebody says that the next step begins now: what has begun by now is none of its calls.
    pub(super) fn begin(&mut self) {
        self.since = wall_now();
    }

    /// Looks once. What it returns as a step's calls, it never returns again.
    pub(super) async fn look(&mut self) -> Result<Found, StoreError> {
        let filter = CallFilter { since: Some(self.since), limit: MOST_CALLS, ..CallFilter::default() };
        let mut answered = self.store.calls(&filter).await?;
        answered.retain(|call| call.answered_at.is_some() && !call.emergency);
        answered.sort_by(|one, other| over(one).cmp(&over(other)));
        let going_on = answered.iter().filter(|call| call.ended_at.is_none() && self.is_with(call)).count();
        let Some(first) = self.first(&answered).await? else {
            return Ok(Found::Nothing { going_on });
        };
        let calls = self.with(&answered, first);
        if !calls.iter().all(|call| call.ended_at.is_some()) {
            return Ok(Found::Nothing { going_on });
        }
        let mut kept = Vec::new();
        for call in &calls {
            let ladder = calls::ladder_of(self.store, call).await?;
            if !is_settled(call, ladder.as_ref()) {
                return Ok(Found::Nothing { going_on });
            }
            let decisions = self.store.explain(call.id).await?.map(|explained| explained.decisions);
            kept.push(Kept { call: (*call).clone(), ladder, decisions: decisions.unwrap_or_default() });
        }
        let crowded = self.is_crowded(&answered, &calls).await?;
        let last = calls.iter().filter_map(|call| over(call).and_then(wall)).max();
        self.since = last.unwrap_or(self.since);
        Ok(if crowded { Found::Crowd(kept) } else { Found::Calls(kept) })
    }

    /// The first call of the peer's that has ended.
    async fn first(&mut self, answered: &[CallRow]) -> Result<Option<CallId>, StoreError> {
        for call in answered {
            if call.ended_at.is_none() || self.foreign.contains(&call.id) || !self.is_with(call) {
                continue;
            }
            let ladder = calls::ladder_of(self.store, call).await?;
            if !is_settled(call, ladder.as_ref()) {
                continue;
            }
            let is_of_peer = match &ladder {
                Some(ladder) => !legs(ladder, &self.peer.name).is_empty(),
                // Without a ladder all that is known is the side; an INVITE with Replaces has none of its own.
                None => call.linked_calls.is_empty() && touches(call, self.peer.side),
            };
            if is_of_peer {
                return Ok(Some(call.id));
            }
            self.foreign.insert(call.id);
        }
        Ok(None)
    }

    /// A call and all that belong with it.
    fn with<'c>(&self, answered: &'c [CallRow], first: CallId) -> Vec<&'c CallRow> {
        let mut found: Vec<&CallRow> = answered.iter().filter(|call| call.id == first).collect();
        loop {
            let more: Vec<&CallRow> = answered
                .iter()
                .filter(|call| !found.iter().any(|known| known.id == call.id))
                .filter(|call| {
                    let same = self.telephone.is_some() && self.is_with(call);
                    found.iter().any(|known| linked(known, call) || (same && overlap(known, call)))
                })
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    /// Whether another call of the peer's ran at the same time, of somebody who is not known.
    async fn is_crowded(&self, answered: &[CallRow], calls: &[&CallRow]) -> Result<bool, StoreError> {
        if self.telephone.is_some() {
            return Ok(false);
        }
        for call in answered.iter().filter(|call| !self.foreign.contains(&call.id)) {
            let other = !calls.iter().any(|known| known.id == call.id);
            if other
                && calls.iter().any(|known| overlap(known, call))
                && let Some(ladder) = calls::ladder_of(self.store, call).await?
                && !legs(&ladder, &self.peer.name).is_empty()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the telephone is on the call, if one is given.
    fn is_with(&self, call: &CallRow) -> bool {
        let Some(telephone) = self.telephone else { return true };
        let parties = call.parties.iter().map(|party| &party.identity);
        let mut named = [&call.from, &call.to].into_iter().chain(parties).flatten();
        let full = |user: &str| self.numbering.normalise(user).number().cloned();
        let wanted = full(telephone);
        named.any(|user| user == telephone || (wanted.is_some() && full(user) == wanted))
    }
}

/// Whether no more of a call's ladder is to be expected.
fn is_settled(call: &CallRow, ladder: Option<&LadderRow>) -> bool {
    let Some(ended) = call.ended_at.as_deref().and_then(wall) else { return false };
    let since_s = (wall_now().0 - ended.0) / 1_000_000;
    let hung_up = ladder.is_some_and(|ladder| reaches_the_end(call, ladder));
    let has_none = ladder.is_none() && !call.linked_calls.is_empty();
    since_s >= LADDER_S || (since_s >= TOLD_S && (hung_up || has_none))
}

/// Whether one end of a call was on this side.
fn touches(call: &CallRow, side: Side) -> bool {
    side == Side::District || call.direction != Direction::Internal
}

fn wall(text: &str) -> Option<Wall> {
    text.parse::<Timestamp>().ok().map(|at| Wall(at.as_microsecond()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use consent::{LineClass, RetentionTag};
    use storage::journal::{JournalId, JournalPosition};
    use storage::{CallStarted, Entry, Stamped};

    use super::*;
    use crate::config::Config;

    /// An answered call that goes on.
    async fn deliver(store: &Store, started_at: Wall) {
        let call = CallId(1);
        let started = CallStarted {
            call,
            node: "gw1".to_owned(),
            line: None,
            line_class: LineClass::Never,
            retention: RetentionTag::try_from("RT-CDR".to_owned()).unwrap(),
            direction: Direction::Inbound,
            from: None,
            to: None,
            privacy: false,
            emergency: false,
            identity_verdict: None,
            foreign_caller_id: false,
            sip_call_id: String::new(),
            linked_calls: Vec::new(),
        };
        let entries = [Entry::CallStarted(Box::new(started)), Entry::CallAnswered { call }];
        let numbered: Vec<_> = (1..)
            .zip(entries)
            .map(|(seq, entry)| {
                (JournalPosition { journal: JournalId(1), seq }, Stamped { at: started_at, entry })
            })
            .collect();
        store.deliver(&numbered).await.unwrap();
    }

    #[tokio::test]
    async fn what_began_before_a_step_is_none_of_its_calls() {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("earmark.db").display());
        let store = Store::open(&database).await.unwrap();
        let contract = include_str!("../../../tests/contract.toml");
        let config = Config::parse(Path::new("/etc/earmark/earmark.toml"), contract).unwrap();
        let mut watch = Watch::new(&store, &config.gateway.peers[0], config.rules.numbering(), None);
        deliver(&store, wall_now()).await;
        assert!(matches!(watch.look().await.unwrap(), Found::Nothing { going_on: 1 }));
        watch.begin();
        assert!(matches!(watch.look().await.unwrap(), Found::Nothing { going_on: 0 }));
    }
}
