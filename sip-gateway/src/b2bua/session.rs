//! The media session of a call: offers and answers as they pass (RFC 3264, RFC 3261 §13.2.1, RFC 3311).
//!
//! | pending | description from | is | effect |
//! |---|---|---|---|
//! | none | L | offer | pending = L; a hold or another origin is told at once |
//! | L | L | the offer again | pending = L anew |
//! | L | other, provisional | early answer | both descriptions in force, still pending |
//! | L | other | answer | both in force, none pending; a resumption is told |
//! | L | refusal, or no answer | | none pending; all as before; a hold told too early is taken back |
//!
//! What takes away is told with the offer, what gives is told with the answer. After a refusal what was said and
//! sent before the offer is in force (RFC 3261 §14.1, RFC 6337 §2.3). The refused description keeps its version:
//! whoever has seen it must not see another with the same number (RFC 3264 §8).

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use bytes::Bytes;
use consent::Leg;

use crate::sdp::{
    Description, OurSide, RecordLine, RecordPreference, Recording, SdpError, holds_description, locate,
    rewrite, splice,
};
use crate::topology::Hosts;
use crate::wire::{Headers, name};
use crate::{Change, Flow, LegMedia, MediaKind};

/// Attributes whose absence means `sendrecv` (RFC 8866 §6.7).
const DIRECTIONS: [&[u8]; 3] = [b"a=sendonly", b"a=recvonly", b"a=inactive"];

/// Something to tell the hub before the message goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Media(Leg, LegMedia),
    Changed(Leg, Change),
}

/// What is ours in the descriptions sent towards one leg.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    session_id: u64,
    /// The one in force, or offered; empty if there was none.
    sent: Numbered,
    /// The one with the highest version, refused or not.
    newest: Numbered,
}

/// A description of ours with the version that it has.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    version: u64,
    octets: Bytes,
}

/// A leg's description on its way to the other leg.
pub(crate) struct Described {
    media: LegMedia,
    said: Bytes,
    /// As the other leg gets it.
    sent: Numbered,
}

#[derive(Clone, Debug)]
struct Pending {
    offerer: Leg,
    media: LegMedia,
    /// Whether a hold was told that the answer has yet to confirm.
    hold_told: bool,
    /// What each leg said, and what was sent to it, before the offer.
    former: [(Bytes, Numbered); 2],
}

/// The offers and answers of one call; before its answer, of one early dialog.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Our addresses per `m=` line, towards A and B; `None` until the hub has given them, empty if
    /// descriptions pass with their own.
    relay: Vec<[SocketAddr; 2]>,
    ours: [Ours; 2],
    /// What descriptions towards A and B say of recording.
    record_lines: [RecordLine; 2],
    in_force: [Option<LegMedia>; 2],
    held: [bool; 2],
    /// What each leg said that is in force, or offered.
    said: [Bytes; 2],
    pending: Option<Pending>,
    /// Whether an exchange has been completed: only then is there anything to change.
    established: bool,
}

/// A description found in a body.
pub(crate) struct Found {
    place: Range<usize>,
    description: Description,
}

/// Finds the description in a body; `None` if there is none.
///
/// # Errors
/// [`SdpError`] if it cannot be read.
pub(crate) fn find(headers: &Headers, body: &Bytes) -> Result<Option<Found>, SdpError> {
    if body.is_empty() {
        return Ok(None);
    }
    let Some(place) = locate(content_type(headers), body)? else { return Ok(None) };
    let description = Description::parse(body.get(place.clone()).unwrap_or_default())?;
    Ok(Some(Found { place, description }))
}

/// Whether a body holds a description, or what may be one.
pub(crate) fn has_description(headers: &Headers, body: &Bytes) -> bool {
    holds_description(content_type(headers), body)
}

/// Whether a body is a description and nothing else.
pub(crate) fn is_description(headers: &Headers, body: &Bytes) -> bool {
    matches!(locate(content_type(headers), body), Ok(Some(place)) if place == (0..body.len()))
}

fn content_type(headers: &Headers) -> &str {
    headers.first(name::CONTENT_TYPE).unwrap_or_default()
}

