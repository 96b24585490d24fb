//! Whether what was done in a step of the conformance run was signalled, as far as the records tell.
//!
//! | step | what must be in the records of its calls, at the peer's ends |
//! |---|---|
//! | a plain call | sound from both ends; nobody who came |
//! | hold | two offers of the peer's after the answer, both accepted, 2 s apart or more; nobody who came |
//! | any other | in each call with the outside that lasts: who came last came after the answer and stayed 8 s |
//!
//! Offers that a plain call has already are not counted. A call through a peer that is not verified has its gate
//! shut from the start, and then the record says of an offer that it came, not whether it holds; where the gate was
//! open, or the parties were being asked, it says that too, and it counts. Somebody who came although nobody did
//! makes a step unclear: then what came in another step proves nothing. So do two calls with the outside at once that
//! nothing links, and messages that are not all kept: what is missing may be what was to be seen.

use consent::{Leg, Reason};
use jiff::Timestamp;
use serde::Serialize;
use storage::{CallRow, DecisionRow, LadderRow, PartyRow, Role, Rung};

use super::step::{Shows, Step};

/// Apart by less, two offers are one event, such as media that is led another way.
const HOLD_MS: u32 = 2_000;
/// Of the ten seconds for which C is there, two are for the announcement and for slow fingers. Where it comes later,
/// or names somebody who was gone by then, C would have been recorded unasked.
const STAY_S: f64 = 8.0;
/// Whoever stays longer was there while the call was still parked (for thirty seconds): where it waited, not C.
const PARKED_S: f64 = 30.0;

/// Between a BYE and the end that it makes is only the gateway.
const BYE_MS: u32 = 1_000;

/// A call of a step, as the records have it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) call: CallRow,
    pub(super) ladder: Option<LadderRow>,
    pub(super) decisions: Vec<DecisionRow>,
}

impl Kept {
    /// The legs at whose far end the peer is or was; none without a ladder.
    fn legs(&self, peer: &str) -> Vec<Leg> {
        self.ladder.as_ref().map_or_else(Vec::new, |ladder| legs(ladder, peer))
    }
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// What was done was signalled.
    Seen,
    /// It was done, and not signalled.
    Hidden,
    /// The records do not tell.
    Unclear,
    /// There was no call to judge.
    NoCall,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) saw: String,
    /// Whether it was seen by offers alone: that they held, no decision says.
    pub(super) by_offers: bool,
}

impl Judgement {
    pub(super) fn new(verdict: Verdict, saw: impl Into<String>) -> Self {
        Self { verdict, saw: saw.into(), by_offers: false }
    }
}

/// Judges the calls of a step. `usual` is how many offers a plain call of this peer has after the answer.
pub(super) fn judge(step: Step, peer: &str, calls: &[Kept], usual: usize) -> Judgement {
    if calls.iter().all(|kept| kept.ladder.is_none()) || !calls.iter().all(is_whole) {
        return Judgement::new(
            Verdict::Unclear,
            "the call's SIP messages were not all kept: too many, or journal or database were behind",
        );
    }
    if are_several(calls, peer) {
        let saw =
            "several calls with the outside at the same time; repeat it while nobody else telephones there";
        return Judgement::new(Verdict::Unclear, saw);
    }
    let came: Vec<Newcomer> = calls.iter().flat_map(|kept| newcomers(kept, peer)).collect();
    match step.shows() {
        Shows::Newcomer => judge_newcomer(step, calls, peer),
        Shows::Nothing | Shows::Hold if !came.is_empty() => {
            let saw = format!("{}, although nobody did", listed(&came));
            Judgement::new(Verdict::Unclear, saw)
        }
        Shows::Nothing => judge_plain(calls),
        Shows::Hold => judge_hold(calls, peer, usual),
    }
}

/// How many offers of the peer's a call had after its answer.
pub(super) fn offers_of(calls: &[Kept], peer: &str) -> usize {
    calls.iter().map(|kept| offers(kept, peer).len()).max().unwrap_or(0)
}

