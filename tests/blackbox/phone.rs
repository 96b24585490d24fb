//! A scripted SIP telephone (RFC 3261) on a real socket. Its own thread answers everything that needs no
//! script: ACKs, re-INVITEs, UPDATE, OPTIONS, INFO, BYE, CANCEL and retransmissions.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::media::{Media, Threads};
use crate::message::{Message, describe};
use crate::wire::{Authority, Issued, Wire};

/// How long anything in a call may take before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// RFC 3261 Timer A's T1.
const T1: Duration = Duration::from_millis(500);

/// A telephone (or a whole PBX or carrier: it holds any number of calls).
pub(crate) struct Phone {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// One call of a [`Phone`]. Hanging up is the script's business; dropping it only ends its media.
pub(crate) struct Call {
    shared: Arc<Shared>,
    id: String,
    media: Arc<Media>,
    _threads: Threads,
}

/// What to put into an INVITE.
pub(crate) struct Invite {
    to: String,
    from: String,
    headers: Vec<(String, String)>,
    body: fn(&str) -> (String, Vec<u8>),
}

/// Sees every message before the telephone does: `None` lets it in, else these are the answers.
pub(crate) type Door = Box<dyn Fn(&[u8]) -> Option<Vec<Vec<u8>>> + Send + Sync>;

struct Shared {
    wire: Wire,
    door: OnceLock<Door>,
    address: SocketAddr,
    gateway: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    closing: AtomicBool,
}

#[derive(Default)]
struct State {
    dialogs: BTreeMap<String, Dialog>,
    arrived: VecDeque<(String, Threads)>,
    serial: u32,
    /// What its dialogs say of recording from the start.
    wish: Option<&'static str>,
}

struct Dialog {
    outgoing: bool,
    local: String,
    /// The same all through the call: another user part would be another party.
    contact: String,
    remote: String,
    target: String,
    /// The proxies between us and the far end (RFC 3261 §12.1).
    routes: Vec<String>,
    cseq: u32,
    /// The INVITE that made the dialog, sent or received.
    invite: Message,
    /// Our latest response to it.
    reply: Option<Message>,
    /// Every response received, provisional ones too.
    responses: Vec<Message>,
    /// Every body of a NOTIFY received.
    notices: Vec<String>,
    ended: bool,
    /// Another telephone that has answered the same INVITE.
    elsewhere: Option<Elsewhere>,
    /// Whether offers wait for the script, and the one that does.
    withholds: bool,
    withheld: Option<Message>,
    version: u32,
    media: Arc<Media>,
    /// Whether it understands `a=record` (RFC 7866), and its `a=recordpref`.
    wish: Option<&'static str>,
    /// Every `a=record` that it was sent.
    told: Vec<String>,
}

/// What a telephone says that understands indications of recording (RFC 7866 §6.3).
const AWARE: [(&str, &str); 2] =
    [("Supported", "record-aware"), ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE")];

struct Elsewhere {
    local: String,
    acknowledged: bool,
    ended: bool,
}

impl Invite {
    /// From one user part to another.
    pub(crate) fn new(to: &str, from: &str) -> Self {
        let plain = |sdp: &str| ("application/sdp".to_owned(), sdp.as_bytes().to_vec());
        Self { to: to.to_owned(), from: from.to_owned(), headers: Vec::new(), body: plain }
    }

    /// With a further header field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body made from the session description.
    pub(crate) fn body(mut self, body: fn(&str) -> (String, Vec<u8>)) -> Self {
        self.body = body;
        self
    }
}

impl Phone {
    /// Binds `address`; everything goes to `gateway`.
    pub(crate) fn new(address: SocketAddr, gateway: SocketAddr) -> Self {
        Self::on(Wire::datagrams(address), address, gateway)
    }

    /// The same by TLS, with a certificate of `ca`, which must have signed the gateway's too.
    pub(crate) fn by_tls(address: SocketAddr, gateway: SocketAddr, ca: &Authority, own: &Issued) -> Self {
        Self::on(Wire::streams(address, gateway, ca, own), address, gateway)
    }

    fn on(wire: Wire, address: SocketAddr, gateway: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            wire,
            door: OnceLock::new(),
            address,
            gateway,
            state: Mutex::default(),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.listen()
        });
        Self { shared, thread: Some(thread) }
    }

