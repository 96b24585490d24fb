//! Responses to what this end asked: provisional, final, and the ACKs they need (RFC 3261 §13.2.2, §17.1).

use std::sync::Arc;
use std::time::Instant;

use super::{Dialog, Ending, Phase, RINGING, Request, answer, outcome_of};
use crate::demo::phone::message::Message;
use crate::demo::phone::{CallState, PhoneError, Reply};

impl Dialog {
    pub(super) async fn on_response(&mut self, response: Message, status: u16) -> Result<(), PhoneError> {
        let branch = response.branch();
        let method = response.cseq().map(|(_, method)| method);
        let found = self
            .requests
            .iter()
            .position(|request| request.message.branch() == branch && Some(request.method) == method);
        let Some(index) = found else { return self.on_stray(&response, status).await };
        if status < 200 {
            return self.on_provisional(index, &response, status).await;
        }
        let request = self.requests.swap_remove(index);
        self.on_final(request, status, Some(response)).await
    }

    /// A 2xx that comes again gets its ACK again (§13.2.2.4).
    async fn on_stray(&mut self, response: &Message, status: u16) -> Result<(), PhoneError> {
        let (Some((number, "INVITE")), 200..300) = (response.cseq(), status) else { return Ok(()) };
        if let Some((_, bytes)) = self.acknowledgement.as_ref().filter(|(cseq, _)| *cseq == number) {
            self.socket.send_to(bytes, self.far).await?;
        }
        Ok(())
    }

    async fn on_provisional(
        &mut self,
        index: usize,
        response: &Message,
        status: u16,
    ) -> Result<(), PhoneError> {
        let Some(request) = self.requests.get_mut(index) else { return Ok(()) };
        if request.method == "INVITE" {
            request.resend.next = None;
            request.resend.deadline = Instant::now() + RINGING;
        }
        let Phase::Inviting { ringing, .. } = &mut self.phase else { return Ok(()) };
        *ringing = true;
        if status > 100 {
            self.learn_dialog(response);
            self.take_description(&response.body);
            self.state.send_replace(CallState::Ringing { status });
        }
        self.cancel_if_wanted().await
    }

    pub(super) async fn on_final(
        &mut self,
        request: Request,
        status: u16,
        response: Option<Message>,
    ) -> Result<(), PhoneError> {
        if request.method == "INVITE" {
            return self.on_invite_final(request, status, response).await;
        }
        let outcome = outcome_of(status, response.is_some());
        answer(request.reply, outcome);
        Ok(())
    }

    async fn on_invite_final(
        &mut self,
        request: Request,
        status: u16,
        response: Option<Message>,
    ) -> Result<(), PhoneError> {
        let accepted = (200..300).contains(&status);
        match &response {
            Some(response) if accepted => {
                self.learn_dialog(response);
                self.learn_target(response);
                self.acknowledge_success(&request.message).await?;
            }
            Some(response) => self.acknowledge_failure(&request.message, response).await?,
            None => {}
        }
        let body = response.as_ref().map(|response| response.body.as_slice()).unwrap_or_default();
        if let Phase::Inviting { given_up, .. } = &mut self.phase {
            let given_up = given_up.take();
            return self.on_first_final(given_up, status, body, response.is_some()).await;
        }
        self.settle_reinvite(accepted, body);
        answer(request.reply, outcome_of(status, response.is_some()));
        Ok(())
    }

    async fn on_first_final(
        &mut self,
        given_up: Option<Reply>,
        status: u16,
        body: &[u8],
        answered: bool,
    ) -> Result<(), PhoneError> {
        if !(200..300).contains(&status) {
            let cancelled = given_up.is_some();
            answer(given_up, Ok(()));
            self.end(match (cancelled, answered) {
                (true, _) => Ending::Cancelled,
                (false, true) => Ending::Refused { status },
                (false, false) => Ending::Lost,
            });
            return Ok(());
        }
        self.phase = Phase::Confirmed;
        if let Some(reply) = given_up {
            return self.bye(Some(reply)).await;
        }
        self.take_description(body);
        self.routes.reverse();
        self.state.send_replace(CallState::Answered);
        Ok(())
    }

    /// The new session counts, or the former one stands.
    fn settle_reinvite(&mut self, accepted: bool, body: &[u8]) {
        let Some(former) = self.former.take() else { return };
        if !accepted {
            let version = self.description.version;
            self.description = former.description;
            self.description.version = self.description.version.max(version);
            (self.user, self.asserted) = (former.user, former.asserted);
            return;
        }
        if let Some(media) = former.media {
            let left = self.media.send_replace(Arc::new(media));
            left.set_remote(None);
        }
        self.take_description(body);
    }

    async fn acknowledge_success(&mut self, invite: &Message) -> Result<(), PhoneError> {
        let Some((cseq, _)) = invite.cseq() else { return Ok(()) };
        let ack = self.request_with("ACK", cseq)?.to_bytes();
        self.socket.send_to(&ack, self.far).await?;
        self.acknowledgement = Some((cseq, ack));
        Ok(())
    }

    /// §17.1.1.3: the ACK of a refusal belongs to the INVITE's transaction.
    async fn acknowledge_failure(&self, invite: &Message, response: &Message) -> Result<(), PhoneError> {
        let mut ack = Message::request("ACK", invite.request_uri().unwrap_or_default());
        for name in ["Via", "Max-Forwards", "From", "Call-ID"] {
            ack.push(name, invite.header(name).unwrap_or_default());
        }
        ack.push("To", response.header("To").unwrap_or_default());
        let cseq = invite.cseq().map_or(0, |(number, _)| number);
        ack.push("CSeq", &format!("{cseq} ACK"));
        self.socket.send_to(&ack.to_bytes(), self.far).await?;
        Ok(())
    }
}