impl Found {
    /// Whether a body holds nothing else.
    pub(crate) fn is_whole(&self, body: &Bytes) -> bool {
        self.place == (0..body.len())
    }

    fn text(&self, body: &Bytes) -> Bytes {
        body.slice(self.place.clone())
    }

    /// The body with what the other leg gets in the place of this one.
    pub(crate) fn replaced(&self, body: &Bytes, sent: &Numbered) -> Bytes {
        splice(body, self.place.clone(), &sent.octets)
    }

    /// What a leg says in this body, for which the other leg gets `sent`.
    pub(crate) fn passed_as(&self, body: &Bytes, sent: Numbered, signalled_from: IpAddr) -> Described {
        Described { media: self.media(signalled_from), said: self.text(body), sent }
    }

    /// What it says of the leg's media, and from where the message came that holds it.
    pub(crate) fn media(&self, signalled_from: IpAddr) -> LegMedia {
        self.description.leg_media(signalled_from)
    }

    /// See [`Description::recording`].
    pub(crate) fn recording(&self) -> Option<Recording> {
        self.description.recording()
    }

    /// See [`Description::preference`].
    pub(crate) fn preference(&self) -> Option<RecordPreference> {
        self.description.preference()
    }
}

impl Ours {
    pub(crate) const fn new(session_id: u64) -> Self {
        Self { session_id, sent: Numbered::none(session_id), newest: Numbered::none(session_id) }
    }

    /// The description that is in force, or offered; empty if there was none.
    pub(crate) const fn sent(&self) -> &Bytes {
        &self.sent.octets
    }

    /// The one in force, as the answer to this offer.
    pub(crate) fn answer_again(&mut self, offer: Option<&Found>, record: RecordLine) -> Bytes {
        self.sent = self.again(&self.sent.clone(), offer, record);
        self.sent().clone()
    }

    /// An earlier one, to be sent again, with this in it of recording; as an answer, with as many `m=` lines as
    /// the offer.
    fn again(&mut self, former: &Numbered, offer: Option<&Found>, record: RecordLine) -> Numbered {
        let Ok(description) = Description::parse(&former.octets) else { return former.clone() };
        let mut description = description.recorded(record);
        if let Some(offer) = offer {
            description.pad(&offer.description);
            description.truncate(offer.description.streams());
        }
        self.number(|version| description.numbered(version))
    }

    /// Gives a description its version: the one it had when it was sent before, or else the next.
    fn number(&mut self, write: impl Fn(u64) -> Vec<u8>) -> Numbered {
        for known in [&self.sent, &self.newest] {
            if known.octets == write(known.version) {
                return known.clone();
            }
        }
        let version = self.newest.version + u64::from(!self.newest.octets.is_empty());
        self.newest = Numbered { version, octets: write(version).into() };
        self.newest.clone()
    }
}

impl Numbered {
    const fn none(version: u64) -> Self {
        Self { version, octets: Bytes::new() }
    }

    pub(crate) const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

impl Session {
    pub(crate) const fn new(session_ids: [u64; 2]) -> Self {
        let [a, b] = session_ids;
        Self {
            relay: Vec::new(),
            ours: [Ours::new(a), Ours::new(b)],
            record_lines: [RecordLine::Received; 2],
            in_force: [None, None],
            held: [false, false],
            said: [Bytes::new(), Bytes::new()],
            pending: None,
            established: false,
        }
    }

    pub(crate) fn set_relay(&mut self, relay: Vec<[SocketAddr; 2]>) {
        self.relay = relay;
    }

    pub(crate) const fn ours(&self, leg: Leg) -> &Ours {
        &self.ours[leg.index()]
    }

    /// Another dialog with a leg, to which nothing has been said: a copy with a session id of its own there.
    pub(crate) fn beside(&self, leg: Leg, session_id: u64) -> Self {
        let mut beside = self.clone();
        beside.ours[leg.index()] = Ours::new(session_id);
        beside
    }

