//! One call's dialog (RFC 3261 §12 to §15) with its transactions (§17), as its own task.
//!
//! | phase | what comes | what follows |
//! |---|---|---|
//! | inviting | 1xx | the INVITE is not sent again; early media if described |
//! | inviting | 2xx | ACK; confirmed, or BYE at once if it was given up meanwhile |
//! | inviting | 3xx-6xx, or nothing for 64·T1 | ACK; over |
//! | inviting | order to hang up | CANCEL, as soon as there was a 1xx (§9.1) |
//! | invited | order to ring, answer, refuse | 18x, 2xx, 4xx-6xx; the final ones again until ACK (§13.3.1.4) |
//! | invited | CANCEL | 200, and 487 to the INVITE; over |
//! | confirmed | re-INVITE, UPDATE | 200 with an answer (or an offer, if it had none); 491 in a glare |
//! | confirmed | order to re-INVITE | one at a time; the old session stands if it is refused |
//! | confirmed | order to refer | REFER; once the far end tells of its success (RFC 3515), BYE |
//! | confirmed | BYE, or an order to hang up | over |
//! | any | the same request again | the same response again |
//!
//! What is over lingers, so that the far end's retransmissions still find it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

use super::media::{Media, Remote};
use super::message::{Message, tag_of, uri_of};
use super::sdp::{Flow, LocalDescription, RemoteDescription};
use super::{CallState, Dial, Ending, PhoneError, Received, Reply, random};

mod orders;
mod requests;
mod responses;

/// RFC 3261 §17.1.1.1: the estimated round trip.
const T1: Duration = Duration::from_millis(500);

/// RFC 3261 §17.1.2.1: the longest interval between retransmissions of a non-INVITE request or a response.
const T2: Duration = Duration::from_secs(4);

/// Timers B, F and H.
const GIVE_UP: Duration = T1.saturating_mul(64);

/// How long an INVITE may ring: Timer C of RFC 3261 §16.6.
const RINGING: Duration = Duration::from_secs(180);

/// How long a call that is over still answers retransmissions.
const LINGER: Duration = Duration::from_secs(5);

/// Responses kept for retransmitted requests; the oldest goes first.
const KEPT_RESPONSES: usize = 16;

/// Orders that wait; the one who gives more waits with them.
const ORDERS: usize = 8;

/// What the telephone's user wants of a call.
#[derive(Debug)]
pub(super) enum Order {
    Progress { status: u16, describe: bool },
    Answer,
    Refuse { status: u16 },
    Reinvite { flow: Flow, handed_to: Option<String> },
    Refer { to: String },
    HangUp,
}

/// The user's ends of a new dialog.
pub(super) struct Line {
    pub(super) id: String,
    pub(super) giver: mpsc::Sender<(Order, Reply)>,
    pub(super) orders: mpsc::Receiver<(Order, Reply)>,
    pub(super) state: watch::Receiver<CallState>,
    pub(super) media: watch::Receiver<Arc<Media>>,
}

pub(super) struct Dialog {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    far: SocketAddr,
    call_id: String,
    /// From or To of this end, with its tag.
    here: String,
    /// From or To of the other end, with its tag once there is one.
    there: String,
    /// The Request-URI within the dialog: the far end's Contact.
    target: String,
    routes: Vec<String>,
    user: String,
    asserted: Option<String>,
    cseq: u32,
    phase: Phase,
    description: LocalDescription,
    /// The description last sent: one that differs gets a new version (RFC 3264 §8).
    described: Option<String>,
    remote: Option<RemoteDescription>,
    media: watch::Sender<Arc<Media>>,
    state: watch::Sender<CallState>,
    requests: Vec<Request>,
    responses: Vec<(String, String, Vec<u8>)>,
    /// The final response to an INVITE that has not been acknowledged.
    unacknowledged: Option<Resend>,
    /// The ACK of the last 2xx, by the INVITE's CSeq, for the 2xx that comes again.
    acknowledgement: Option<(u32, Vec<u8>)>,
    /// The session before a re-INVITE that is not answered yet.
    former: Option<Former>,
    ended_at: Option<Instant>,
}

