//! What the telephone's user wants, and the requests that follow from it.

use super::{Dialog, Ending, Former, Order, Phase, answer, description_of, set_body};
use crate::demo::phone::media::Media;
use crate::demo::phone::message::Message;
use crate::demo::phone::sdp::Flow;
use crate::demo::phone::{CallState, PhoneError, Reply, random};

impl Dialog {
    pub(super) async fn on_order(&mut self, order: Order, reply: Reply) -> Result<(), PhoneError> {
        let outcome = match (order, &self.phase) {
            (Order::HangUp, _) => return self.hang_up(reply).await,
            (Order::Reinvite { flow, handed_to }, Phase::Confirmed) if self.former.is_none() => {
                return self.reinvite(flow, handed_to, reply).await;
            }
            (Order::Refer { to }, Phase::Confirmed) => {
                let mut refer = self.request("REFER")?;
                refer.push("Refer-To", &format!("<sip:{to}@{}>", self.local));
                return self.send_request("REFER", refer, Some(reply)).await;
            }
            (Order::Progress { status, describe }, Phase::Invited(_)) => {
                self.progress(status, describe).await
            }
            (Order::Answer, Phase::Invited(_)) => self.answer_call().await,
            (Order::Refuse { status }, Phase::Invited(_)) => {
                self.finish_invite(status, Ending::Refused { status }).await
            }
            _ => Err(PhoneError::Over),
        };
        answer(Some(reply), outcome);
        Ok(())
    }

    async fn progress(&mut self, status: u16, describe: bool) -> Result<(), PhoneError> {
        let Phase::Invited(invite) = &self.phase else { return Err(PhoneError::Over) };
        let invite = invite.as_ref().clone();
        let body = match (describe, self.remote.clone()) {
            (false, _) => None,
            (true, Some(offer)) => Some(self.describe(Some(&offer))),
            (true, None) => return Err(PhoneError::NoCommonCodec),
        };
        self.respond(&invite, status, body).await?;
        self.state.send_replace(CallState::Ringing { status });
        if describe {
            self.point_media();
        }
        Ok(())
    }

    async fn answer_call(&mut self) -> Result<(), PhoneError> {
        let Phase::Invited(invite) = &self.phase else { return Err(PhoneError::Over) };
        let invite = invite.as_ref().clone();
        let body = match self.remote.clone() {
            Some(offer) => self.describe(Some(&offer)),
            None if invite.body.is_empty() => self.describe(None),
            None => {
                self.finish_invite(488, Ending::Refused { status: 488 }).await?;
                return Err(PhoneError::NoCommonCodec);
            }
        };
        self.respond(&invite, 200, Some(body)).await?;
        self.phase = Phase::Confirmed;
        self.state.send_replace(CallState::Answered);
        self.point_media();
        Ok(())
    }

    pub(super) async fn finish_invite(&mut self, status: u16, ending: Ending) -> Result<(), PhoneError> {
        let Phase::Invited(invite) = &self.phase else { return Err(PhoneError::Over) };
        let invite = invite.as_ref().clone();
        self.respond(&invite, status, None).await?;
        self.end(ending);
        Ok(())
    }

    async fn hang_up(&mut self, reply: Reply) -> Result<(), PhoneError> {
        match &mut self.phase {
            Phase::Inviting { given_up, .. } => {
                *given_up = Some(reply);
                self.cancel_if_wanted().await
            }
            Phase::Invited(_) => {
                let outcome = self.finish_invite(486, Ending::Refused { status: 486 }).await;
                answer(Some(reply), outcome);
                Ok(())
            }
            Phase::Confirmed => self.bye(Some(reply)).await,
            Phase::Over => {
                answer(Some(reply), Err(PhoneError::Over));
                Ok(())
            }
        }
    }

    pub(super) async fn bye(&mut self, reply: Option<Reply>) -> Result<(), PhoneError> {
        let bye = self.request("BYE")?;
        self.end(Ending::Here);
        self.send_request("BYE", bye, reply).await
    }

    /// §9.1: a CANCEL goes out only after a provisional response, and once.
    pub(super) async fn cancel_if_wanted(&mut self) -> Result<(), PhoneError> {
        let Phase::Inviting { invite, ringing: true, given_up: Some(_), cancelled } = &mut self.phase else {
            return Ok(());
        };
        if std::mem::replace(cancelled, true) {
            return Ok(());
        }
        let mut cancel = Message::request("CANCEL", invite.request_uri().unwrap_or_default());
        for name in ["Via", "Max-Forwards", "From", "To", "Call-ID"] {
            cancel.push(name, invite.header(name).unwrap_or_default());
        }
        let cseq = invite.cseq().map_or(0, |(number, _)| number);
        cancel.push("CSeq", &format!("{cseq} CANCEL"));
        self.send_request("CANCEL", cancel, None).await
    }

    async fn reinvite(
        &mut self,
        flow: Flow,
        handed_to: Option<String>,
        reply: Reply,
    ) -> Result<(), PhoneError> {
        let mut former = Former {
            description: self.description.clone(),
            user: self.user.clone(),
            asserted: self.asserted.clone(),
            media: None,
        };
        self.description.flow = flow;
        if let Some(user) = handed_to {
            let media = Media::bind(self.local.ip(), random()?).await?;
            self.description = description_of(&media)?;
            self.described = None;
            former.media = Some(media);
            self.asserted = Some(user.clone());
            self.user = user;
        }
        self.former = Some(former);
        let mut invite = self.request("INVITE")?;
        set_body(&mut invite, self.describe(None));
        self.send_request("INVITE", invite, Some(reply)).await
    }
}
