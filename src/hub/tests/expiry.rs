//! The core and the hub together, on virtual time: a session that nobody refreshes ends the call (RFC 4028
//! §10), and what is then read back is what `earmark calls show --json` and `earmark explain --json` print.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sip_gateway::locate::Place;
use sip_gateway::{
    Config, Core, Input, Limits, Listener, ListenerId, Output as Wire, Peer, Redirects, Routes, SessionTimer,
    Transport,
};
use storage::journal::{JournalId, JournalPosition};
use storage::{Stamped, Store};

use super::*;

const GATEWAY: &str = "10.0.0.1:5060";
const PBX: &str = "10.1.0.10:5060";
const CARRIER: &str = "10.2.0.20:5060";

fn config() -> Config {
    let peer = |name: &str, side, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        Peer {
            name: name.to_owned(),
            side,
            place: Place::at(Transport::Udp, address),
            allow: vec![(address.ip(), 32)],
            ping_s: None,
            parties_signalled: true,
            preference_trusted: false,
            may_refer: false,
            trusts_identity: false,
            redirects: Redirects::Refuse,
            certificate: None,
            account: None,
            allowance: sip_gateway::Allowance::default(),
        }
    };
    Config {
        listeners: vec![Listener { transport: Transport::Udp, address: GATEWAY.parse().unwrap() }],
        peers: vec![peer("pbx", Side::District, PBX), peer("carrier", Side::Public, CARRIER)],
        routes: Routes::default(),
        emergency: Vec::new(),
        limits: Limits {
            max_calls: 10,
            max_message_bytes: 65_535,
            max_headers: 100,
            max_streams: 1,
            requests_per_s: None,
        },
        session_timer: SessionTimer::default(),
    }
}

/// The two, and a media plane that does what it is told.
struct Gateway {
    core: Core,
    hub: Hub,
    now: Now,
    journal: Vec<Stamped>,
    sent: Vec<(SocketAddr, String)>,
    /// When the media plane was told that the call is over.
    recorder_ended: Option<Now>,
}

impl Gateway {
    fn new() -> Self {
        let hub = hub();
        let rules = Arc::clone(&hub.rules);
        let core =
            Core::new(Arc::new(config()), [7; 32], move |offer| super::super::is_dispatch(offer, &rules));
        let now = at(0);
        Self { core, hub, now, journal: Vec::new(), sent: Vec::new(), recorder_ended: None }
    }

    fn receive(&mut self, from: &str, text: &str) {
        let bytes = text.as_bytes().to_vec().into();
        let from = from.parse().unwrap();
        self.core.on_input(self.now, Input::Datagram { listener: ListenerId(0), from, bytes });
        self.settle();
    }

    fn advance(&mut self, ms: u64) {
        let end = self.now.mono.plus_ms(ms);
        let due = |gateway: &Self| {
            let next = gateway.core.poll_timeout().into_iter().chain(gateway.hub.poll_timeout()).min();
            next.filter(|due| *due <= end)
        };
        while let Some(due) = due(self) {
            self.now = at(due.max(self.now.mono).0.div_ceil(1_000));
            self.core.on_timeout(self.now);
            self.hub.on_timeout(self.now);
            self.settle();
        }
        self.now = at(end.0 / 1_000);
    }

    fn settle(&mut self) {
        loop {
            if let Some(output) = self.core.poll_output() {
                match output {
                    Wire::Event(event) => self.hub.on_gateway(self.now, event),
                    Wire::Datagram { to, bytes, .. } => {
                        self.sent.push((to, String::from_utf8_lossy(&bytes).into_owned()));
                    }
                    _ => {}
                }
            } else if let Some(output) = self.hub.poll_output() {
                self.perform(output);
            } else {
                return;
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Gateway(command) => self.core.on_command(self.now, command),
            Output::Journal { stamped, awaited_by } => {
                self.journal.push(stamped);
                if let Some(call) = awaited_by {
                    self.hub.on_journalled(self.now, call);
                }
            }
            Output::Media(Media::Bind { call, .. }) => {
                let pair = ["10.0.0.1:20000".parse().unwrap(), "10.0.0.1:20002".parse().unwrap()];
                self.hub.on_media(self.now, recorder::Event::Bound { call, addresses: vec![pair] });
            }
            Output::Media(Media::End { call }) => {
                self.recorder_ended = Some(self.now);
                let legs = Default::default();
                self.hub.on_media(self.now, recorder::Event::Statistics { call, legs });
            }
            Output::Media(_) | Output::BeginRecording { .. } | Output::Store { .. } => {}
        }
    }

    /// The last message to this address.
    fn last(&self, to: &str) -> &str {
        let to: SocketAddr = to.parse().unwrap();
        &self.sent.iter().rev().find(|(address, _)| *address == to).unwrap().1
    }
}

fn described(address: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    )
}