    /// From its next call on it understands indications of recording, and wants this (RFC 7866 §7.1.3).
    pub(crate) fn becomes_aware(&self, wish: &'static str) {
        self.shared.state().wish = Some(wish);
    }

    /// Calls `to` as `from`.
    pub(crate) fn call(&self, to: &str, from: &str) -> Call {
        self.invite(&Invite::new(to, from))
    }

    /// Sends an INVITE and waits until somebody takes note of it.
    pub(crate) fn invite(&self, invite: &Invite) -> Call {
        let (media, threads) = Media::open(self.shared.address.ip());
        let (id, message) = self.shared.compose(invite, &media);
        let call = Call { shared: Arc::clone(&self.shared), id, media, _threads: threads };
        call.until_response("any response to the INVITE", message, |_| true);
        call
    }

    /// Waits for a call. It is not yet ringing.
    pub(crate) fn incoming(&self) -> Call {
        let (id, threads) = self.shared.wait("a call", PATIENCE, |state| state.arrived.pop_front());
        let media = Arc::clone(&self.shared.state().dialogs[&id].media);
        Call { shared: Arc::clone(&self.shared), id, media, _threads: threads }
    }

    /// Whether no call is waiting to be taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.state().arrived.is_empty()
    }

    /// From now on every message goes by `door` first.
    pub(crate) fn set_door(&self, door: Door) {
        assert!(self.shared.door.set(door).is_ok(), "a telephone has one door");
    }

    /// Sends a datagram as it is.
    pub(crate) fn send_raw(&self, datagram: &[u8]) {
        self.shared.wire.send(datagram, self.shared.gateway);
    }

    /// Streams that the gateway has opened to it.
    pub(crate) fn accepted_streams(&self) -> usize {
        self.shared.wire.accepted()
    }

    /// Sends OPTIONS and returns the status of its answer.
    pub(crate) fn options(&self) -> u16 {
        let shared = &self.shared;
        let (media, _threads) = Media::open(shared.address.ip());
        let (id, invite) = shared.compose(&Invite::new("ping", "ping"), &media);
        let mut options = Message { start: invite.start.replace("INVITE", "OPTIONS"), ..invite };
        options.body.clear();
        options.headers.retain(|(name, _)| name != "Content-Type");
        for (name, value) in &mut options.headers {
            if name == "CSeq" {
                *value = "1 OPTIONS".to_owned();
            }
        }
        let call = Call { shared: Arc::clone(shared), id, media, _threads };
        call.until_response("an answer to OPTIONS", options, |_| true).status().unwrap_or(0)
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has already been printed.
            let _ = thread.join();
        }
    }
}

impl Call {
    /// Its media.
    pub(crate) fn media(&self) -> &Media {
        &self.media
    }

    /// The INVITE that made it.
    pub(crate) fn invite(&self) -> Message {
        self.shared.state().dialogs[&self.id].invite.clone()
    }

    /// The next request that it would send within its dialog, for a test to spoil: it is not sent, and its
    /// number is not used up.
    pub(crate) fn next_request(&self, method: &str) -> Message {
        let mut state = self.shared.state();
        let branch = state.branch();
        let dialog = &state.dialogs[&self.id];
        dialog.request(method, dialog.cseq + 1, &self.shared.via(&branch))
    }

    /// The same, and its number is used up.
    pub(crate) fn take_request(&self, method: &str) -> Message {
        let request = self.next_request(method);
        if let Some(dialog) = self.shared.state().dialogs.get_mut(&self.id) {
            dialog.cseq += 1;
        }
        request
    }