    /// Whether an exchange has been completed.
    pub(crate) const fn is_established(&self) -> bool {
        self.established
    }

    /// What is in force, to be told to whom has heard of other dialogs only.
    pub(crate) fn retold(&self) -> Vec<Told> {
        let media = Leg::BOTH
            .into_iter()
            .filter_map(|leg| self.in_force[leg.index()].clone().map(|media| Told::Media(leg, media)));
        let held = Leg::BOTH.into_iter().filter(|leg| self.held[leg.index()]);
        media.chain(held.map(|leg| Told::Changed(leg, Change::Held))).collect()
    }

    /// Whether a leg's description says what it said last; its version may have grown for nothing.
    pub(crate) fn repeats(&self, from: Leg, found: &Found, body: &Bytes) -> bool {
        let (said, now) = (&self.said[from.index()], body.get(found.place.clone()).unwrap_or_default());
        self.established && !said.is_empty() && lines_but_version(said).eq(lines_but_version(now))
    }

    /// Our last description to a leg is offered to it again, in the other leg's name.
    pub(crate) fn offer_again(&mut self, to: Leg) {
        let offerer = to.other();
        self.pending = self.in_force[offerer.index()].clone().map(|media| self.offered(offerer, media));
    }

    fn offered(&self, offerer: Leg, media: LegMedia) -> Pending {
        let former = Leg::BOTH.map(|leg| (self.said[leg.index()].clone(), self.ours(leg).sent.clone()));
        Pending { offerer, media, hold_told: false, former }
    }

    /// Somebody else is at a leg: its description is not known, and ours goes on from what was said to it.
    /// What its predecessor offered or was offered is void; a hold of his is told as over with the next answer.
    pub(crate) fn replace(&mut self, leg: Leg, ours: Ours) {
        self.revert();
        self.ours[leg.index()] = ours;
        self.in_force[leg.index()] = None;
        self.said[leg.index()] = Bytes::new();
    }

    /// Whoever was lent is back: ours goes on from what was said to it meanwhile.
    pub(crate) fn resume(&mut self, leg: Leg, ours: Ours) {
        self.ours[leg.index()] = ours;
    }

    /// Nobody is at a leg until its next description: a hold.
    pub(crate) fn vacate(&mut self, leg: Leg) -> Vec<Told> {
        let held = std::mem::replace(&mut self.held[leg.index()], true);
        if held { Vec::new() } else { vec![Told::Changed(leg, Change::Held)] }
    }

    /// A leg gets again what had been sent to it, as the answer to this offer of its.
    pub(crate) fn answer_again(&mut self, leg: Leg, offer: Option<&Found>) -> Bytes {
        self.ours[leg.index()].answer_again(offer, self.record_lines[leg.index()])
    }

    /// A leg is to be offered an earlier description again, with what is due in it of recording.
    pub(crate) fn again(&mut self, leg: Leg, former: &Numbered) -> Numbered {
        self.ours[leg.index()].again(former, None, self.record_lines[leg.index()])
    }

    /// The same with the one that it has.
    pub(crate) fn repeat(&mut self, leg: Leg) -> Numbered {
        self.again(leg, &self.ours(leg).sent.clone())
    }

    /// A leg has taken an offer of ours that is none of the other leg's; returns what was sent to it before.
    pub(crate) fn take(&mut self, leg: Leg, offer: Numbered) -> Numbered {
        std::mem::replace(&mut self.ours[leg.index()].sent, offer)
    }

    /// What further descriptions towards a leg say of recording.
    pub(crate) const fn set_record_line(&mut self, leg: Leg, line: RecordLine) {
        self.record_lines[leg.index()] = line;
    }

    /// Whether the last description of ours to a leg says anything but this of recording.
    pub(crate) fn misinforms(&self, leg: Leg, due: Recording) -> bool {
        let sent = Description::parse(self.ours(leg).sent());
        !self.relay.is_empty() && sent.is_ok_and(|sent| sent.recording().unwrap_or_default() != due)
    }

