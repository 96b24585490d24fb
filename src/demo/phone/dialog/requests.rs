//! Requests of the far end, and this end's responses (RFC 3261 §13.3, §14.2, §15.1.2, §17.2).

use super::{ALLOW, Dialog, Ending, KEPT_RESPONSES, Phase, Resend, T2, key_of, set_body};
use crate::demo::phone::PhoneError;
use crate::demo::phone::message::{Message, tag_of};
use crate::demo::phone::sdp::RemoteDescription;

impl Dialog {
    pub(super) async fn on_request(&mut self, request: Message) -> Result<(), PhoneError> {
        let method = request.method().unwrap_or_default().to_owned();
        if method == "ACK" {
            self.unacknowledged = None;
            self.take_description(&request.body);
            return Ok(());
        }
        if let Some(again) = self.response_before(&request) {
            self.socket.send_to(&again, self.far).await?;
            return Ok(());
        }
        match method.as_str() {
            "BYE" => self.on_bye(&request).await,
            "CANCEL" => self.on_cancel(&request).await,
            "INVITE" | "UPDATE" => self.on_offer(&request, &method).await,
            "NOTIFY" => self.on_notify(&request).await,
            "OPTIONS" | "INFO" | "MESSAGE" | "PRACK" => self.respond(&request, 200, None).await,
            "REFER" => self.respond(&request, 603, None).await,
            _ => self.respond(&request, 501, None).await,
        }
    }

    async fn on_bye(&mut self, bye: &Message) -> Result<(), PhoneError> {
        self.respond(bye, 200, None).await?;
        self.end(Ending::There);
        Ok(())
    }

    /// Word of a transfer: whoever is replaced hangs up (RFC 5589 §6.1).
    async fn on_notify(&mut self, notify: &Message) -> Result<(), PhoneError> {
        self.respond(notify, 200, None).await?;
        let done = notify.body.starts_with(b"SIP/2.0 2") && matches!(self.phase, Phase::Confirmed);
        if done { self.bye(None).await } else { Ok(()) }
    }

    async fn on_cancel(&mut self, cancel: &Message) -> Result<(), PhoneError> {
        self.respond(cancel, 200, None).await?;
        if matches!(self.phase, Phase::Invited(_)) {
            self.finish_invite(487, Ending::Cancelled).await?;
        }
        Ok(())
    }

    async fn on_offer(&mut self, request: &Message, method: &str) -> Result<(), PhoneError> {
        match &self.phase {
            Phase::Over => return self.respond(request, 481, None).await,
            // §14.2: one at a time.
            _ if self.former.is_some() => return self.respond(request, 491, None).await,
            _ => {}
        }
        self.learn_target(request);
        let body = match (RemoteDescription::parse(&request.body), request.body.is_empty()) {
            (Some(offer), _) => {
                let body = self.describe(Some(&offer));
                self.remote = Some(offer);
                self.point_media();
                Some(body)
            }
            (None, true) => (method == "INVITE").then(|| self.describe(None)),
            (None, false) => return self.respond(request, 488, None).await,
        };
        self.respond(request, 200, body).await
    }

    /// Sends and keeps a response; a final one to an INVITE is sent again until its ACK.
    pub(super) async fn respond(
        &mut self,
        request: &Message,
        status: u16,
        body: Option<String>,
    ) -> Result<(), PhoneError> {
        let tag = tag_of(&self.here).unwrap_or_default();
        let mut response = Message::response_to(request, status, tag);
        if (101..300).contains(&status) {
            response.push("Contact", &self.contact());
            response.push("Allow", ALLOW);
        }
        if let Some(body) = body {
            set_body(&mut response, body);
        }
        if status >= 200 && request.method() == Some("INVITE") {
            self.unacknowledged = Some(Resend::new(response.to_bytes(), T2));
        }
        self.remember_and_send(request, response).await
    }

    pub(super) async fn remember_and_send(
        &mut self,
        request: &Message,
        response: Message,
    ) -> Result<(), PhoneError> {
        let (branch, method) = key_of(request);
        let bytes = response.to_bytes();
        self.socket.send_to(&bytes, self.far).await?;
        self.responses.retain(|(b, m, _)| (b, m) != (&branch, &method));
        if self.responses.len() >= KEPT_RESPONSES {
            self.responses.remove(0);
        }
        self.responses.push((branch, method, bytes));
        Ok(())
    }

    fn response_before(&self, request: &Message) -> Option<Vec<u8>> {
        let (branch, method) = key_of(request);
        let found = self.responses.iter().find(|(b, m, _)| (b, m) == (&branch, &method));
        found.map(|(_, _, bytes)| bytes.clone())
    }
}