    /// Callee: 180.
    pub(crate) fn ring(&self) {
        self.shared.reply(&self.id, 180, "Ringing", &[], false);
    }

    /// Callee: 200, and media flows.
    pub(crate) fn answer(&self) {
        self.answer_with(&[]);
    }

    /// The same, with further header fields.
    pub(crate) fn answer_with(&self, fields: &[(&str, &str)]) {
        self.shared.reply(&self.id, 200, "OK", fields, true);
    }

    /// Callee: 200 to the same INVITE from another telephone, to which a proxy had sent it as well.
    pub(crate) fn answer_elsewhere(&self) {
        self.shared.answer_elsewhere(&self.id);
    }

    /// Waits until that other telephone has its ACK, and has been hung up.
    pub(crate) fn hung_up_elsewhere(&self) {
        self.shared.wait("the other telephone to be hung up", PATIENCE, |state| {
            let elsewhere = state.dialogs[&self.id].elsewhere.as_ref();
            elsewhere.is_some_and(|elsewhere| elsewhere.acknowledged && elsewhere.ended).then_some(())
        });
    }

    /// From now on offers wait for [`Self::agree`].
    pub(crate) fn withhold(&self) {
        if let Some(dialog) = self.shared.state().dialogs.get_mut(&self.id) {
            dialog.withholds = true;
        }
    }

    /// Waits for an offer that is to wait.
    pub(crate) fn offered(&self) {
        self.shared
            .wait("an offer", PATIENCE, |state| state.dialogs[&self.id].withheld.is_some().then_some(()));
    }

    /// Answers it, and all further ones at once.
    pub(crate) fn agree(&self) {
        let mut state = self.shared.state();
        let dialog = state.dialogs.get_mut(&self.id).expect("a dialog");
        dialog.withholds = false;
        let offer = dialog.withheld.take().expect("an offer");
        self.shared.send(&dialog.agree(&offer));
    }

    /// Callee: a final refusal.
    pub(crate) fn reject(&self, status: u16, reason: &str) {
        self.shared.reply(&self.id, status, reason, &[], false);
    }

    /// Caller: the final status of the INVITE.
    pub(crate) fn final_status(&self) -> u16 {
        self.response(1, "INVITE").status().unwrap_or(0)
    }

    /// Caller: waits for a 2xx.
    pub(crate) fn answered(&self) {
        assert_eq!(self.final_status(), 200, "the call is answered");
    }

    /// Caller: waits for a provisional status.
    pub(crate) fn progress(&self, status: u16) {
        self.shared.wait(&format!("a {status}"), PATIENCE, |state| {
            let responses = &state.dialogs[&self.id].responses;
            responses.iter().any(|response| response.status() == Some(status)).then_some(())
        });
    }

    /// Hangs up.
    pub(crate) fn bye(&self) {
        let status = self.request("BYE", None).status();
        assert_eq!(status, Some(200), "BYE is answered");
        self.media.mute(true);
        if let Some(dialog) = self.shared.state().dialogs.get_mut(&self.id) {
            dialog.ended = true;
        }
    }

    /// Caller: gives up before the answer.
    pub(crate) fn cancel(&self) {
        let cancel = {
            let state = self.shared.state();
            let invite = &state.dialogs[&self.id].invite;
            let mut cancel =
                Message { start: invite.start.replace("INVITE", "CANCEL"), ..Message::default() };
            for name in ["Via", "From", "To", "Call-ID", "Max-Forwards"] {
                cancel = cancel.with(name, invite.header(name).unwrap_or_default());
            }
            cancel.with("CSeq", "1 CANCEL")
        };
        self.until_response("an answer to CANCEL", cancel, |response| response.cseq().1 == "CANCEL");
    }

