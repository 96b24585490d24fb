//! The media session of a call: offers and answers as they pass (RFC 3264, RFC 3261 §13.2.1, RFC 3311).
//!
//! | pending | description from | is | effect |
//! |---|---|---|---|
//! | none | L | offer | pending = L; a hold or another origin is told at once |
//! | L | L | the offer again | pending = L anew |
//! | L | other, provisional | early answer | both descriptions in force, still pending |
//! | L | other | answer | both in force, none pending; a resumption is told |
//! | L | refusal | | none pending; a hold told too early is taken back |
//!
//! What takes away is told with the offer, what gives is told with the answer.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use bytes::Bytes;
use consent::Leg;

use crate::sdp::{Description, OurSide, SdpError, locate, rewrite, splice};
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
    version: u64,
    sent: Vec<u8>,
}

#[derive(Debug)]
struct Pending {
    offerer: Leg,
    media: LegMedia,
    /// Whether a hold was told that the answer has yet to confirm.
    hold_told: bool,
}

/// The offers and answers of one call.
#[derive(Debug)]
pub(crate) struct Session {
    /// Our addresses per `m=` line, towards A and B; `None` until the hub has given them, empty if
    /// descriptions pass with their own.
    relay: Vec<[SocketAddr; 2]>,
    ours: [Ours; 2],
    in_force: [Option<LegMedia>; 2],
    held: [bool; 2],
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
    let Some(content_type) = headers.first(name::CONTENT_TYPE).filter(|_| !body.is_empty()) else {
        return Ok(None);
    };
    let Some(place) = locate(content_type, body)? else { return Ok(None) };
    let description = Description::parse(body.get(place.clone()).unwrap_or_default())?;
    Ok(Some(Found { place, description }))
}

impl Found {
    /// What it says of the leg's media, and from where the message came that holds it.
    pub(crate) fn media(&self, signalled_from: IpAddr) -> LegMedia {
        self.description.leg_media(signalled_from)
    }
}

impl Ours {
    pub(crate) const fn new(session_id: u64) -> Self {
        Self { session_id, version: session_id, sent: Vec::new() }
    }

    /// The description last sent.
    pub(crate) fn sent(&self) -> &[u8] {
        &self.sent
    }
}

impl Session {
    pub(crate) const fn new(session_ids: [u64; 2]) -> Self {
        let [a, b] = session_ids;
        Self {
            relay: Vec::new(),
            ours: [Ours::new(a), Ours::new(b)],
            in_force: [None, None],
            held: [false, false],
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

    /// Somebody else is at a leg: its description is not known, and ours goes on from what was said to it.
    /// A hold of its predecessor's is told as over with the next answer.
    pub(crate) fn replace(&mut self, leg: Leg, ours: Ours) {
        self.ours[leg.index()] = ours;
        self.in_force[leg.index()] = None;
    }

    /// An offer for somebody new at a leg: what the one before was last told, but nobody holds. `None` if
    /// that was nothing of ours.
    pub(crate) fn offer_anew(&self, leg: Leg) -> Option<Ours> {
        let ours = &self.ours[leg.index()];
        let lines = ours.sent.split_inclusive(|byte| *byte == b'\n');
        let kept = lines.filter(|line| !DIRECTIONS.iter().any(|direction| line.trim_ascii() == *direction));
        let sent = kept.collect::<Vec<_>>().concat();
        (!sent.is_empty()).then_some(Ours { sent, ..ours.clone() })
    }

    /// Whose offer waits for its answer.
    pub(crate) fn offerer(&self) -> Option<Leg> {
        self.pending.as_ref().map(|pending| pending.offerer)
    }

    /// The body to send to `from`'s other leg instead of the one received; `host` is our address there.
    pub(crate) fn rewrite(&mut self, from: Leg, found: &Found, body: &Bytes, host: IpAddr) -> Bytes {
        if self.relay.is_empty() {
            return body.clone();
        }
        let towards = from.other().index();
        let media: Vec<SocketAddr> = self.relay.iter().map(|pair| pair[towards]).collect();
        let ours = &mut self.ours[towards];
        let address = media.first().map_or(host, SocketAddr::ip);
        let side = |version| OurSide { session_id: ours.session_id, version, address, media: &media };
        let mut octets = rewrite(&found.description, &side(ours.version));
        if !ours.sent.is_empty() && ours.sent != octets {
            octets = rewrite(&found.description, &side(ours.version + 1));
            ours.version += 1;
        }
        ours.sent.clone_from(&octets);
        splice(body, found.place.clone(), &octets)
    }

    /// Takes in a description of a leg. `early` is for answers in provisional responses.
    pub(crate) fn describe(&mut self, from: Leg, media: LegMedia, early: bool) -> Vec<Told> {
        match self.pending.take() {
            Some(pending) if pending.offerer != from => self.answer(pending, from, media, early),
            _ => self.offer(from, media),
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
        match self.pending.take() {
            Some(pending) if pending.hold_told => {
                self.held[pending.offerer.index()] = false;
                vec![Told::Changed(pending.offerer, Change::Resumed)]
            }
            _ => Vec::new(),
        }
    }

    fn offer(&mut self, from: Leg, media: LegMedia) -> Vec<Told> {
        let mut told = self.other_origin(from, &media);
        let hold_told = self.established && refuses_media(&media) && !self.held[from.index()];
        if hold_told {
            self.held[from.index()] = true;
            told.push(Told::Changed(from, Change::Held));
        }
        self.pending = Some(Pending { offerer: from, media, hold_told });
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