enum Phase {
    Inviting { invite: Box<Message>, ringing: bool, given_up: Option<Reply>, cancelled: bool },
    Invited(Box<Message>),
    Confirmed,
    Over,
}

/// A request of ours without a final response.
struct Request {
    method: &'static str,
    message: Message,
    resend: Resend,
    reply: Option<Reply>,
}

struct Resend {
    bytes: Vec<u8>,
    interval: Duration,
    /// The longest interval.
    cap: Duration,
    /// `None`: not any more.
    next: Option<Instant>,
    deadline: Instant,
}

struct Former {
    description: LocalDescription,
    user: String,
    asserted: Option<String>,
    /// The new telephone's media, until the far end agrees.
    media: Option<Media>,
}

impl Resend {
    fn new(bytes: Vec<u8>, cap: Duration) -> Self {
        let now = Instant::now();
        Self { bytes, interval: T1, cap, next: Some(now + T1), deadline: now + GIVE_UP }
    }

    fn wake(&self) -> Instant {
        self.next.map_or(self.deadline, |next| next.min(self.deadline))
    }

    /// The bytes, if they are due again.
    fn due(&mut self, now: Instant) -> Option<&[u8]> {
        self.next.filter(|next| *next <= now)?;
        self.interval = self.interval.saturating_mul(2).min(self.cap);
        self.next = Some(now + self.interval);
        Some(&self.bytes)
    }
}

impl Dialog {
    /// A call of our own; its INVITE leaves when it [runs](Self::run).
    pub(super) fn outgoing(
        socket: Arc<UdpSocket>,
        local: SocketAddr,
        dial: Dial,
        from: String,
        media: Media,
    ) -> Result<(Self, Line), PhoneError> {
        let here = format!("<sip:{from}@{}>;tag={}", host(local.ip()), token()?);
        let there = format!("<sip:{}@{}>", dial.to, host(dial.peer.ip()));
        let target = format!("sip:{}@{}", dial.to, dial.peer);
        let invite = Box::new(Message::request("INVITE", &target));
        let call_id = format!("{}@{}", token()?, host(local.ip()));
        let phase = Phase::Inviting { invite, ringing: false, given_up: None, cancelled: false };
        let (mut dialog, line) = Self::new(socket, local, dial.peer, call_id, phase, media)?;
        (dialog.here, dialog.there, dialog.target) = (here, there, target);
        (dialog.user, dialog.asserted) = (from, dial.asserted);
        let mut invite = dialog.request("INVITE")?;
        invite.headers.extend(dial.headers);
        set_body(&mut invite, dialog.describe(None));
        dialog.phase =
            Phase::Inviting { invite: Box::new(invite), ringing: false, given_up: None, cancelled: false };
        Ok((dialog, line))
    }

    /// A call that came in.
    pub(super) fn incoming(
        socket: Arc<UdpSocket>,
        local: SocketAddr,
        user: &str,
        invite: Message,
        from: SocketAddr,
        media: Media,
    ) -> Result<(Self, Line), PhoneError> {
        let header = |name| invite.header(name).unwrap_or_default().to_owned();
        let here = format!("{};tag={}", header("To"), token()?);
        let (there, call_id) = (header("From"), header("Call-ID"));
        let phase = Phase::Invited(Box::new(invite.clone()));
        let (mut dialog, line) = Self::new(socket, local, from, call_id, phase, media)?;
        (dialog.here, dialog.there) = (here, there);
        dialog.user = user.to_owned();
        dialog.remote = RemoteDescription::parse(&invite.body);
        dialog.learn_target(&invite);
        dialog.routes = invite.all("Record-Route").map(str::to_owned).collect();
        Ok((dialog, line))
    }

