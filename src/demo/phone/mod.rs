//! A small real telephone: SIP over UDP (RFC 3261), G.711 µ-law over RTP with telephone events.
//!
//! It calls, is called, sends early media, speaks, presses keys, hears, holds, transfers its call, hands it
//! to another telephone behind the same address, and hangs up; it retransmits and absorbs retransmissions as RFC 3261
//! §17 says. One [`Phone`] carries many calls at once, as a PBX or a carrier does. It is a peer for the
//! demonstration, the black-box tests and the bench, and shares no code with the gateway. Leaves out
//! registration, authentication, TCP, PRACK on its own account, forking, and every codec but µ-law.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use dialog::{Dialog, Order};
use media::Media;
use message::{MAX_MESSAGE_BYTES, Message, tag_of, uri_of, user_of};

pub use heard::{Heard, HeardPacket};
pub use media::{Sent, Spoken};
pub use sdp::Flow;

mod dialog;
mod heard;
mod media;
mod message;
mod sdp;

/// Calls that ring here before anybody asks for them; further ones are busy (486).
const WAITING_CALLS: usize = 64;

/// Messages that wait for a call's task; further ones are lost, as datagrams are, and sent again.
const WAITING_MESSAGES: usize = 64;

/// Above this many calls those that are over are forgotten.
const CALLS_BEFORE_SWEEP: usize = 256;

/// What can go wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// An address cannot be used.
    #[error("cannot bind {address}")]
    Bind {
        /// Which.
        address: IpAddr,
        /// Why.
        source: std::io::Error,
    },
    /// No pair of ports is free.
    #[error("no even port with a free odd one after it at {address}")]
    NoPorts {
        /// Where.
        address: IpAddr,
    },
    /// The system gives no random numbers.
    #[error("no random numbers from the system")]
    Random(#[from] getrandom::Error),
    /// A message could not be sent.
    #[error("cannot send")]
    Send(#[from] std::io::Error),
    /// The far end said no.
    #[error("refused with status {status}")]
    Refused {
        /// The SIP status.
        status: u16,
    },
    /// No answer within RFC 3261's time.
    #[error("no answer in time")]
    TimedOut,
    /// The far end offers nothing that this telephone can do.
    #[error("no G.711 µ-law in the far end's description")]
    NoCommonCodec,
    /// The call or the telephone is over, or the order does not fit the call's state.
    #[error("the call is over, or not in a state for that")]
    Over,
    /// No telephone has that key.
    #[error("{digit:?} is not a telephone key")]
    NotAKey {
        /// The character.
        digit: char,
    },
}

/// How a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// The INVITE is out, or came in and is not answered.
    Placed,
    /// A provisional answer came (or went out).
    Ringing {
        /// 180, 183, …
        status: u16,
    },
    /// Both can talk.
    Answered,
    /// Over.
    Ended(Ending),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This telephone hung up.
    Here,
    /// The far end hung up.
    There,
    /// The caller gave up before an answer.
    Cancelled,
    /// The callee refused.
    Refused {
        /// With which status.
        status: u16,
    },
    /// Nobody answered in time, or the telephone is gone.
    Lost,
}

/// A call to place.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where the INVITE goes.
    pub peer: SocketAddr,
    /// The user part to call.
    pub to: String,
    /// Who calls (From), if not the telephone's own user.
    pub from: Option<String>,
    /// The user part of P-Asserted-Identity, if one is sent.
    pub asserted: Option<String>,
    /// Further headers, sent as they are.
    pub headers: Vec<(String, String)>,
}

/// Who calls whom, as an INVITE says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The user part of the Request-URI.
    pub called: String,
    /// The user part of From.
    pub from: String,
    /// The user part of P-Asserted-Identity, if there is one.
    pub asserted: Option<String>,
    /// All headers, names in full.
    pub headers: Vec<(String, String)>,
}

/// A telephone at one address. Its calls end with it.
#[derive(Debug)]
pub struct Phone {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    user: String,
    registrations: mpsc::Sender<Registration>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Call>>,
    task: JoinHandle<()>,
}

/// One call. Dropping it hangs up.
#[derive(Debug)]
pub struct Call {
    id: String,
    invitation: Invitation,
    orders: mpsc::Sender<(Order, Reply)>,
    state: watch::Receiver<CallState>,
    media: watch::Receiver<Arc<Media>>,
}

/// Where the outcome of an order goes.
type Reply = oneshot::Sender<Result<(), PhoneError>>;

/// A call of our own that wants its answers.
type Registration = (String, mpsc::Sender<Received>, oneshot::Sender<()>);