    /// What a leg said last, unless that was refused.
    pub(crate) fn said(&self, leg: Leg) -> Option<Found> {
        let said = &self.said[leg.index()];
        let description = Description::parse(said).ok()?;
        Some(Found { place: 0..said.len(), description })
    }

    /// The other leg's description is in force again towards this one, whose own is `media`.
    pub(crate) fn reassert(&mut self, leg: Leg, media: LegMedia) -> Vec<Told> {
        let offerer = leg.other();
        let Some(known) = self.in_force[offerer.index()].clone() else { return Vec::new() };
        self.answer(self.offered(offerer, known), leg, media, false)
    }

    /// An offer for somebody new at a leg: what the one before was last told, but nobody holds. `None` if
    /// that was nothing of ours.
    pub(crate) fn offer_anew(&self, leg: Leg) -> Option<Ours> {
        let ours = &self.ours[leg.index()];
        let lines = ours.sent().split_inclusive(|byte| *byte == b'\n');
        let kept = lines.filter(|line| !DIRECTIONS.iter().any(|direction| line.trim_ascii() == *direction));
        let octets = Bytes::from(kept.collect::<Vec<_>>().concat());
        let sent = Numbered { version: ours.sent.version, octets };
        let session_id = ours.session_id;
        (!sent.octets.is_empty()).then(|| Ours { session_id, newest: sent.clone(), sent })
    }

    /// Whose offer waits for its answer.
    pub(crate) fn offerer(&self) -> Option<Leg> {
        self.pending.as_ref().map(|pending| pending.offerer)
    }

    /// The description to send to `from`'s other leg instead of the one received; `host` is our address there,
    /// and no `hidden` host is named in it.
    pub(crate) fn rewrite(
        &mut self,
        from: Leg,
        found: &Found,
        body: &Bytes,
        (host, hidden): (IpAddr, &Hosts),
    ) -> Numbered {
        let towards = from.other().index();
        if self.relay.is_empty() {
            let version = self.ours[towards].newest.version;
            return Numbered { version, octets: found.text(body) };
        }
        let description = self.fitted(from, &found.description);
        let media: Vec<SocketAddr> = self.relay.iter().map(|pair| pair[towards]).collect();
        let ours = &mut self.ours[towards];
        let address = media.first().map_or(host, SocketAddr::ip);
        let (session_id, record) = (ours.session_id, self.record_lines[towards]);
        ours.number(|version| {
            rewrite(&description, &OurSide { session_id, version, address, media: &media, record, hidden })
        })
    }

    /// The same description with the `m=` lines that the other leg must find in it (RFC 3264 §6, §8): in an offer
    /// not fewer than were sent before, in an answer as many as it has offered. After a transfer the two legs'
    /// numbers of them may differ.
    fn fitted(&self, from: Leg, received: &Description) -> Description {
        let mut description = received.clone();
        let answers = self.pending.as_ref().filter(|pending| pending.offerer != from);
        let known = &self.ours[if answers.is_some() { from } else { from.other() }.index()];
        if let Ok(known) = Description::parse(known.sent()) {
            description.pad(&known);
        }
        if let Some(offer) = answers {
            description.truncate(offer.media.streams.len());
        }
        description
    }

    /// Takes in a description of a leg that is passed on to the other. `early` is for answers in provisional
    /// responses.
    pub(crate) fn pass(&mut self, from: Leg, described: Described, early: bool) -> Vec<Told> {
        let Described { media, said, sent } = described;
        let told = self.describe(from, media, early);
        self.said[from.index()] = said;
        self.ours[from.other().index()].sent = sent;
        told
    }

    /// The same for one that the other leg does not get, or not yet.
    pub(crate) fn describe(&mut self, from: Leg, media: LegMedia, early: bool) -> Vec<Told> {
        match self.pending.take() {
            Some(pending) if pending.offerer != from => self.answer(pending, from, media, early),
            earlier => self.offer(from, media, earlier),
        }
    }

    /// A 2xx to `offerer`'s INVITE came without a description: what an early answer put in force stays
    /// (RFC 3261 §13.2.1 lets the answer come in a provisional response alone).
    pub(crate) fn settle(&mut self, offerer: Leg) {
        if self.offerer() == Some(offerer) {
            self.pending = None;
            self.established = self.in_force[offerer.other().index()].is_some();
        }
    }