fn judge_plain(calls: &[Kept]) -> Judgement {
    let silent = |kept: &&Kept| kept.call.media.a.packets == 0 || kept.call.media.b.packets == 0;
    if calls.iter().any(|kept| silent(&kept)) {
        return Judgement::new(Verdict::Unclear, "from one end of the call no sound came through Earmark");
    }
    Judgement::new(Verdict::Seen, "two parties from the answer to the end, and sound from both")
}

/// Whoever comes last must be known in every call that would go on being recorded.
fn judge_newcomer(step: Step, calls: &[Kept], peer: &str) -> Judgement {
    let lasting = lasting(calls, peer);
    if lasting.is_empty() {
        let saw = format!("no call had an end that is not {peer}'s: A is not to be behind it");
        return Judgement::new(Verdict::Unclear, saw);
    }
    let mut came = Vec::new();
    for kept in &lasting {
        let last =
            newcomers(kept, peer).into_iter().max_by(|one, other| one.after_s.total_cmp(&other.after_s));
        let Some(last) = last else {
            let offers = counted(offers(kept, peer).len());
            return Judgement::new(Verdict::Hidden, format!("nobody came at any end of {peer}'s; {offers}"));
        };
        came.push(last);
    }
    let seen = listed(&came);
    if let Some(late) = came.iter().find(|newcomer| newcomer.stayed_s < STAY_S) {
        let before = format!("only {:.1} s before the end, and C is there for ten", late.stayed_s);
        return Judgement::new(Verdict::Hidden, format!("{seen}: {before}"));
    }
    if step == Step::Park && came.iter().any(|newcomer| newcomer.stayed_s >= PARKED_S) {
        let saw = format!("{seen}: before the call was fetched, unless C was there for that long; repeat it");
        return Judgement::new(Verdict::Unclear, saw);
    }
    Judgement::new(Verdict::Seen, seen)
}

/// Whether all of a call's messages are kept. An INVITE with Replaces has none of its own.
fn is_whole(kept: &Kept) -> bool {
    match &kept.ladder {
        Some(ladder) => ladder.left_out == 0 && reaches_the_end(&kept.call, ladder),
        None => !kept.call.linked_calls.is_empty(),
    }
}

/// Whether the BYE that ended the call is in its ladder: one in the middle is of a telephone that was replaced.
pub(super) fn reaches_the_end(call: &CallRow, ladder: &LadderRow) -> bool {
    let began = instant(&call.started_at);
    let Some((began, ended)) = began.zip(over(call).and_then(instant)) else { return false };
    let until_bye_ms = ended.duration_since(began).as_millis() - i128::from(BYE_MS);
    ladder.rungs.iter().any(|rung| rung.method == "BYE" && i128::from(rung.after_ms) >= until_bye_ms)
}

/// Whether a call has an end that is not the peer's.
fn reaches_outside(kept: &Kept, peer: &str) -> bool {
    kept.ladder.as_ref().is_some_and(|ladder| legs(ladder, peer).len() < Leg::BOTH.len())
}

/// The calls with the outside that no other outlived by as long as C is there.
fn lasting<'a>(calls: &'a [Kept], peer: &str) -> Vec<&'a Kept> {
    let outside: Vec<_> = calls.iter().filter(|kept| reaches_outside(kept, peer)).collect();
    let end = |kept: &Kept| over(&kept.call).and_then(instant);
    let last = outside.iter().filter_map(|kept| end(kept)).max();
    let lasts = |kept: &&Kept| {
        let before = end(kept).zip(last).map(|(end, last)| last.duration_since(end).as_secs_f64());
        before.is_none_or(|before_s| before_s < STAY_S)
    };
    outside.into_iter().filter(lasts).collect()
}

