//! Replaces (RFC 3891): which dialog an INVITE takes over, and which it may.
//!
//! | § | the dialog named | answer |
//! |---|---|---|
//! | 3 | none, or two of them; with Join | 400 |
//! | 3 | no dialog of ours; an early one that we did not begin | 481 |
//! | 3 | ended | 603 |
//! | 3 | confirmed, with `early-only` | 486 |
//! | 3 | early, begun by us (a pick-up) | 501: not carried out here |
//! | 5 | another side's; a public peer's that may not refer; a call's to an emergency service | 403 |
//! | | being transferred already | 491 |
//! | | of a call that has tried 32 transfers | 403 |
//! | 3 | confirmed | taken over |

use consent::{CallId, Leg};

use super::super::identity::identity;
use super::super::offering::called_subscriber;
use super::super::{Call, CallTimer, DECISION_MS, Event, Owner, Phase, Role};
use super::{MAX_TRANSFERS, Newcomer, Said, Stage, Taker, Transfer};
use crate::core::{DialogPlace, Environment, Origin};
use crate::dialog::{Dialog, DialogId, add_tag};
use crate::transaction::TxId;
use crate::wire::{Headers, Request, Response, name};
use crate::{PeerId, Replacement};

/// The dialog that a Replaces names, as its recipient knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replaces {
    pub(crate) dialog: DialogId,
    pub(crate) early_only: bool,
}

impl Replaces {
    /// Reads one; `None` unless it has a Call-ID and each tag once.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split(';').map(str::trim);
        let call_id = parts.next().filter(|call_id| !call_id.is_empty())?.to_owned();
        let (mut to, mut from, mut early_only) = (None, None, false);
        for part in parts {
            match part.split_once('=') {
                Some((param, tag)) if param.eq_ignore_ascii_case("to-tag") && to.is_none() => to = Some(tag),
                Some((param, tag)) if param.eq_ignore_ascii_case("from-tag") && from.is_none() => {
                    from = Some(tag);
                }
                Some((param, _))
                    if param.eq_ignore_ascii_case("to-tag") || param.eq_ignore_ascii_case("from-tag") =>
                {
                    return None;
                }
                None if part.eq_ignore_ascii_case("early-only") => early_only = true,
                _ => {}
            }
        }
        let dialog = DialogId { call_id, local_tag: to?.to_owned(), remote_tag: from?.to_owned() };
        Some(Self { dialog, early_only })
    }

    /// Its text on the wire.
    pub(crate) fn text(&self) -> String {
        let DialogId { call_id, local_tag, remote_tag } = &self.dialog;
        let early = if self.early_only { ";early-only" } else { "" };
        format!("{call_id};to-tag={local_tag};from-tag={remote_tag}{early}")
    }
}

/// Why an INVITE replaces nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReplaced {
    /// Not one Replaces that can be read, or with Join.
    Malformed,
    /// No dialog of ours, or an early one that we did not begin.
    NoDialog,
    /// The dialog has ended.
    Over,
    /// Only an early dialog was meant.
    NotEarly,
    /// A pick-up.
    Ringing,
    /// Whoever sends it may not, with this call or any more.
    Forbidden,
    /// Another transfer is in progress.
    Busy,
}

impl NotReplaced {
    /// The status that says so.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::NoDialog => 481,
            Self::Over => 603,
            Self::NotEarly => 486,
            Self::Ringing => 501,
            Self::Forbidden => 403,
            Self::Busy => 491,
        }
    }
}

/// The dialog that an INVITE replaces, and whether only if it is early.
///
/// # Errors
/// Why it does not.
pub(crate) fn judge_replaces(
    env: &Environment,
    origin: Origin,
    headers: &Headers,
) -> Result<(DialogPlace, bool), NotReplaced> {
    let mut fields = headers.all(name::REPLACES);
    let (Some(field), None, false) = (fields.next(), fields.next(), headers.contains("Join")) else {
        return Err(NotReplaced::Malformed);
    };
    let replaces = Replaces::parse(field).ok_or(NotReplaced::Malformed)?;
    let place = env.dialogs.get(&replaces.dialog).copied().ok_or(NotReplaced::NoDialog)?;
    if !env.may_refer(origin.peer) || !env.same_side(origin.peer, place.peer) {
        return Err(NotReplaced::Forbidden);
    }
    Ok((place, replaces.early_only))
}