    /// The pending offer was refused, or its answer never came.
    pub(crate) fn refuse(&mut self) -> Vec<Told> {
        let Some(holder) = self.revert() else { return Vec::new() };
        self.held[holder.index()] = false;
        vec![Told::Changed(holder, Change::Resumed)]
    }

    /// Nothing is pending any more, and what was before is in force; returns whose hold was told too early.
    fn revert(&mut self) -> Option<Leg> {
        let Pending { offerer, hold_told, former, .. } = self.pending.take()?;
        for (leg, (said, sent)) in Leg::BOTH.into_iter().zip(former) {
            self.said[leg.index()] = said;
            self.ours[leg.index()].sent = sent;
        }
        hold_told.then_some(offerer)
    }

    fn offer(&mut self, from: Leg, media: LegMedia, earlier: Option<Pending>) -> Vec<Told> {
        let mut told = self.other_origin(from, &media);
        let holds = self.established && refuses_media(&media) && !self.held[from.index()];
        if holds {
            self.held[from.index()] = true;
            told.push(Told::Changed(from, Change::Held));
        }
        let mut pending = self.offered(from, media);
        pending.hold_told = holds;
        if let Some(earlier) = earlier {
            pending.hold_told |= earlier.hold_told;
            pending.former = earlier.former;
        }
        self.pending = Some(pending);
        told
    }

    fn answer(&mut self, pending: Pending, from: Leg, media: LegMedia, early: bool) -> Vec<Told> {
        let offerer = pending.offerer;
        let mut told = if early { Vec::new() } else { self.other_origin(from, &media) };
        // An answer that does not receive because the offer does not send is no hold of the answerer's.
        let answerer_holds = refuses_media(&media) && !sends_nothing(&pending.media);
        let offerer_holds = refuses_media(&pending.media);
        for (leg, description) in [(offerer, &pending.media), (from, &media)] {
            if self.in_force[leg.index()].as_ref() != Some(description) {
                self.in_force[leg.index()] = Some(description.clone());
                told.push(Told::Media(leg, description.clone()));
            }
        }
        if early {
            self.pending = Some(pending);
            return told;
        }
        self.established = true;
        for (leg, holds) in [(offerer, offerer_holds), (from, answerer_holds)] {
            if std::mem::replace(&mut self.held[leg.index()], holds) != holds {
                let change = if holds { Change::Held } else { Change::Resumed };
                told.push(Told::Changed(leg, change));
            }
        }
        told
    }

    fn other_origin(&self, leg: Leg, media: &LegMedia) -> Vec<Told> {
        let known = self.in_force[leg.index()].as_ref();
        if self.established && known.is_some_and(|known| known.origin != media.origin) {
            vec![Told::Changed(leg, Change::NewOrigin)]
        } else {
            Vec::new()
        }
    }
}

/// The lines of a description, the version of its `o=` left out (RFC 8866 §5.2).
fn lines_but_version(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|octet| *octet == b'\n').map(|line| {
        let words = line.split(|octet| *octet == b' ').enumerate();
        let origin = line.starts_with(b"o=");
        words.filter(|(index, _)| !origin || *index != 2).map(|(_, word)| word).collect()
    })
}

fn audio(media: &LegMedia) -> impl Iterator<Item = Flow> {
    media.streams.iter().filter(|s| s.kind == MediaKind::Audio && s.rtp.is_some()).map(|s| s.flow)
}

/// Whether the leg would hear nothing: all its audio is sendonly or inactive.
fn refuses_media(media: &LegMedia) -> bool {
    audio(media).next().is_some() && audio(media).all(|flow| matches!(flow, Flow::SendOnly | Flow::Inactive))
}