/// Whether there are two calls with the outside at the same time that nothing links.
fn are_several(calls: &[Kept], peer: &str) -> bool {
    let outside: Vec<_> =
        calls.iter().filter(|kept| reaches_outside(kept, peer)).map(|kept| &kept.call).collect();
    let several =
        |one: &CallRow, other: &CallRow| one.id != other.id && !linked(one, other) && overlap(one, other);
    outside.iter().any(|one| outside.iter().any(|other| several(one, other)))
}

fn judge_hold(calls: &[Kept], peer: &str, usual: usize) -> Judgement {
    let held = calls.iter().flat_map(|kept| holds(kept, peer)).next();
    let best = calls.iter().map(|kept| (kept, offers(kept, peer))).max_by_key(|(_, offers)| offers.len());
    let Some((kept, offers)) = best else { return Judgement::new(Verdict::NoCall, "no call") };
    let (Some(first), Some(last)) = (offers.get(usual), offers.last()) else {
        return Judgement::new(Verdict::Hidden, format!("no hold; {}", counted(offers.len())));
    };
    let apart_ms = last.after_ms.saturating_sub(first.after_ms);
    if offers.len() < usual + 2 || apart_ms < HOLD_MS {
        let half =
            if held.is_some() { "a hold, and nothing that ended it" } else { "no hold that was ended" };
        return Judgement::new(Verdict::Hidden, format!("{half}; {}", counted(offers.len())));
    }
    let apart_s = f64::from(apart_ms) / 1_000.0;
    match held {
        Some(_) => Judgement::new(Verdict::Seen, format!("a hold, and its end {apart_s:.1} s later")),
        None if offers.iter().skip(usual).any(|offer| is_watched(kept, offer)) => {
            Judgement::new(Verdict::Hidden, format!("{}, none of which was a hold", counted(offers.len())))
        }
        None => Judgement {
            by_offers: true,
            ..Judgement::new(
                Verdict::Seen,
                format!(
                    "two new descriptions of {peer}'s, {apart_s:.1} s apart (that they hold and resume, the \
                     record of a call that nothing is kept of does not say)"
                ),
            )
        },
    }
}

/// Whether the machine of the call would have said that this offer holds.
fn is_watched(kept: &Kept, offer: &Rung) -> bool {
    let Some(began) = instant(&kept.call.started_at) else { return false };
    let offered = began + jiff::SignedDuration::from_millis(offer.after_ms.into());
    let before = |decision: &&DecisionRow| instant(&decision.at).is_some_and(|at| at < offered);
    let last = kept.decisions.iter().rfind(before);
    last.is_some_and(|decision| matches!(decision.reason, Reason::AllAgreed | Reason::Asking))
}

/// The decisions by which the gate shut because the peer's end held the call.
fn holds<'a>(kept: &'a Kept, peer: &'a str) -> impl Iterator<Item = &'a DecisionRow> {
    let legs = kept.legs(peer);
    kept.decisions.iter().filter(move |decision| {
        let evidence = decision.evidence.iter().filter_map(|evidence| evidence.leg);
        decision.reason == Reason::Held && evidence.into_iter().any(|leg| legs.contains(&leg))
    })
}

/// Somebody who came to an end of the peer's.
#[derive(Clone, Debug)]
struct Newcomer {
    role: Role,
    after_s: f64,
    stayed_s: f64,
}

fn newcomers(kept: &Kept, peer: &str) -> Vec<Newcomer> {
    let legs = kept.legs(peer);
    let answered = kept.call.answered_at.as_deref().and_then(instant);
    let ended = kept.call.ended_at.as_deref().and_then(instant);
    let (Some(answered), Some(ended)) = (answered, ended) else { return Vec::new() };
    let came = |party: &PartyRow| {
        let there = party.ordinal > 0 && legs.iter().any(|leg| Role::of(*leg) == party.role);
        let joined = instant(&party.joined_at).filter(|joined| there && *joined > answered)?;
        let left = party.left_at.as_deref().and_then(instant).unwrap_or(ended);
        let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
        let (after_s, stayed_s) = (seconds(answered, joined), seconds(joined, left));
        Some(Newcomer { role: party.role, after_s, stayed_s })
    };
    kept.call.parties.iter().filter_map(came).collect()
}