impl Call {
    /// Whether a dialog of this call may be taken over.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn judge_replaced(&self, place: DialogPlace, early_only: bool) -> Result<(), NotReplaced> {
        if self.calls_for_help {
            return Err(NotReplaced::Forbidden);
        }
        match self.phase {
            Phase::Ended => Err(NotReplaced::Over),
            Phase::Waiting => Err(NotReplaced::NoDialog),
            Phase::Calling if place.leg == Leg::A => Err(NotReplaced::NoDialog),
            Phase::Calling => Err(NotReplaced::Ringing),
            Phase::Answered if self.answered != Some(place.fork) || self.over[place.leg.index()] => {
                Err(NotReplaced::Over)
            }
            Phase::Answered if early_only => Err(NotReplaced::NotEarly),
            Phase::Answered if !self.may_transfer() => Err(NotReplaced::Busy),
            Phase::Answered if self.transfers_begun >= MAX_TRANSFERS => Err(NotReplaced::Forbidden),
            Phase::Answered => Ok(()),
        }
    }

    /// An INVITE replaces the far end of one of our legs (RFC 3891 §3); judged already.
    pub(crate) fn take_over(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        origin: Origin,
        server: TxId,
        invite: Request,
    ) {
        let leg = place.leg;
        let record = env.generator.call(env.now.wall);
        let tag = env.generator.tag();
        let dialog = Dialog::of_uas(env, &invite, &tag, env.path_back(origin));
        self.transfers_begun += 1;
        env.transactions.set_owner(server, Owner::Call(self.id, Role::Replacing));
        let replacement = self.describe_replacement(env, place, origin.peer, record, &invite);
        env.emit(Event::Replacing(Box::new(replacement)));
        let Some(fork) = self.add_newcomer(env, leg, dialog) else {
            env.emit(Event::ReplacementEnded { call: self.id, record, status: 503 });
            let mut reply = Response::to(&invite.headers, 503);
            add_tag(&mut reply.headers, &tag);
            return env.respond(server, &reply);
        };
        let said = Said { fork, headers: invite.headers.clone(), body: invite.body.clone() };
        let stage = Stage::Announced { taker: Taker { server, record, invite: Box::new(invite) }, said };
        let give_up_at = env.now.mono.plus_ms(DECISION_MS);
        self.transfer = Some(Box::new(Transfer::new(leg, place.fork, give_up_at, stage)));
        self.arm(env, CallTimer::Transfer, DECISION_MS);
    }

    /// The hub says that the INVITE has its record.
    pub(crate) fn proceed_replacing(&mut self, env: &mut Environment, record: CallId) {
        let announced = |transfer: &&mut Box<Transfer>| matches!(&transfer.stage, Stage::Announced { taker, .. } if taker.record == record);
        let Some(transfer) = self.transfer.as_mut().filter(announced) else { return };
        if let Stage::Announced { taker, said } = std::mem::replace(&mut transfer.stage, Stage::Deciding) {
            self.begin_joining(env, Newcomer::Calling(taker), said);
        }
    }

    /// Whoever wants to replace L gives up.
    pub(in super::super) fn cancel_replacing(&mut self, env: &mut Environment, server: TxId) {
        let ours = self.transfer.as_ref().is_some_and(|transfer| match &transfer.stage {
            Stage::Announced { taker, .. } | Stage::Joining { newcomer: Newcomer::Calling(taker), .. } => {
                taker.server == server
            }
            _ => false,
        });
        if ours {
            self.lose_newcomer(env);
        }
    }

    fn describe_replacement(
        &self,
        env: &Environment,
        place: DialogPlace,
        peer: PeerId,
        record: CallId,
        invite: &Request,
    ) -> Replacement {
        let trusted = env.trusts_identity(peer);
        Replacement {
            call: self.id,
            leg: place.leg,
            record,
            caller: identity(&invite.headers, trusted),
            side: env.side(place.peer),
            request_user: called_subscriber(env, peer, invite),
            sip_call_id: invite.headers.first(name::CALL_ID).unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_replaces_is_read_and_written() {
        let text = "425928@bobster.example.org;to-tag=7743;from-tag=6472;early-only";
        let read = Replaces::parse(text).unwrap();
        assert_eq!(read.dialog.local_tag, "7743");
        assert!(read.early_only);
        assert_eq!(read.text(), text);
        let swapped = Replaces::parse("a@b ; From-Tag=6472 ;to-tag=7743;x=y").unwrap();
        assert_eq!((swapped.dialog.remote_tag.as_str(), swapped.early_only), ("6472", false));
    }

    #[test]
    fn tags_missing_or_twice_are_no_dialog() {
        for text in ["", "a@b", "a@b;to-tag=1", ";to-tag=1;from-tag=2", "a;to-tag=1;from-tag=2;to-tag=3"] {
            assert_eq!(Replaces::parse(text), None, "{text}");
        }
    }
}
