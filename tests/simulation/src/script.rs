//! Draws what happens in a seed: which calls, on which lines, and what people do on them.

use std::sync::Arc;

use consent::{
    Ask, E164, Leg, Line, LineClass, NumberClass, Numbering, RetentionTag, RuleError, RuleSet, RuleVersion,
    Settings, Side,
};
use sip_gateway::locate::Place;
use sip_gateway::{Config, Limits, Listener, Peer, Redirects, Routes, Transport};

use crate::clock::{MS, SECOND, Time};
use crate::network::{CARRIER, GATEWAY, PBX, address};
use crate::phone::{Act, Party, Phone};
use crate::random::Random;
use crate::reference::Ground;
use crate::sound::VOICES;

const DISPATCH: &str = "+18607427331";
const OFFICE: &str = "+18607427310";
const NEVER: &str = "+18607427320";
const UNION_LINE: &str = "+18607427325";
const UNLISTED: &str = "+18607427399";
pub(crate) const UNION_NUMBER: &str = "+18605550199";
const ATTORNEY: &str = "+18605550198";

/// The district's rules in the simulation: short waits, so that calls are short.
///
/// # Errors
/// None, unless the rules of rules change.
pub(crate) fn rules() -> Result<Arc<RuleSet>, Box<dyn std::error::Error>> {
    let line = |number: &str, class| -> Result<Line, Box<dyn std::error::Error>> {
        Ok(Line {
            number: number.parse::<E164>()?,
            name: number.to_owned(),
            class,
            ask: Ask::EveryCall,
            retention: RetentionTag::try_from("RT-SIM".to_owned())?,
            aliases: Vec::new(),
            tone: None,
        })
    };
    let lines = vec![
        line(DISPATCH, LineClass::Dispatch)?,
        line(OFFICE, LineClass::Consent)?,
        line(NEVER, LineClass::Never)?,
        line(UNION_LINE, LineClass::Union)?,
    ];
    let numbers =
        vec![(UNION_NUMBER.parse()?, NumberClass::Union), (ATTORNEY.parse()?, NumberClass::Privileged)];
    let settings = Settings { answer_timeout_ms: 1_500, attempts: 2, ..Settings::default() };
    let rules: Result<RuleSet, RuleError> =
        RuleSet::new(RuleVersion(1), Numbering::new("1", "860", "9")?, lines, numbers, settings);
    Ok(Arc::new(rules?))
}

/// Who may talk to the gateway.
pub(crate) fn config(signalled: [bool; 2], trusted: [bool; 2]) -> Config {
    let peer =
        |name: &str, side, address: std::net::SocketAddr, (parties_signalled, preference_trusted)| Peer {
            name: name.to_owned(),
            side,
            place: Place::at(Transport::Udp, address),
            allow: vec![(address.ip(), 32)],
            ping_s: None,
            parties_signalled,
            preference_trusted,
            may_refer: true,
            trusts_identity: side == Side::District,
            redirects: Redirects::Follow,
            certificate: None,
            account: None,
            allowance: sip_gateway::Allowance::default(),
        };
    Config {
        listeners: vec![Listener { transport: Transport::Udp, address: GATEWAY }],
        peers: vec![
            peer("pbx", Side::District, PBX, (signalled[0], trusted[0])),
            peer("carrier", Side::Public, CARRIER, (signalled[1], trusted[1])),
        ],
        routes: Routes::default(),
        emergency: Vec::new(),
        limits: Limits {
            max_calls: 100,
            max_message_bytes: 65_535,
            max_headers: 200,
            max_streams: 10,
            requests_per_s: None,
        },
        session_timer: sip_gateway::SessionTimer::default(),
    }
}

/// A call as it was drawn.
pub(crate) struct Plan {
    /// Caller, callee, and perhaps whom one of them transfers the call to.
    pub(crate) phones: Vec<Phone>,
    pub(crate) ground: Ground,
    pub(crate) emergency: bool,
    /// At which leg a transfer takes a dispatch call off its line.
    pub(crate) line_leg: Leg,
    /// What the callee means to answer.
    pub(crate) answers: Option<u16>,
    pub(crate) cancels: bool,
    pub(crate) what: &'static str,
}

/// A kind of call: who calls whom, between which peers, and on what ground it may be stored.
#[derive(Clone, Copy)]
struct Kind {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    peers: [std::net::SocketAddr; 2],
    ground: Ground,
    line_leg: Leg,
    weight: u64,
}

const fn kind(
    what: &'static str,
    from: &'static str,
    to: &'static str,
    peers: [std::net::SocketAddr; 2],
    ground: Ground,
    line_leg: Leg,
    weight: u64,
) -> Kind {
    Kind { what, from, to, peers, ground, line_leg, weight }
}

const IN: [std::net::SocketAddr; 2] = [CARRIER, PBX];
const OUT: [std::net::SocketAddr; 2] = [PBX, CARRIER];
const INSIDE: [std::net::SocketAddr; 2] = [PBX, PBX];
const STRANGER: &str = "+12125550100";