fn message(head: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{head}{kind}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn invite() -> String {
    let head = format!(
        "INVITE sip:7427331@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {CARRIER};branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
         From: <sip:+18605550123@10.2.0.20>;tag=a\r\nTo: <sip:7427331@10.0.0.1>\r\nCall-ID: expiry\r\n\
         CSeq: 1 INVITE\r\nContact: <sip:+18605550123@{CARRIER}>\r\n"
    );
    message(&head, &described("10.2.0.99"))
}

/// The PBX answers, and would refresh the session each 90 s.
fn answer(invite: &str) -> String {
    let fields = ["Via", "From", "To", "Call-ID", "CSeq"];
    let copied = invite.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    let copied: String = copied
        .map(|line| if line.starts_with("To") { format!("{line};tag=b\r\n") } else { format!("{line}\r\n") })
        .collect();
    let head = format!(
        "SIP/2.0 200 OK\r\n{copied}Contact: <sip:phone@{PBX}>\r\nSession-Expires: 90;refresher=uas\r\n"
    );
    message(&head, &described("10.1.0.99"))
}

fn ack(ok: &str) -> String {
    let to = ok.lines().find(|line| line.starts_with("To")).unwrap();
    let head = format!(
        "ACK sip:10.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {CARRIER};branch=z9hG4bK2\r\nMax-Forwards: 70\r\n\
         From: <sip:+18605550123@10.2.0.20>;tag=a\r\n{to}\r\nCall-ID: expiry\r\nCSeq: 1 ACK\r\n"
    );
    message(&head, "")
}

/// The call's record and its explanation, as the commands print them.
async fn read_back(journal: &[Stamped]) -> (Value, Value) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite:{}", folder.path().join("earmark.db").display())).await.unwrap();
    let numbered: Vec<_> = (1..)
        .zip(journal.iter().cloned())
        .map(|(seq, stamped)| (JournalPosition { journal: JournalId(1), seq }, stamped))
        .collect();
    store.deliver(&numbered).await.unwrap();
    let Entry::CallStarted(started) = &journal[0].entry else { panic!("{:?}", journal[0]) };
    let call = store.call(started.call).await.unwrap().unwrap();
    let explained = store.explain(started.call).await.unwrap().unwrap();
    (serde_json::to_value(call).unwrap(), serde_json::to_value(explained).unwrap())
}

#[tokio::test]
async fn session_expiry() {
    let mut gateway = Gateway::new();
    gateway.receive(CARRIER, &invite());
    gateway.advance(1_000);
    let sent = gateway.last(PBX).to_owned();
    assert!(sent.starts_with("INVITE "), "{sent}");
    gateway.receive(PBX, &answer(&sent));
    let ok = gateway.last(CARRIER).to_owned();
    assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
    gateway.receive(CARRIER, &ack(&ok));
    let answered = gateway.now;

    // RFC 4028 §10: 90 s less a third.
    gateway.advance(59_999);
    assert_eq!(gateway.recorder_ended, None);
    gateway.advance(1);
    let ended = gateway.now;
    assert_eq!(ended.mono.since_us(answered.mono), 60_000_000);
    assert_eq!(gateway.recorder_ended, Some(ended), "and with the call its recording");
    for peer in [PBX, CARRIER] {
        assert!(gateway.last(peer).starts_with("BYE "), "{}", gateway.last(peer));
    }
    gateway.advance(60_000);

    let (call, explained) = read_back(&gateway.journal).await;
    let time = |now: Now| Value::from(storage::Utc::from(now.wall.0).to_string());
    assert_eq!(call["end_cause"], "session-expired");
    assert_eq!((&call["ended_by"], &call["outcome"]), (&json!("gateway"), &json!("answered")));
    let parties = call["parties"].as_array().unwrap();
    let who: Vec<_> = parties.iter().map(|party| (&party["role"], &party["identity"])).collect();
    assert_eq!(who, [(&json!("caller"), &json!("+18605550123")), (&json!("callee"), &json!(DISPATCH))]);
    assert!(parties.iter().all(|party| party["left_at"] == time(ended)), "{parties:?}");
    let decisions = explained["decisions"].as_array().unwrap();
    let gate: Vec<_> = decisions.iter().map(|decision| (&decision["gate"], &decision["reason"])).collect();
    let (open, shut) = (json!("open"), json!("shut"));
    assert_eq!(gate, [(&open, &json!("dispatch-line")), (&shut, &json!("ended"))]);
    assert_eq!(decisions[1]["at"], time(ended));
    let intervals = explained["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), 1);
    assert_eq!(intervals[0]["shut_at"], time(ended));
}