fn listed(came: &[Newcomer]) -> String {
    let one = |newcomer: &Newcomer| {
        let end = match newcomer.role {
            Role::Caller => "caller",
            Role::Callee => "callee",
        };
        let Newcomer { after_s, stayed_s, .. } = newcomer;
        format!("somebody came at the {end}'s end {after_s:.1} s after the answer and stayed {stayed_s:.1} s")
    };
    came.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn counted(offers: usize) -> String {
    match offers {
        0 => "no new description after the answer".to_owned(),
        1 => "one new description after the answer".to_owned(),
        more => format!("{more} new descriptions after the answer"),
    }
}

/// The legs at whose far end the peer is or was: it called there, or answered. One that was tried in vain was never
/// on the call.
pub(super) fn legs(ladder: &LadderRow, peer: &str) -> Vec<Leg> {
    let is_there = |rung: &&Rung| {
        let calls_or_accepts = rung.message.starts_with("INVITE") || rung.message.starts_with('2');
        rung.peer == peer && !rung.sent && rung.method == "INVITE" && calls_or_accepts
    };
    let of_peer: Vec<Leg> = ladder.rungs.iter().filter(is_there).map(|rung| rung.leg).collect();
    Leg::BOTH.into_iter().filter(|leg| of_peer.contains(leg)).collect()
}

/// Whether one of two calls came of the other.
pub(super) fn linked(one: &CallRow, other: &CallRow) -> bool {
    one.linked_calls.contains(&other.id) || other.linked_calls.contains(&one.id)
}

/// Whether two calls were up at the same time; instants are written so that they compare as text.
pub(super) fn overlap(one: &CallRow, other: &CallRow) -> bool {
    let before = |call: &CallRow, end: &CallRow| over(end).is_none_or(|end| call.started_at.as_str() < end);
    before(one, other) && before(other, one)
}

/// When a call was over, if it is: its record is closed a little later, once its recording is sealed.
pub(super) fn over(call: &CallRow) -> Option<&str> {
    let ended = call.ended_at.as_deref()?;
    Some(call.parties.iter().filter_map(|party| party.left_at.as_deref()).max().unwrap_or(ended))
}

/// The re-INVITEs and UPDATEs with an offer that came from the peer after the answer and were accepted, of the leg
/// that has most. A re-INVITE without a description asks for an offer (RFC 3261 §14.1), and the answer is in its ACK.
fn offers<'a>(kept: &'a Kept, peer: &str) -> Vec<&'a Rung> {
    let Some(ladder) = &kept.ladder else { return Vec::new() };
    let of_leg = |leg: Leg| -> Vec<&'a Rung> {
        let rungs: Vec<&Rung> =
            ladder.rungs.iter().filter(|rung| rung.leg == leg && rung.peer == peer).collect();
        let is_final = |rung: &Rung, method: &str| rung.method == method && rung.message.starts_with('2');
        let Some(answered) = rungs.iter().position(|rung| is_final(rung, "INVITE")) else {
            return Vec::new();
        };
        let after = rungs.iter().enumerate().skip(answered + 1);
        let accepted = after.filter(|(at, rung)| {
            let asks = rung.method == "INVITE" || (rung.method == "UPDATE" && rung.sdp);
            let request = rung.message.starts_with(rung.method.as_str());
            let mut later = rungs.iter().skip(at + 1);
            !rung.sent && asks && request && later.any(|later| later.sent && is_final(later, &rung.method))
        });
        accepted.map(|(_, rung)| *rung).collect()
    };
    Leg::BOTH.map(of_leg).into_iter().max_by_key(Vec::len).unwrap_or_default()
}

fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests;