const KINDS: [Kind; 14] = [
    kind("consent inbound", STRANGER, OFFICE, IN, Ground::Consent, Leg::B, 28),
    kind("consent outbound", OFFICE, STRANGER, OUT, Ground::Consent, Leg::A, 12),
    kind("consent internal", UNLISTED, OFFICE, INSIDE, Ground::Consent, Leg::B, 10),
    kind("dispatch inbound", STRANGER, DISPATCH, IN, Ground::Dispatch, Leg::B, 16),
    kind("dispatch outbound", DISPATCH, STRANGER, OUT, Ground::Dispatch, Leg::A, 6),
    kind("dispatch with a union number", UNION_NUMBER, DISPATCH, IN, Ground::Dispatch, Leg::B, 3),
    kind("never inbound", STRANGER, NEVER, IN, Ground::Nothing, Leg::B, 4),
    kind("never internal", OFFICE, NEVER, INSIDE, Ground::Nothing, Leg::B, 3),
    kind("union line", STRANGER, UNION_LINE, IN, Ground::Nothing, Leg::B, 4),
    kind("union number", UNION_NUMBER, OFFICE, IN, Ground::Nothing, Leg::B, 3),
    kind("attorney", OFFICE, ATTORNEY, OUT, Ground::Nothing, Leg::A, 3),
    kind("unlisted", STRANGER, UNLISTED, IN, Ground::Nothing, Leg::B, 3),
    kind("emergency", OFFICE, "911", OUT, Ground::Nothing, Leg::A, 3),
    kind("emergency from outside dialling", UNLISTED, "9911", OUT, Ground::Nothing, Leg::A, 2),
];

fn draw_kind(random: &mut Random) -> Kind {
    let total: u64 = KINDS.iter().map(|kind| kind.weight).sum();
    let mut point = random.between(0, total - 1);
    for kind in KINDS {
        if point < kind.weight {
            return kind;
        }
        point -= kind.weight;
    }
    KINDS[0]
}

/// Draws call number `index`.
pub(crate) fn draw(random: &mut Random, index: usize, signalled: [bool; 2], trusted: [bool; 2]) -> Plan {
    let kind = draw_kind(random);
    let hidden = kind.peers.iter().any(|peer| !signalled[usize::from(*peer == CARRIER)]);
    let ground = if kind.ground == Ground::Consent && hidden { Ground::Nothing } else { kind.ground };
    let party = |leg: usize, n: usize, number: &str| Party {
        number: number.to_owned(),
        media: address([10, 1, index as u8, (leg * 10 + n) as u8], 4_000),
        ssrc: 0x1000_0000 + (index * 100 + leg * 10 + n) as u32,
        hz: VOICES[(index * 4 + leg * 2 + n) % VOICES.len()],
    };
    // A dispatch call is recorded with a union number too, whoever was there before.
    let union = kind.ground == Ground::Dispatch && kind.from != UNION_NUMBER && random.apart().per_mille(300);
    let parties = |leg: usize, first: &str| {
        let later = match leg {
            _ if union => UNION_NUMBER,
            0 => "+12125550177",
            _ => "+18607427388",
        };
        // Who takes over on the same address has that address; the phone speaks from it.
        vec![party(leg, 0, first), party(leg, 1, later)]
    };
    let callee_number = kind.to.trim_start_matches('+');
    let mut caller = Phone::new(Leg::A, kind.peers[0], index, parties(0, kind.from), kind.to, random.split());
    let mut callee = Phone::new(Leg::B, kind.peers[1], index, parties(1, callee_number), "", random.split());
    caller.at(random.between(0, 3 * SECOND), Act::Dial);
    let emergency = kind.what.starts_with("emergency");
    let (answers, cancels) = answer(random, &mut caller, &mut callee, emergency);
    // Drawn apart, so that what a seed meant before there were transfers it means still.
    let mut apart = random.apart();
    if answers == Some(200) {
        talk(random, [&mut caller, &mut callee], kind.ground);
    }
    let mut phones = vec![caller, callee];
    let mut wishes = apart.split();
    for phone in &mut phones {
        phone.is_trusted = trusted[usize::from(phone.peer == CARRIER)];
        wish(&mut wishes, phone, answers == Some(200));
    }
    if answers == Some(200) && apart.per_mille(250) {
        let leg = apart.pick(&Leg::BOTH);
        let first = if leg == Leg::A { kind.from } else { callee_number };
        let people = parties(leg.index(), first);
        let newcomer = Phone::newcomer(leg, kind.peers[leg.index()], index, people, apart.split());
        refer(&mut apart, &mut phones[leg.index()]);
        phones.push(receive(&mut apart, newcomer));
    } else {
        phones.iter_mut().for_each(|phone| phone.tries_again = true);
    }
    Plan { phones, ground, emergency, line_leg: kind.line_leg, answers, cancels, what: kind.what }
}