/// A message with the address it came from.
type Received = (Message, SocketAddr);

impl Dial {
    /// A plain call.
    #[must_use]
    pub fn new(peer: SocketAddr, to: &str) -> Self {
        Self { peer, to: to.to_owned(), from: None, asserted: None, headers: Vec::new() }
    }

    /// The same, from somebody else.
    #[must_use]
    pub fn from(mut self, user: &str) -> Self {
        self.from = Some(user.to_owned());
        self
    }
}

impl Phone {
    /// Binds a UDP address (port 0: any free one) under a user name or number.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn bind(listen: SocketAddr, user: &str) -> Result<Self, PhoneError> {
        let failed = |source| PhoneError::Bind { address: listen.ip(), source };
        let socket = Arc::new(UdpSocket::bind(listen).await.map_err(failed)?);
        let local = socket.local_addr().map_err(failed)?;
        let (registrations, registered) = mpsc::channel(1);
        let (arrivals, incoming) = mpsc::channel(WAITING_CALLS);
        let exchange = Exchange {
            socket: Arc::clone(&socket),
            local,
            user: user.to_owned(),
            registered,
            arrivals,
            calls: HashMap::new(),
        };
        let task = tokio::spawn(exchange.run());
        let incoming = tokio::sync::Mutex::new(incoming);
        Ok(Self { socket, local, user: user.to_owned(), registrations, incoming, task })
    }

    /// Its signalling address.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Calls `to` at `peer`; returns when the INVITE is out.
    ///
    /// # Errors
    /// No port is free, or the telephone is over.
    pub async fn call(&self, peer: SocketAddr, to: &str) -> Result<Call, PhoneError> {
        self.dial(Dial::new(peer, to)).await
    }

    /// Places a call with more said about it; returns when the INVITE is out.
    ///
    /// # Errors
    /// As [`Phone::call`].
    pub async fn dial(&self, dial: Dial) -> Result<Call, PhoneError> {
        let from = dial.from.clone().unwrap_or_else(|| self.user.clone());
        let invitation = Invitation {
            called: dial.to.clone(),
            from: from.clone(),
            asserted: dial.asserted.clone(),
            headers: dial.headers.clone(),
        };
        let media = Media::bind(self.local.ip(), random()?).await?;
        let (dialog, line) = Dialog::outgoing(Arc::clone(&self.socket), self.local, dial, from, media)?;
        let (inbox, messages) = mpsc::channel(WAITING_MESSAGES);
        let (done, registered) = oneshot::channel();
        self.registrations.send((line.id.clone(), inbox, done)).await.map_err(|_| PhoneError::Over)?;
        registered.await.map_err(|_| PhoneError::Over)?;
        tokio::spawn(dialog.run(messages, line.orders));
        Ok(Call { id: line.id, invitation, orders: line.giver, state: line.state, media: line.media })
    }

    /// The next call that comes in. Nothing but 100 has been answered to it.
    ///
    /// # Errors
    /// The telephone is over.
    pub async fn await_call(&self) -> Result<Call, PhoneError> {
        self.incoming.lock().await.recv().await.ok_or(PhoneError::Over)
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Call {
    /// Its SIP Call-ID at this telephone.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who calls whom.
    #[must_use]
    pub const fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// How it stands now.
    #[must_use]
    pub fn state(&self) -> CallState {
        *self.state.borrow()
    }

    /// Lets it ring (180), without media.
    ///
    /// # Errors
    /// It is not an unanswered incoming call.
    pub async fn ring(&self) -> Result<(), PhoneError> {
        self.order(Order::Progress { status: 180, describe: false }).await
    }

    /// Sends early media (183 with a description): from now on this telephone is heard.
    ///
    /// # Errors
    /// As [`Call::ring`], or nothing in common with the caller.
    pub async fn early_media(&self) -> Result<(), PhoneError> {
        self.order(Order::Progress { status: 183, describe: true }).await
    }

    /// Answers it.
    ///
    /// # Errors
    /// As [`Call::early_media`].
    pub async fn answer(&self) -> Result<(), PhoneError> {
        self.order(Order::Answer).await
    }

    /// Refuses it with a failure status (486, 603, …).
    ///
    /// # Errors
    /// It is not an unanswered incoming call.
    pub async fn refuse(&self, status: u16) -> Result<(), PhoneError> {
        self.order(Order::Refuse { status }).await
    }

    /// Puts the far end on hold (`a=sendonly`), by a re-INVITE.
    ///
    /// # Errors
    /// The far end refused it, or there is no answered call.
    pub async fn hold(&self) -> Result<(), PhoneError> {
        self.order(Order::Reinvite { flow: Flow::SendOnly, handed_to: None }).await
    }

    /// Takes the far end off hold.
    ///
    /// # Errors
    /// As [`Call::hold`].
    pub async fn resume(&self) -> Result<(), PhoneError> {
        self.order(Order::Reinvite { flow: Flow::SendRecv, handed_to: None }).await
    }

    /// Hands the call to another telephone behind the same address, as a PBX does after a transfer: a
    /// re-INVITE with that user in P-Asserted-Identity and Contact, and a session of its own (`o=`, port,
    /// SSRC). From then on the call speaks and hears with the new telephone.
    ///
    /// # Errors
    /// As [`Call::hold`]; the call then stays where it was.
    pub async fn hand_to(&self, user: &str) -> Result<(), PhoneError> {
        self.order(Order::Reinvite { flow: Flow::SendRecv, handed_to: Some(user.to_owned()) }).await
    }

    /// Asks the far end to call `user` at this telephone's address instead (RFC 3515); returns when it has
    /// agreed to try. This call is over once it has succeeded.
    ///
    /// # Errors
    /// As [`Call::hold`]; the call then stays where it was.
    pub async fn refer(&self, user: &str) -> Result<(), PhoneError> {
        self.order(Order::Refer { to: user.to_owned() }).await
    }

    /// Hangs up: BYE, CANCEL or a refusal, whichever applies; returns when the far end knows.
    ///
    /// # Errors
    /// The far end did not confirm it, or the call was over.
    pub async fn hang_up(&self) -> Result<(), PhoneError> {
        self.order(Order::HangUp).await
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// The call ended without one.
    pub async fn until_answered(&self) -> Result<(), PhoneError> {
        let settled = |state: &CallState| matches!(state, CallState::Answered | CallState::Ended(_));
        match self.until(settled).await {
            CallState::Ended(Ending::Refused { status }) => Err(PhoneError::Refused { status }),
            CallState::Ended(Ending::Lost) => Err(PhoneError::TimedOut),
            CallState::Ended(_) => Err(PhoneError::Over),
            _ => Ok(()),
        }
    }

    /// Waits for the end.
    pub async fn until_ended(&self) -> Ending {
        match self.until(|state| matches!(state, CallState::Ended(_))).await {
            CallState::Ended(ending) => ending,
            _ => Ending::Lost,
        }
    }

    /// Waits until the state is one that is wanted; a telephone that is gone counts as [`Ending::Lost`].
    pub async fn until(&self, wanted: impl FnMut(&CallState) -> bool) -> CallState {
        let mut state = self.state.clone();
        let found = state.wait_for(wanted).await.map(|state| *state);
        found.unwrap_or(CallState::Ended(Ending::Lost))
    }

    /// Speaks µ-law samples (8 kHz), after what is already being said; returns when the last has left.
    /// Nothing leaves before the far end's address is known or while it wants nothing.
    ///
    /// # Errors
    /// The call ended before.
    pub async fn speak(&self, samples: &[u8]) -> Result<Spoken, PhoneError> {
        let media = self.media();
        tokio::select! {
            spoken = media.speak(samples) => spoken,
            _ = self.until_ended() => Err(PhoneError::Over),
        }
    }

    /// Presses a key, as a telephone event of 100 ms; returns when it is over.
    ///
    /// # Errors
    /// Not a key, or the call ended before.
    pub async fn press(&self, digit: char) -> Result<(), PhoneError> {
        let media = self.media();
        tokio::select! {
            pressed = media.press(digit) => pressed,
            _ = self.until_ended() => Err(PhoneError::Over),
        }
    }

    /// Waits until somebody has spoken to this telephone for 300 ms from now on and has then been quiet
    /// for `quiet`, as a person does who lets an announcement finish.
    ///
    /// # Errors
    /// The call ended before.
    pub async fn until_quiet(&self, quiet: Duration) -> Result<(), PhoneError> {
        let media = self.media();
        tokio::select! {
            () = quiet_after_speech(&media, quiet) => Ok(()),
            _ = self.until_ended() => Err(PhoneError::Over),
        }
    }

    /// What was heard so far (by the present telephone, if the call was handed on).
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.media().heard()
    }

    /// What was sent so far; `None` before the first packet.
    #[must_use]
    pub fn sent(&self) -> Option<Sent> {
        self.media().sent()
    }

    /// The RTP address of this telephone.
    #[must_use]
    pub fn media_address(&self) -> SocketAddr {
        self.media().local()
    }

    fn media(&self) -> Arc<Media> {
        Arc::clone(&self.media.borrow())
    }

    async fn order(&self, order: Order) -> Result<(), PhoneError> {
        let (reply, outcome) = oneshot::channel();
        self.orders.send((order, reply)).await.map_err(|_| PhoneError::Over)?;
        outcome.await.map_err(|_| PhoneError::Over)?
    }
}

/// Fresh random bytes, for tags, branches and RTP's beginnings.
fn random<const N: usize>() -> Result<[u8; N], PhoneError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

async fn quiet_after_speech(media: &Media, quiet: Duration) {
    const SPEECH_MS: u32 = 300;
    let mut activity = media.activity();
    let before = activity.borrow_and_update().loud_ms;
    loop {
        let seen = *activity.borrow_and_update();
        let wait = match seen.last_loud {
            Some(last) if seen.loud_ms.saturating_sub(before) >= SPEECH_MS => {
                quiet.saturating_sub(last.elapsed())
            }
            _ => Duration::MAX,
        };
        if wait.is_zero() {
            return;
        }
        // Whichever comes first, the new state is looked at; a dropped sender ends the call elsewhere.
        let _ = tokio::time::timeout(wait.min(Duration::from_secs(1)), activity.changed()).await;
    }
}

/// The task that owns the telephone's socket and hands each message to its call.
struct Exchange {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    user: String,
    registered: mpsc::Receiver<Registration>,
    arrivals: mpsc::Sender<Call>,
    calls: HashMap<String, mpsc::Sender<Received>>,
}

impl Exchange {
    async fn run(mut self) {
        let mut datagram = vec![0; MAX_MESSAGE_BYTES];
        loop {
            tokio::select! {
                registration = self.registered.recv() => {
                    let Some((id, inbox, done)) = registration else { return };
                    self.remember(id, inbox);
                    // A caller that gave up meanwhile needs no word.
                    let _ = done.send(());
                }
                received = self.socket.recv_from(&mut datagram) => {
                    let Ok((length, from)) = received else { continue };
                    let Some(message) = Message::parse(datagram.get(..length).unwrap_or_default()) else { continue };
                    self.take(message, from).await;
                }
            }
        }
    }

    fn remember(&mut self, id: String, inbox: mpsc::Sender<Received>) {
        if self.calls.len() >= CALLS_BEFORE_SWEEP {
            self.calls.retain(|_, inbox| !inbox.is_closed());
        }
        self.calls.insert(id, inbox);
    }

    async fn take(&mut self, message: Message, from: SocketAddr) {
        if let Some(inbox) = self.calls.get(message.call_id()).filter(|inbox| !inbox.is_closed()) {
            // A full inbox loses the datagram, as a network would.
            let _ = inbox.try_send((message, from));
            return;
        }
        let fresh = message.header("To").and_then(tag_of).is_none();
        match message.method() {
            Some("INVITE") if fresh => self.accept(message, from).await,
            Some("OPTIONS") if fresh => self.reply(&message, 200, from).await,
            None | Some("ACK") => {}
            Some(_) => self.reply(&message, 481, from).await,
        }
    }

    async fn accept(&mut self, invite: Message, from: SocketAddr) {
        let Ok(place) = self.arrivals.clone().try_reserve_owned() else {
            return self.reply(&invite, 486, from).await;
        };
        let seed = random();
        let media = match seed {
            Ok(seed) => Media::bind(self.local.ip(), seed).await,
            Err(error) => Err(error),
        };
        let invitation = Invitation::of(&invite);
        let socket = Arc::clone(&self.socket);
        let made = media
            .and_then(|media| Dialog::incoming(socket, self.local, &self.user, invite.clone(), from, media));
        let Ok((dialog, line)) = made else {
            return self.reply(&invite, 503, from).await;
        };
        let (inbox, messages) = mpsc::channel(WAITING_MESSAGES);
        self.remember(line.id.clone(), inbox);
        tokio::spawn(dialog.run(messages, line.orders));
        let call = Call { id: line.id, invitation, orders: line.giver, state: line.state, media: line.media };
        drop(place.send(call));
    }

    async fn reply(&self, request: &Message, status: u16, to: SocketAddr) {
        let response = Message::response_to(request, status, "stray").to_bytes();
        // A lost response is asked for again.
        let _ = self.socket.send_to(&response, to).await;
    }
}

impl Invitation {
    fn of(invite: &Message) -> Self {
        let user = |value| user_of(uri_of(value)).to_owned();
        Self {
            called: user_of(invite.request_uri().unwrap_or_default()).to_owned(),
            from: invite.header("From").map(user).unwrap_or_default(),
            asserted: invite.header("P-Asserted-Identity").map(user),
            headers: invite.headers.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