    fn new(
        socket: Arc<UdpSocket>,
        local: SocketAddr,
        far: SocketAddr,
        call_id: String,
        phase: Phase,
        media: Media,
    ) -> Result<(Self, Line), PhoneError> {
        let description = description_of(&media)?;
        let (giver, orders) = mpsc::channel(ORDERS);
        let (state, state_seen) = watch::channel(CallState::Placed);
        let (media, media_seen) = watch::channel(Arc::new(media));
        let line = Line { id: call_id.clone(), giver, orders, state: state_seen, media: media_seen };
        let dialog = Self {
            socket,
            local,
            far,
            call_id,
            here: String::new(),
            there: String::new(),
            target: String::new(),
            routes: Vec::new(),
            user: String::new(),
            asserted: None,
            cseq: 0,
            phase,
            description,
            described: None,
            remote: None,
            media,
            state,
            requests: Vec::new(),
            responses: Vec::new(),
            unacknowledged: None,
            acknowledgement: None,
            former: None,
            ended_at: None,
        };
        Ok((dialog, line))
    }

    /// The call's life. A telephone that cannot send any more ends it.
    pub(super) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Received>,
        mut orders: mpsc::Receiver<(Order, Reply)>,
    ) {
        if self.begin().await.is_err() {
            return;
        }
        let mut held = true;
        while !self.is_done() {
            let wake = tokio::time::Instant::from_std(self.wake());
            let went = tokio::select! {
                received = messages.recv() => match received {
                    Some((message, from)) => self.on_message(message, from).await,
                    None => return,
                },
                order = orders.recv(), if held => match order {
                    Some((order, reply)) => self.on_order(order, reply).await,
                    None => {
                        held = false;
                        self.on_order(Order::HangUp, oneshot::channel().0).await
                    }
                },
                () = tokio::time::sleep_until(wake) => self.on_timer(Instant::now()).await,
            };
            if went.is_err() {
                return self.end(Ending::Lost);
            }
        }
    }

    async fn begin(&mut self) -> Result<(), PhoneError> {
        match &self.phase {
            Phase::Inviting { invite, .. } => {
                let invite = invite.as_ref().clone();
                self.send_request("INVITE", invite, None).await
            }
            Phase::Invited(invite) => {
                let trying = Message::response_to(invite, 100, "");
                self.remember_and_send(&invite.as_ref().clone(), trying).await
            }
            Phase::Confirmed | Phase::Over => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        let lingered = self.ended_at.is_some_and(|at| at.elapsed() >= LINGER);
        lingered && self.requests.is_empty() && self.unacknowledged.is_none()
    }

    fn wake(&self) -> Instant {
        let requests = self.requests.iter().map(|request| request.resend.wake());
        let response = self.unacknowledged.iter().map(Resend::wake);
        let lingering = self.ended_at.map(|at| at + LINGER);
        requests.chain(response).chain(lingering).min().unwrap_or_else(|| Instant::now() + GIVE_UP)
    }

    async fn on_timer(&mut self, now: Instant) -> Result<(), PhoneError> {
        let (socket, far) = (&self.socket, self.far);
        let resends = self.requests.iter_mut().map(|request| &mut request.resend);
        for resend in resends.chain(self.unacknowledged.as_mut()) {
            if let Some(bytes) = resend.due(now) {
                socket.send_to(bytes, far).await?;
            }
        }
        if self.unacknowledged.as_ref().is_some_and(|resend| resend.deadline <= now) {
            self.unacknowledged = None;
        }
        while let Some(late) = self.requests.iter().position(|request| request.resend.deadline <= now) {
            let request = self.requests.swap_remove(late);
            self.on_final(request, 408, None).await?;
        }
        Ok(())
    }

    async fn on_message(&mut self, message: Message, from: SocketAddr) -> Result<(), PhoneError> {
        self.far = from;
        match message.status() {
            Some(status) => self.on_response(message, status).await,
            None => self.on_request(message).await,
        }
    }
}

/// The dialog's state and the messages made from it.
impl Dialog {
    fn learn_dialog(&mut self, response: &Message) {
        if let Some(to) = response.header("To").filter(|to| tag_of(to).is_some()) {
            self.there = to.to_owned();
        }
        if matches!(self.phase, Phase::Inviting { .. }) {
            self.routes = response.all("Record-Route").map(str::to_owned).collect();
        }
    }

    fn learn_target(&mut self, message: &Message) {
        if let Some(contact) = message.header("Contact") {
            uri_of(contact).clone_into(&mut self.target);
        }
    }