    /// Puts the other party on hold.
    pub(crate) fn hold(&self) {
        assert_eq!(self.request("INVITE", Some("sendonly")).status(), Some(200), "hold is answered");
    }

    /// Asks to put the other party on hold, and says how that was answered.
    pub(crate) fn try_hold(&self) -> u16 {
        self.request("INVITE", Some("sendonly")).status().unwrap_or(0)
    }

    /// Takes the other party off hold.
    pub(crate) fn resume(&self) {
        assert_eq!(self.request("INVITE", Some("sendrecv")).status(), Some(200), "resume is answered");
    }

    /// Shows by re-INVITE that somebody else is there now, as a PBX does that its peers believe.
    pub(crate) fn becomes(&self, identity: &str) {
        let field = Some(("P-Asserted-Identity", identity));
        let status = self.request_with("INVITE", field, Some("sendrecv")).status();
        assert_eq!(status, Some(200), "a new identity is answered");
    }

    /// Says by UPDATE what it wants of recording.
    pub(crate) fn wants(&self, wish: &'static str) {
        if let Some(dialog) = self.shared.state().dialogs.get_mut(&self.id) {
            dialog.wish = Some(wish);
        }
        assert_eq!(self.request("UPDATE", Some("sendrecv")).status(), Some(200), "UPDATE is answered");
    }

    /// Waits until the last word on recording was this.
    pub(crate) fn told_of_recording(&self, state: &str) {
        self.shared.wait(&format!("a=record:{state}"), PATIENCE, |dialogs| {
            (dialogs.dialogs[&self.id].told.last().map(String::as_str) == Some(state)).then_some(())
        });
    }

    /// Every word on recording so far.
    pub(crate) fn words_on_recording(&self) -> Vec<String> {
        self.shared.state().dialogs[&self.id].told.clone()
    }

    /// Callee: 302 to this address.
    pub(crate) fn redirect(&self, to: &str) {
        self.shared.redirect(&self.id, to);
    }

    /// Asks the far end to call somebody else instead of us (RFC 3515); it agrees to try.
    pub(crate) fn refer(&self, to: &str) {
        let status = self.request_with("REFER", Some(("Refer-To", to)), None).status();
        assert_eq!(status, Some(202), "REFER is accepted");
    }

    /// Waits until the far end has told how the transfer went.
    pub(crate) fn told(&self, status_line: &str) {
        self.shared.wait(&format!("word of {status_line}"), PATIENCE, |state| {
            let notices = &state.dialogs[&self.id].notices;
            notices.iter().any(|notice| notice.starts_with(status_line)).then_some(())
        });
    }

    /// What a Replaces names this dialog with, as the far end knows it (RFC 3891 §6.1).
    pub(crate) fn replaced(&self) -> String {
        let state = self.shared.state();
        let dialog = &state.dialogs[&self.id];
        let tag = |address: &str| address.split("tag=").nth(1).map(str::to_owned).expect("a tag");
        format!("{};to-tag={};from-tag={}", self.id, tag(&dialog.remote), tag(&dialog.local))
    }

    /// Waits until the far end has hung up or cancelled.
    pub(crate) fn ended(&self) {
        self.shared
            .wait("the far end to hang up", PATIENCE, |state| state.dialogs[&self.id].ended.then_some(()));
    }

    /// Whether the far end has hung up or cancelled.
    pub(crate) fn is_ended(&self) -> bool {
        self.shared.state().dialogs[&self.id].ended
    }

    /// Sends a request within the dialog and waits for its final response.
    fn request(&self, method: &str, direction: Option<&str>) -> Message {
        self.request_with(method, None, direction)
    }