/// Whether the leg sends nothing: all its audio is recvonly or inactive.
fn sends_nothing(media: &LegMedia) -> bool {
    audio(media).next().is_some() && audio(media).all(|flow| matches!(flow, Flow::RecvOnly | Flow::Inactive))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::StreamMedia;

    fn media(origin: &str, flow: Flow) -> LegMedia {
        let stream = StreamMedia {
            kind: MediaKind::Audio,
            rtp: Some("10.0.0.1:4000".parse().unwrap()),
            rtcp: None,
            flow,
            formats: vec![],
            ptime_ms: None,
        };
        let signalled_from = IpAddr::from([10, 0, 0, 1]);
        LegMedia { origin: origin.to_owned(), signalled_from, streams: vec![stream] }
    }

    fn established() -> Session {
        let mut session = Session::new([1, 2]);
        assert_eq!(session.describe(Leg::A, media("a", Flow::SendRecv), false), []);
        let told = session.describe(Leg::B, media("b", Flow::SendRecv), false);
        assert_eq!(
            told,
            [
                Told::Media(Leg::A, media("a", Flow::SendRecv)),
                Told::Media(Leg::B, media("b", Flow::SendRecv))
            ]
        );
        assert_eq!(session.offerer(), None);
        session
    }

    #[test]
    fn a_hold_is_told_with_the_offer_and_a_resumption_with_the_answer() {
        let mut session = established();
        let held = session.describe(Leg::A, media("a", Flow::SendOnly), false);
        assert_eq!(held, [Told::Changed(Leg::A, Change::Held)]);
        let answered = session.describe(Leg::B, media("b", Flow::RecvOnly), false);
        assert!(answered.iter().all(|told| matches!(told, Told::Media(..))), "{answered:?}");
        assert_eq!(session.describe(Leg::A, media("a", Flow::SendRecv), false), []);
        let resumed = session.describe(Leg::B, media("b", Flow::SendRecv), false);
        assert_eq!(resumed.last(), Some(&Told::Changed(Leg::A, Change::Resumed)));
    }

    #[test]
    fn an_inactive_answer_to_an_inactive_offer_is_the_offerers_hold_alone() {
        let mut session = established();
        session.describe(Leg::B, media("b", Flow::Inactive), false);
        let answered = session.describe(Leg::A, media("a", Flow::Inactive), false);
        assert!(answered.iter().all(|told| matches!(told, Told::Media(..))), "{answered:?}");
    }

    #[test]
    fn a_refused_hold_is_taken_back_and_the_old_media_stay() {
        let mut session = established();
        session.describe(Leg::A, media("a", Flow::SendOnly), false);
        assert_eq!(session.refuse(), [Told::Changed(Leg::A, Change::Resumed)]);
        assert_eq!(session.refuse(), []);
        assert_eq!(session.in_force[0], Some(media("a", Flow::SendRecv)));
    }

    #[test]
    fn an_early_answer_is_in_force_and_the_final_one_settles_it() {
        let mut session = Session::new([1, 2]);
        session.describe(Leg::A, media("a", Flow::SendRecv), false);
        assert_eq!(session.describe(Leg::B, media("b", Flow::SendRecv), true).len(), 2);
        assert_eq!(session.offerer(), Some(Leg::A));
        assert_eq!(session.describe(Leg::B, media("b", Flow::SendRecv), false), []);
        assert_eq!(session.offerer(), None);
    }

    #[test]
    fn another_origin_in_mid_call_is_told_at_once() {
        let mut session = established();
        let told = session.describe(Leg::B, media("c", Flow::SendRecv), false);
        assert_eq!(told, [Told::Changed(Leg::B, Change::NewOrigin)]);
        let told = session.describe(Leg::A, media("d", Flow::SendRecv), false);
        assert_eq!(told.first(), Some(&Told::Changed(Leg::A, Change::NewOrigin)));
    }

    #[test]
    fn a_delayed_offer_is_settled_by_the_acks_answer() {
        let mut session = Session::new([1, 2]);
        assert_eq!(session.describe(Leg::B, media("b", Flow::SendRecv), false), []);
        assert_eq!(session.offerer(), Some(Leg::B));
        assert_eq!(session.describe(Leg::A, media("a", Flow::SendRecv), false).len(), 2);
    }
}