    /// Takes a far end's description, if there is one.
    fn take_description(&mut self, body: &[u8]) {
        if let Some(remote) = RemoteDescription::parse(body) {
            self.remote = Some(remote);
            self.point_media();
        }
    }

    /// This end's description: an offer, or the answer to one.
    fn describe(&mut self, offer: Option<&RemoteDescription>) -> String {
        let write = |description: &LocalDescription| match offer {
            Some(offer) => description.answer(offer),
            None => description.offer(),
        };
        let mut text = write(&self.description);
        if self.described.as_ref().is_some_and(|described| *described != text) {
            self.description.version += 1;
            text = write(&self.description);
        }
        self.described = Some(text.clone());
        text
    }

    fn point_media(&self) {
        let remote = self.remote.as_ref().map(|remote| Remote {
            rtp: remote.rtp,
            sends: self.description.flow.sends() && remote.flow.receives(),
            telephone_event: remote.telephone_event,
        });
        self.media.borrow().set_remote(remote);
    }

    fn end(&mut self, ending: Ending) {
        self.media.borrow().set_remote(None);
        self.phase = Phase::Over;
        if self.ended_at.is_none() {
            self.ended_at = Some(Instant::now());
            self.state.send_replace(CallState::Ended(ending));
        }
    }

    fn contact(&self) -> String {
        format!("<sip:{}@{}>", self.user, self.local)
    }

    fn request(&mut self, method: &'static str) -> Result<Message, PhoneError> {
        self.cseq += 1;
        self.request_with(method, self.cseq)
    }

    fn request_with(&self, method: &'static str, cseq: u32) -> Result<Message, PhoneError> {
        let mut request = Message::request(method, &self.target);
        let via = format!("SIP/2.0/UDP {};branch=z9hG4bK{};rport", self.local, token()?);
        request.push("Via", &via);
        request.push("Max-Forwards", "70");
        for route in &self.routes {
            request.push("Route", route);
        }
        request.push("From", &self.here);
        request.push("To", &self.there);
        request.push("Call-ID", &self.call_id);
        request.push("CSeq", &format!("{cseq} {method}"));
        if method == "INVITE" {
            request.push("Contact", &self.contact());
            request.push("Allow", ALLOW);
            if let Some(user) = &self.asserted {
                let identity = format!("<sip:{user}@{}>", host(self.local.ip()));
                request.push("P-Asserted-Identity", &identity);
            }
        }
        Ok(request)
    }

    async fn send_request(
        &mut self,
        method: &'static str,
        message: Message,
        reply: Option<Reply>,
    ) -> Result<(), PhoneError> {
        let bytes = message.to_bytes();
        self.socket.send_to(&bytes, self.far).await?;
        // Timer A doubles without bound, timer E up to T2.
        let cap = if method == "INVITE" { GIVE_UP } else { T2 };
        self.requests.push(Request { method, message, resend: Resend::new(bytes, cap), reply });
        Ok(())
    }
}

/// What this telephone takes.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO";

fn description_of(media: &Media) -> Result<LocalDescription, PhoneError> {
    let session = u64::from(u32::from_be_bytes(random()?));
    Ok(LocalDescription { session, version: 1, rtp: media.local(), flow: Flow::SendRecv })
}

fn set_body(message: &mut Message, description: String) {
    message.push("Content-Type", "application/sdp");
    message.body = description.into_bytes();
}

fn key_of(request: &Message) -> (String, String) {
    let branch = request.branch().unwrap_or_default().to_owned();
    (branch, request.method().unwrap_or_default().to_owned())
}

fn outcome_of(status: u16, answered: bool) -> Result<(), PhoneError> {
    match (status, answered) {
        (200..300, _) => Ok(()),
        (_, true) => Err(PhoneError::Refused { status }),
        (_, false) => Err(PhoneError::TimedOut),
    }
}

/// Tells the outcome; who no longer waits does not want it.
fn answer(reply: Option<Reply>, outcome: Result<(), PhoneError>) {
    if let Some(reply) = reply {
        let _ = reply.send(outcome);
    }
}

/// A host part: IPv6 in brackets.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn token() -> Result<String, PhoneError> {
    Ok(format!("{:016x}", u64::from_be_bytes(random()?)))
}