    fn request_with(&self, method: &str, field: Option<(&str, &str)>, direction: Option<&str>) -> Message {
        let (number, message) = {
            let mut state = self.shared.state();
            let branch = state.branch();
            let dialog = state.dialogs.get_mut(&self.id).expect("a dialog");
            dialog.cseq += 1;
            let mut message = dialog.request(method, dialog.cseq, &self.shared.via(&branch));
            if let Some((name, value)) = field {
                message = message.with(name, value);
            }
            if let Some(direction) = direction {
                dialog.version += 1;
                message = message.with("Content-Type", "application/sdp");
                message.body = dialog.describe(direction);
            }
            (dialog.cseq, message)
        };
        let matches = |response: &Message| {
            response.cseq() == (number, method) && response.status().is_some_and(|status| status >= 200)
        };
        self.until_response(&format!("a final response to {method}"), message, matches)
    }

    fn response(&self, number: u32, method: &str) -> Message {
        self.shared.wait(&format!("a final response to {method}"), PATIENCE, |state| {
            let responses = &state.dialogs[&self.id].responses;
            let wanted = |response: &&Message| {
                response.cseq() == (number, method) && response.status().is_some_and(|status| status >= 200)
            };
            responses.iter().find(wanted).cloned()
        })
    }

    /// Sends `message` again and again, as a transaction does, until a response fits.
    fn until_response(&self, what: &str, message: Message, fits: impl Fn(&Message) -> bool) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.shared.send(&message);
            let found = self.shared.poll(T1, |state| {
                let responses = &state.dialogs.get(&self.id)?.responses;
                responses.iter().find(|response| fits(response)).cloned()
            });
            if let Some(response) = found {
                return response;
            }
            assert!(Instant::now() < deadline, "{what} did not come");
        }
    }
}

impl Dialog {
    fn describe(&self, direction: &str) -> Vec<u8> {
        let wish = self.wish.map(|wish| format!("a=recordpref:{wish}\r\n")).unwrap_or_default();
        (describe(self.media.address(), self.version, direction) + &wish).into_bytes()
    }

    /// Takes in what a description says of recording.
    fn hear(&mut self, message: &Message) {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        self.told.extend(body.lines().filter_map(|line| line.strip_prefix("a=record:")).map(str::to_owned));
    }

    fn introduce(&self, message: Message) -> Message {
        let says = if self.wish.is_some() { &AWARE[..] } else { &[] };
        says.iter().fold(message, |message, (name, value)| message.with(name, *value))
    }

    fn request(&self, method: &str, cseq: u32, via: &str) -> Message {
        let mut message =
            Message { start: format!("{method} {} SIP/2.0", self.target), ..Message::default() };
        for route in &self.routes {
            message = message.with("Route", route.clone());
        }
        message
            .with("Via", via)
            .with("From", self.local.clone())
            .with("To", self.remote.clone())
            .with("Call-ID", self.invite.call_id())
            .with("CSeq", format!("{cseq} {method}"))
            .with("Max-Forwards", "70")
            .with("Contact", self.contact.clone())
    }
}

impl State {
    fn branch(&mut self) -> String {
        self.serial += 1;
        format!("z9hG4bK-{}-{}", std::process::id(), self.serial)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, what: &str, limit: Duration, found: impl FnMut(&mut State) -> Option<T>) -> T {
        self.poll(limit, found).unwrap_or_else(|| panic!("{} waited in vain for {what}", self.address))
    }