/// How the callee takes it. The times count from when its telephone rings.
fn answer(
    random: &mut Random,
    caller: &mut Phone,
    callee: &mut Phone,
    emergency: bool,
) -> (Option<u16>, bool) {
    let rings = random.between(10, 200) * MS;
    let answers_after = random.between(200, 1_500) * MS;
    callee.once_invited(rings, Act::Ring);
    let fate = if emergency { 500 } else { random.between(0, 999) };
    match fate {
        0..40 => {
            callee.once_invited(answers_after, Act::Reject(486));
            (Some(486), false)
        }
        40..80 => {
            caller.at(random.between(3_200, 6_000) * MS, Act::Cancel);
            (None, true)
        }
        80..110 => {
            // The cancellation and the answer meet.
            callee.once_invited(answers_after, Act::Answer);
            caller.at(random.between(1_000, 5_000) * MS, Act::Cancel);
            (None, true)
        }
        _ => {
            callee.once_invited(answers_after, Act::Answer);
            (Some(200), false)
        }
    }
}

/// What people do once they talk.
fn talk(random: &mut Random, mut phones: [&mut Phone; 2], ground: Ground) {
    let length = random.between(3, 9) * SECOND;
    let longer = ground == Ground::Consent;
    let end = if longer { length + 3 * SECOND } else { length };
    let who = random.between(0, 1) as usize;
    phones[who].once_talking(end, Act::HangUp);
    for phone in &mut phones {
        press_keys(random, phone, end);
    }
    let changes = [Act::Hold, Act::Transfer(true), Act::Transfer(false), Act::Takeover, Act::NewOrigin];
    if random.per_mille(600) {
        let leg = random.between(0, 1) as usize;
        let act = random.pick(&changes);
        let at = random.between(2_500, end / MS) * MS;
        // A change that nothing announces counts as the ringback's end where it comes right after the answer.
        let at = if act == Act::Takeover { at.max(3_500 * MS) } else { at };
        phones[leg].once_talking(at, act);
        if act == Act::Hold {
            phones[leg].once_talking(at + random.between(300, 2_500) * MS, Act::Resume);
        } else if random.per_mille(500) {
            let again = at + random.between(1_600, 2_500) * MS;
            phones[leg].once_talking(again, Act::Press('1'));
            phones[1 - leg].once_talking(again + random.between(0, 500) * MS, Act::Press('1'));
        }
    }
}

/// What a telephone knows of recording (RFC 7866), and what it wants.
fn wish(random: &mut Random, phone: &mut Phone, talks: bool) {
    if !random.per_mille(500) {
        return;
    }
    phone.is_aware = true;
    phone.takes_update = random.per_mille(700);
    let fate = random.between(0, 99);
    phone.wish = match fate {
        0..60 => Some("on"),
        60..70 => Some("nopreference"),
        70..75 => Some("off"),
        _ => None,
    };
    if talks && random.per_mille(150) {
        let at = random.between(500, 8_000) * MS;
        phone.once_talking(at, Act::Wish(random.pick(&["on", "off", "off", "pause"])));
    }
}

/// Somebody transfers the call, often after a hold.
fn refer(random: &mut Random, phone: &mut Phone) {
    let at = random.between(2_500, 6_000) * MS;
    if random.per_mille(500) {
        phone.once_talking(at - 500 * MS, Act::Hold);
    }
    phone.once_talking(at, Act::Refer);
}

/// What whoever is called in a transfer does.
fn receive(random: &mut Random, mut newcomer: Phone) -> Phone {
    newcomer.once_invited(random.between(10, 200) * MS, Act::Ring);
    let answers = if random.per_mille(850) { Act::Answer } else { Act::Reject(486) };
    newcomer.once_invited(random.between(200, 1_500) * MS, answers);
    let end = random.between(2, 6) * SECOND;
    newcomer.once_talking(end, Act::HangUp);
    press_keys(random, &mut newcomer, end);
    newcomer
}

fn press_keys(random: &mut Random, phone: &mut Phone, end: Time) {
    // The question takes 600 ms.
    let answer_at = random.between(100, 1_400) * MS;
    match random.between(0, 99) {
        0..76 => phone.once_talking(answer_at, Act::Press('1')),
        76..84 => phone.once_talking(answer_at, Act::Press('2')),
        84..90 => {}
        _ => phone.once_talking(random.between(0, end / MS) * MS, Act::Press('1')),
    }
    if random.per_mille(150) {
        let at = random.between(500, end / MS) * MS;
        for key in "*80".chars() {
            phone.once_talking(at, Act::Press(key));
        }
    }
    if random.per_mille(100) {
        phone.once_talking(random.between(0, end / MS) * MS, Act::Press(random.pick(&['1', '2', '5', '#'])));
    }
}