    fn poll<T>(&self, limit: Duration, mut found: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if let Some(value) = found(&mut state) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send(&self, message: &Message) {
        self.wire.send(&message.to_bytes(), self.gateway);
    }

    fn via(&self, branch: &str) -> String {
        format!("SIP/2.0/{} {};branch={branch};rport", self.wire.name(), self.address)
    }

    fn contact(&self, user: &str) -> String {
        format!("<sip:{user}@{}{}>", self.address, self.wire.parameter())
    }

    /// A new dialog with its INVITE, not yet sent.
    fn compose(&self, invite: &Invite, media: &Arc<Media>) -> (String, Message) {
        let mut state = self.state();
        let branch = state.branch();
        let id = format!("{}-{}@{}", state.serial, std::process::id(), self.address.ip());
        let wish = state.wish.map(|wish| format!("a=recordpref:{wish}\r\n")).unwrap_or_default();
        let (content_type, body) = (invite.body)(&(describe(media.address(), 1, "sendrecv") + &wish));
        let target = format!("sip:{}@{}", invite.to, self.gateway);
        let local = format!("<sip:{}@{}>;tag=t{}", invite.from, self.address, state.serial);
        let contact = self.contact(&invite.from);
        let mut message = Message { start: format!("INVITE {target} SIP/2.0"), body, ..Message::default() }
            .with("Via", self.via(&branch))
            .with("From", local.clone())
            .with("To", format!("<{target}>"))
            .with("Call-ID", id.clone())
            .with("CSeq", "1 INVITE")
            .with("Max-Forwards", "70")
            .with("Contact", contact.clone())
            .with("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE")
            .with("Content-Type", content_type);
        message.headers.extend(invite.headers.iter().cloned());
        if state.wish.is_some() {
            message = message.with("Supported", "record-aware");
        }
        let dialog = Dialog {
            outgoing: true,
            local,
            contact,
            remote: format!("<{target}>"),
            target,
            routes: Vec::new(),
            cseq: 1,
            invite: message.clone(),
            reply: None,
            responses: Vec::new(),
            notices: Vec::new(),
            ended: false,
            elsewhere: None,
            withholds: false,
            withheld: None,
            version: 1,
            media: Arc::clone(media),
            wish: state.wish,
            told: Vec::new(),
        };
        state.dialogs.insert(id.clone(), dialog);
        (id, message)
    }

    /// Answers the INVITE of an incoming call.
    fn reply(&self, id: &str, status: u16, reason: &str, fields: &[(&str, &str)], with_media: bool) {
        let mut state = self.state();
        let dialog = state.dialogs.get_mut(id).expect("a dialog");
        let mut reply = response_to(&dialog.invite, status, reason, &dialog.local)
            .with("Contact", dialog.contact.clone());
        for (name, value) in fields {
            reply = reply.with(name, *value);
        }
        if with_media {
            reply = dialog.introduce(reply.with("Content-Type", "application/sdp"));
            reply.body = dialog.describe("sendrecv");
            if let Some(offer) = dialog.invite.description() {
                dialog.media.connect(offer.rtp, offer.events);
            }
        }
        self.send(&reply);
        dialog.reply = Some(reply);
    }

    fn answer_elsewhere(&self, id: &str) {
        let mut state = self.state();
        let dialog = state.dialogs.get_mut(id).expect("a dialog");
        let local = format!("{};tag=elsewhere", dialog.invite.header("To").unwrap_or_default());
        let mut reply = response_to(&dialog.invite, 200, "OK", &local)
            .with("Contact", dialog.contact.clone())
            .with("Content-Type", "application/sdp");
        reply.body = describe(dialog.media.address(), 1, "sendrecv").into_bytes();
        self.send(&reply);
        dialog.elsewhere = Some(Elsewhere { local, acknowledged: false, ended: false });
    }

    fn redirect(&self, id: &str, to: &str) {
        let mut state = self.state();
        let dialog = state.dialogs.get_mut(id).expect("a dialog");
        let reply = response_to(&dialog.invite, 302, "Moved Temporarily", &dialog.local).with("Contact", to);
        self.send(&reply);
        dialog.reply = Some(reply);
    }

    fn listen(&self) {
        while !self.closing.load(Ordering::Relaxed) {
            let Some(received) = self.wire.receive(self.gateway) else { continue };
            if let Some(answers) = self.door.get().and_then(|door| door(&received)) {
                answers.iter().for_each(|answer| self.wire.send(answer, self.gateway));
                continue;
            }
            let Some(message) = Message::parse(&received) else {
                panic!("not SIP: {}", String::from_utf8_lossy(&received));
            };
            let mut state = self.state();
            if message.status().is_some() {
                self.on_response(&mut state, message);
            } else {
                self.on_request(&mut state, message);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    fn on_response(&self, state: &mut State, message: Message) {
        let branch = state.branch();
        let Some(dialog) = state.dialogs.get_mut(message.call_id()) else { return };
        dialog.hear(&message);
        let status = message.status().unwrap_or(0);
        let (number, method) = message.cseq();
        if method == "INVITE" {
            if let Some(description) = message.description() {
                dialog.media.connect(description.rtp, description.events);
            }
            if (200..300).contains(&status) {
                dialog.remote = message.header("To").unwrap_or_default().to_owned();
                dialog.target = message.contact().expect("a Contact in a 2xx");
                // A route set is that of the INVITE that made the dialog (RFC 3261 §12.2).
                if number == 1 && dialog.invite.header("From") == Some(dialog.local.as_str()) {
                    dialog.routes = message.all("Record-Route").map(str::to_owned).collect();
                    dialog.routes.reverse();
                }
                self.send(&dialog.request("ACK", number, &self.via(&branch)));
            } else if status >= 300 {
                // RFC 3261 §17.1.1.3: the ACK belongs to the INVITE's own transaction.
                let via = message.header("Via").unwrap_or_default();
                let own = via.split("branch=").nth(1).and_then(|rest| rest.split(';').next());
                let mut ack = dialog.request("ACK", number, &self.via(own.unwrap_or_default()));
                ack.start = dialog.invite.start.replace("INVITE", "ACK");
                ack.headers.retain(|(name, _)| name != "To");
                self.send(&ack.with("To", message.header("To").unwrap_or_default()));
            }
        }
        dialog.responses.push(message);
    }

    fn on_request(&self, state: &mut State, message: Message) {
        let id = message.call_id().to_owned();
        if !state.dialogs.contains_key(&id) {
            if message.method() == "INVITE" {
                self.accept(state, message);
            } else if message.method() != "ACK" {
                let local = message.header("To").unwrap_or_default().to_owned();
                let status = if message.method() == "OPTIONS" { (200, "OK") } else { (481, "No such call") };
                self.send(&response_to(&message, status.0, status.1, &local));
            }
            return;
        }
        let Some(dialog) = state.dialogs.get_mut(&id) else { return };
        if let Some(elsewhere) = &mut dialog.elsewhere
            && message.header("To") == Some(elsewhere.local.as_str())
        {
            elsewhere.acknowledged |= message.method() == "ACK";
            if message.method() == "BYE" {
                self.send(&response_to(&message, 200, "OK", &elsewhere.local));
                elsewhere.ended = true;
            }
            return;
        }
        dialog.hear(&message);
        let again = message.header("CSeq") == dialog.invite.header("CSeq") && !dialog.outgoing;
        match message.method() {
            "INVITE" if again => {
                if let Some(reply) = &dialog.reply {
                    self.send(reply);
                }
            }
            "ACK" => {
                if let Some(answer) = message.description() {
                    dialog.media.connect(answer.rtp, answer.events);
                }
            }
            "CANCEL" => {
                self.send(&response_to(&message, 200, "OK", &dialog.local));
                let refusal = response_to(&dialog.invite, 487, "Request Terminated", &dialog.local);
                self.send(&refusal);
                dialog.reply = Some(refusal);
                dialog.ended = true;
            }
            "NOTIFY" => {
                dialog.notices.push(String::from_utf8_lossy(&message.body).into_owned());
                self.send(&response_to(&message, 200, "OK", &dialog.local));
            }
            "BYE" => {
                self.send(&response_to(&message, 200, "OK", &dialog.local));
                dialog.media.mute(true);
                dialog.ended = true;
            }
            "INVITE" if dialog.withholds => dialog.withheld = Some(message),
            _ => self.send(&dialog.agree(&message)),
        }
    }

    /// A new incoming call.
    fn accept(&self, state: &mut State, invite: Message) {
        let (media, threads) = Media::open(self.address.ip());
        state.serial += 1;
        let dialog = Dialog {
            outgoing: false,
            contact: self.contact("phone"),
            local: format!("{};tag=t{}", invite.header("To").unwrap_or_default(), state.serial),
            remote: invite.header("From").unwrap_or_default().to_owned(),
            target: invite.contact().expect("a Contact in an INVITE"),
            routes: invite.all("Record-Route").map(str::to_owned).collect(),
            cseq: 0,
            invite: invite.clone(),
            reply: None,
            responses: Vec::new(),
            notices: Vec::new(),
            ended: false,
            elsewhere: None,
            withholds: false,
            withheld: None,
            version: 1,
            media,
            wish: state.wish,
            told: Vec::new(),
        };
        self.send(&response_to(&invite, 100, "Trying", invite.header("To").unwrap_or_default()));
        let id = invite.call_id().to_owned();
        state.dialogs.insert(id.clone(), dialog);
        state.arrived.push_back((id, threads));
    }
}

impl Dialog {
    /// 200 to a request within the dialog; an offer gets its answer.
    fn agree(&mut self, message: &Message) -> Message {
        let mut reply = response_to(message, 200, "OK", &self.local);
        let offer = message.description();
        if offer.is_none() && message.method() != "INVITE" {
            return reply;
        }
        let direction = match offer.as_ref().map(|offer| offer.direction.as_str()) {
            Some("sendonly") => "recvonly",
            Some("recvonly") => "sendonly",
            Some("inactive") => "inactive",
            _ => "sendrecv",
        };
        if let Some(offer) = offer {
            self.media.connect(offer.rtp, offer.events);
        }
        self.version += 1;
        reply = reply.with("Contact", self.contact.clone()).with("Content-Type", "application/sdp");
        reply.body = self.describe(direction);
        reply
    }
}

/// RFC 3261 §8.2.6: what a response copies from its request; `to` carries our tag.
fn response_to(request: &Message, status: u16, reason: &str, to: &str) -> Message {
    let mut response = Message { start: format!("SIP/2.0 {status} {reason}"), ..Message::default() };
    for name in ["Via", "Record-Route"] {
        for value in request.all(name) {
            response = response.with(name, value);
        }
    }
    for name in ["From", "Call-ID", "CSeq"] {
        response = response.with(name, request.header(name).unwrap_or_default());
    }
    response.with("To", to)
}

#[test]
fn two_telephones_back_to_back_understand_each_other() {
    use crate::sound::{self, LADDER_A_HZ, LADDER_S};

    let site = crate::gateway::Site::new();
    let alice = Phone::new(site.carrier(), site.pbx());
    let bob = Phone::new(site.pbx(), site.carrier());
    let outgoing = alice.call("bob", "alice");
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    let incoming = bob.incoming();
    incoming.ring();
    outgoing.progress(180);
    incoming.answer();
    outgoing.answered();
    std::thread::sleep(Duration::from_secs(2));
    outgoing.media().press("*80");
    outgoing.hold();
    outgoing.resume();
    outgoing.bye();
    incoming.ended();
    assert_eq!(incoming.media().keys_heard(), [10, 8, 0]);
    let heard = sound::find_ladder(&incoming.media().heard(None), LADDER_A_HZ);
    assert!(heard.seconds() > 1.5, "{heard:?}");

    let refused = bob.call("alice", "bob");
    alice.incoming().reject(486, "Busy Here");
    assert_eq!(refused.final_status(), 486);
    let given_up = bob.call("alice", "bob");
    let ringing = alice.incoming();
    given_up.cancel();
    assert_eq!(given_up.final_status(), 487);
    ringing.ended();
    assert_eq!(bob.options(), 200);
}
