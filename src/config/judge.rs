//! From the file as written to a configuration that can be served: each value checked, each fault with
//! its key and its mend.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use consent::{
    Ask, E164, Line, LineClass, NumberClass, Numbering, Preamble, RetentionTag, RuleError, RuleSet,
    RuleVersion, Settings, Side, Tone,
};
use sip_gateway::{Limits, Listener, SessionTimer, Transport};

use super::account::{LockedAccount, account};
use super::{Config, ConfigError, KeySource, Storage, allowance, peers, raw, tls};

/// What is wrong with a value.
pub(super) struct Fault {
    pub(super) key: String,
    pub(super) problem: String,
    pub(super) mend: String,
}

impl Fault {
    pub(super) fn of(self, file: &Path) -> ConfigError {
        let Self { key, problem, mend } = self;
        ConfigError::Value { file: file.to_owned(), key, problem, mend }
    }
}

pub(super) fn fault<T>(
    key: impl Into<String>,
    problem: impl Into<String>,
    mend: impl Into<String>,
) -> Result<T, Fault> {
    Err(Fault { key: key.into(), problem: problem.into(), mend: mend.into() })
}

/// SIP messages of ordinary calls stay under 8 KiB; 64 KiB leaves room for large bodies (PIDF-LO, ISUP)
/// and is the most that a datagram can carry.
const MAX_MESSAGE_BYTES: usize = 65_535;
/// A day: nobody drains for longer.
const MAX_DRAIN_S: u64 = 86_400;
/// A terabyte.
const MAX_PREAMBLE_MEMORY_MB: u64 = 1 << 20;
/// Beyond this a crash would cost more than anybody expects.
const MAX_LOOKBACK_MS: u64 = 5_000;
const MAX_HEADERS: usize = 256;
const MAX_STREAMS: usize = 512;
/// RFC 4028 §4.
const SHORTEST_SESSION_S: u32 = 90;
const LONGEST_SESSION_S: u64 = 86_400;

pub(super) fn judge(file: raw::File, path: &Path, folder: &Path) -> Result<Config, Fault> {
    let mut remarks = Vec::new();
    unavailable(&file, &mut remarks)?;
    let numbering = numbering(&file.numbering)?;
    let gateway = gateway(&file, &numbering, &mut remarks)?;
    let tls = tls::judge(&file, &gateway, folder, &mut remarks)?;
    let accounts = accounts(&file, folder)?;
    let rules = rules(&file, numbering, &mut remarks)?;
    let data_dir = folder.join(&file.node.data_dir);
    let storage = storage(&file.storage, folder, &data_dir, &mut remarks)?;
    if let Err(error) = jiff::tz::TimeZone::get(&file.node.timezone) {
        return fault("node.timezone", error.to_string(), "use an IANA name such as \"America/New_York\"");
    }
    let (media_address, media_ports) = media(&file.media)?;
    at_most("node.drain_s", file.node.drain_s, MAX_DRAIN_S)?;
    at_most("consent.preamble_memory_mb", file.consent.preamble_memory_mb as u64, MAX_PREAMBLE_MEMORY_MB)?;
    at_most("consent.lookback_ms", file.consent.lookback_ms, MAX_LOOKBACK_MS)?;
    Ok(Config {
        file: path.to_owned(),
        node: file.node.name,
        data_dir,
        drain: Duration::from_secs(file.node.drain_s),
        gateway,
        tls,
        dns: peers::dns(&file.sip.dns)?,
        accounts,
        media_address,
        media_ports,
        rules,
        own_numbers: peers::own_numbers(&file.peers)?,
        languages: languages(file.consent.languages)?,
        prompts: file.consent.prompts.map(|path| folder.join(path)),
        preamble_memory_bytes: file.consent.preamble_memory_mb.saturating_mul(1 << 20),
        lookback_ms: file.consent.lookback_ms,
        storage,
        ops: address("ops.listen", &file.ops.listen)?,
        remarks,
    })
}

/// Refuses what the contract names and this version does not do, rather than pass over it in silence.
fn unavailable(file: &raw::File, remarks: &mut Vec<String>) -> Result<(), Fault> {
    let tables = [
        ("mail", file.mail.is_some()),
        ("webhooks", file.webhooks.is_some()),
        ("notices", file.notices.is_some()),
        ("calendar", file.calendar.is_some()),
        ("timestamp", file.timestamp.is_some()),
    ];
    for (key, present) in tables {
        if present {
            return fault(key, "this version cannot do it yet", "remove the table");
        }
    }
    for (index, peer) in file.peers.iter().enumerate() {
        let keys = [
            ("listen", peer.listen.is_some()),
            ("advertise", peer.advertise.is_some()),
            ("media_address", peer.media_address.is_some()),
            ("dial_format", peer.dial_format.as_deref().is_some_and(|format| format != "as-dialled")),
            ("srtp", peer.srtp.as_deref().is_some_and(|srtp| srtp != "off")),
        ];
        if let Some((key, _)) = keys.iter().find(|(_, present)| *present) {
            return fault(format!("peers[{index}].{key}"), "this version cannot do it yet", "remove the key");
        }
    }
    if file.numbering.emergency.is_empty() {
        return fault("numbering.emergency", "no emergency number", "give at least \"911\"");
    }
    if file.consent.preamble_memory_mb == 0 {
        remarks
            .push("consent.preamble_memory_mb = 0: nobody is asked, so no consent line records".to_owned());
    }
    if file.portal.is_some() {
        remarks.push("[portal]: there are no pages in this version; nothing listens there".to_owned());
    }
    if file.consent.tone != "off" {
        remarks.push("consent.tone: the 15-second tone does not sound in this version".to_owned());
    }
    Ok(())
}

fn gateway(
    file: &raw::File,
    numbering: &Numbering,
    remarks: &mut Vec<String>,
) -> Result<sip_gateway::Config, Fault> {
    if file.sip.listen.is_empty() {
        return fault("sip.listen", "no address", "give at least one, such as \"udp:127.0.0.1:5060\"");
    }
    let listeners = file
        .sip
        .listen
        .iter()
        .enumerate()
        .map(|(index, text)| listener(&format!("sip.listen[{index}]"), text))
        .collect::<Result<Vec<_>, _>>()?;
    if file.sip.max_calls == 0 {
        return fault("sip.max_calls", "no call could ever be made", "give at least 1");
    }
    if file.peers.is_empty() {
        return fault("peers", "nobody may talk to the gateway", "add [[peers]] for the PBX and the carrier");
    }
    let asked = file.sip.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let mut peers = peers::judge(&file.peers, asked)?;
    for (index, (peer, raw)) in peers.iter_mut().zip(&file.peers).enumerate() {
        peer.allowance = allowance::judge(&format!("peers[{index}]"), raw, numbering, file.sip.max_calls)?;
    }
    peers::trust(&file.consent.trust_recordpref, &mut peers, remarks)?;
    for side in [Side::District, Side::Public] {
        if !peers.iter().any(|peer| peer.side == side) {
            remarks.push(format!(
                "peers: none has side = \"{}\"; calls to that side are refused",
                side_name(side)
            ));
        }
    }
    Ok(sip_gateway::Config {
        listeners,
        routes: peers::routes(&file.sip.routes, &peers)?,
        peers,
        emergency: file.numbering.emergency.clone(),
        limits: Limits {
            max_calls: file.sip.max_calls,
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_headers: MAX_HEADERS,
            max_streams: MAX_STREAMS,
            requests_per_s: Some(allowance::requests_per_s(&file.sip)?),
        },
        session_timer: session_timer(&file.sip)?,
    })
}

fn accounts(file: &raw::File, folder: &Path) -> Result<Vec<LockedAccount>, Fault> {
    let peers = file.peers.iter().enumerate();
    let accounts = peers.map(|(index, peer)| account(index, peer, folder, &file.node.name));
    accounts.filter_map(Result::transpose).collect()
}

/// RFC 4028 §4 and §5: no interval below 90 s.
fn session_timer(sip: &raw::Sip) -> Result<SessionTimer, Fault> {
    let timer = SessionTimer { expires_s: sip.session_expires_s, min_s: sip.min_se_s };
    if timer.min_s < SHORTEST_SESSION_S {
        let mend = format!("give at least {SHORTEST_SESSION_S}");
        return fault("sip.min_se_s", format!("{} s is below what RFC 4028 allows", timer.min_s), mend);
    }
    at_most("sip.min_se_s", timer.min_s.into(), LONGEST_SESSION_S)?;
    at_most("sip.session_expires_s", timer.expires_s.into(), LONGEST_SESSION_S)?;
    if timer.expires_s != 0 && timer.expires_s < timer.min_s {
        return fault(
            "sip.session_expires_s",
            format!("{} s is below sip.min_se_s ({} s)", timer.expires_s, timer.min_s),
            "give at least as much, or 0 to ask for no session timer",
        );
    }
    Ok(timer)
}

fn at_most(key: &str, value: u64, most: u64) -> Result<(), Fault> {
    if value > most {
        return fault(key, format!("{value} is too much"), format!("give at most {most}"));
    }
    Ok(())
}

pub(super) const fn side_name(side: Side) -> &'static str {
    match side {
        Side::District => "district",
        Side::Public => "public",
    }
}

fn listener(key: &str, text: &str) -> Result<Listener, Fault> {
    let mend = "write it as \"udp:127.0.0.1:5060\", \"tcp:[::1]:5060\" or \"tls:127.0.0.1:5061\"";
    let Some((scheme, rest)) = text.split_once(':') else {
        return fault(key, format!("\"{text}\" is not a listener"), mend);
    };
    let transport = match scheme {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        "tls" => Transport::Tls,
        _ => return fault(key, format!("unknown transport \"{scheme}\""), mend),
    };
    let address = address(key, rest)?;
    if address.ip().is_unspecified() {
        return fault(
            key,
            "a wildcard address cannot stand in Via and Contact",
            "give the address that peers reach, one listener each",
        );
    }
    Ok(Listener { transport, address })
}

fn address(key: &str, text: &str) -> Result<SocketAddr, Fault> {
    text.parse().or_else(|_| {
        fault(
            key,
            format!("\"{text}\" is not an address and port"),
            "write it as 127.0.0.1:9090 or [::1]:9090",
        )
    })
}

fn media(raw: &raw::Media) -> Result<(IpAddr, std::ops::RangeInclusive<u16>), Fault> {
    let Ok(ip) = raw.address.parse::<IpAddr>() else {
        return fault(
            "media.address",
            format!("\"{}\" is not an IP address", raw.address),
            "give the one SDP is to show",
        );
    };
    if ip.is_unspecified() {
        return fault("media.address", "a wildcard cannot stand in SDP", "give the address that peers reach");
    }
    let mend = "write it as \"20000-29999\"";
    let bounds = raw
        .ports
        .split_once('-')
        .and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    match bounds {
        // A call needs two pairs of an even port and the next.
        Some((low, high)) if low >= 1024 && high > low && high - (low + low % 2) >= 3 => Ok((ip, low..=high)),
        _ => fault(
            "media.ports",
            format!("\"{}\" is not a range of at least two pairs of ports above 1023", raw.ports),
            mend,
        ),
    }
}

fn languages(languages: Vec<String>) -> Result<Vec<String>, Fault> {
    for (index, language) in languages.iter().enumerate() {
        if !matches!(language.as_str(), "en" | "es") {
            return fault(
                format!("consent.languages[{index}]"),
                format!("no prompts in \"{language}\""),
                "use en and es",
            );
        }
    }
    if languages.is_empty() {
        return fault("consent.languages", "nobody could be asked", "give at least \"en\"");
    }
    Ok(languages)
}

fn numbering(raw: &raw::Numbering) -> Result<Numbering, Fault> {
    Numbering::new(raw.country.clone(), raw.area_code.clone(), raw.outside_prefix.clone()).or_else(|error| {
        fault("numbering", error.to_string(), "correct country, area_code or outside_prefix")
    })
}

fn rules(file: &raw::File, numbering: Numbering, remarks: &mut Vec<String>) -> Result<RuleSet, Fault> {
    let lines = file
        .lines
        .iter()
        .enumerate()
        .map(|(index, raw)| line(&format!("lines[{index}]"), raw))
        .collect::<Result<Vec<_>, _>>()?;
    let numbers = file
        .numbers
        .iter()
        .enumerate()
        .map(|(index, raw)| number(&format!("numbers[{index}]"), raw))
        .collect::<Result<Vec<_>, _>>()?;
    if lines.is_empty() {
        remarks.push("lines: none is listed; every call is logged and none recorded".to_owned());
    }
    for raw in file.peers.iter().filter(|peer| peer.party_signals.as_deref() != Some("verified")) {
        let name = &raw.name;
        let mend = if raw.side == "public" {
            format!(
                "\"verified\" states that its far end is one telephone, or that it announces by UPDATE or re-INVITE \
                 who else comes on the line: ask {name}'s operator for that in writing"
            )
        } else {
            format!("check --live --peer {name} finds out whether it may be \"verified\"")
        };
        remarks.push(format!(
            "peer \"{name}\" has party_signals = \"none\": no consent recording is made through it; {mend}"
        ));
    }
    RuleSet::new(RuleVersion(1), numbering, lines, numbers, settings(&file.consent)?)
        .map_err(|error| rule_fault(&error, file))
}

fn rule_fault(error: &RuleError, file: &raw::File) -> Fault {
    let consent = |setting: &str| format!("consent.{setting}");
    let (key, mend) = match error {
        RuleError::DuplicateNumber { number, .. } => {
            (key_given_again(file, number).unwrap_or("lines".to_owned()), "keep it in one place")
        }
        RuleError::ContradictoryClass { number, .. } => {
            (key_of_other_class(file, number).unwrap_or("numbers".to_owned()), "keep one of the two")
        }
        RuleError::NotAKey { setting, .. } | RuleError::CodeLength { setting, .. } => {
            (consent(setting), "change it")
        }
        RuleError::Overlap { longer, .. } => (consent(longer), "change one of the two"),
        RuleError::Attempts { .. } => (consent("attempts"), "change it"),
        RuleError::AnswerTimeout { .. } => (consent("answer_timeout_s"), "change it"),
        RuleError::PreambleRepeat => (consent("preamble"), "use \"memory\""),
        RuleError::RetentionTag { .. } => ("lines".to_owned(), "correct it"),
    };
    Fault { key, problem: error.to_string(), mend: mend.to_owned() }
}

/// Where a number stands for the second time among lines and aliases.
fn key_given_again(file: &raw::File, number: &E164) -> Option<String> {
    let given = file.lines.iter().enumerate().flat_map(|(index, line)| {
        let own = (format!("lines[{index}].number"), &line.number);
        let alias = move |(n, text)| (format!("lines[{index}].aliases[{n}]"), text);
        std::iter::once(own).chain(line.aliases.iter().enumerate().map(alias))
    });
    given.filter(|(_, text)| is_number(text, number)).nth(1).map(|(key, _)| key)
}

/// Where a number is first listed with another class than before.
fn key_of_other_class(file: &raw::File, number: &E164) -> Option<String> {
    let mut listed = file.numbers.iter().enumerate().filter(|(_, raw)| is_number(&raw.number, number));
    let (_, first) = listed.next()?;
    listed.find(|(_, raw)| raw.class != first.class).map(|(index, _)| format!("numbers[{index}].class"))
}

fn is_number(text: &str, number: &E164) -> bool {
    E164::try_from(text.to_owned()).is_ok_and(|other| other == *number)
}

fn line(key: &str, raw: &raw::Line) -> Result<Line, Fault> {
    let class = match raw.class.as_str() {
        "dispatch" => LineClass::Dispatch,
        "consent" => LineClass::Consent,
        "never" => LineClass::Never,
        "union" => LineClass::Union,
        other => {
            return fault(
                format!("{key}.class"),
                format!("unknown line class \"{other}\""),
                "use dispatch, consent, never or union",
            );
        }
    };
    let ask = match raw.ask.as_deref() {
        None | Some("every-call") => Ask::EveryCall,
        Some("on-request") => Ask::OnRequest,
        Some("signalled-only") => Ask::SignalledOnly,
        Some(other) => {
            return fault(
                format!("{key}.ask"),
                format!("unknown value \"{other}\""),
                "use every-call, on-request or signalled-only",
            );
        }
    };
    let retention = match (&raw.retention, class) {
        (Some(tag), _) => tag.clone(),
        (None, LineClass::Never | LineClass::Union) => "RT-CDR".to_owned(),
        (None, LineClass::Dispatch | LineClass::Consent) => {
            return fault(
                format!("{key}.retention"),
                "missing: nothing is stored without a retention tag",
                "add one, such as \"RT-DISP-ROUTINE\" or \"RT-CONSENT-REC\"",
            );
        }
    };
    Ok(Line {
        number: e164(&format!("{key}.number"), &raw.number)?,
        name: raw.name.clone(),
        class,
        ask,
        retention: RetentionTag::try_from(retention)
            .or_else(|error| fault(format!("{key}.retention"), error.to_string(), "correct it"))?,
        aliases: raw
            .aliases
            .iter()
            .enumerate()
            .map(|(index, text)| e164(&format!("{key}.aliases[{index}]"), text))
            .collect::<Result<_, _>>()?,
        tone: raw.tone.as_deref().map(|text| tone(&format!("{key}.tone"), text)).transpose()?,
    })
}

fn e164(key: &str, text: &str) -> Result<E164, Fault> {
    E164::try_from(text.to_owned()).or_else(|error| {
        fault(key, format!("\"{text}\": {error}"), "write the full number, as in +18607427331")
    })
}

fn number(key: &str, raw: &raw::Number) -> Result<(E164, NumberClass), Fault> {
    let class = match raw.class.as_str() {
        "union" => NumberClass::Union,
        "privileged" => NumberClass::Privileged,
        "student" => NumberClass::Student,
        other => {
            return fault(
                format!("{key}.class"),
                format!("unknown number class \"{other}\""),
                "use union, privileged or student",
            );
        }
    };
    Ok((e164(&format!("{key}.number"), &raw.number)?, class))
}

fn tone(key: &str, text: &str) -> Result<Tone, Fault> {
    match text {
        "off" => Ok(Tone::Off),
        "dispatch" => Ok(Tone::Dispatch),
        "always" => Ok(Tone::Always),
        other => fault(key, format!("unknown value \"{other}\""), "use off, dispatch or always"),
    }
}

fn settings(raw: &raw::Consent) -> Result<Settings, Fault> {
    let key = |name: &str, text: &str| -> Result<char, Fault> {
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => fault(
                format!("consent.{name}"),
                format!("\"{text}\" is not one key"),
                "give one key, such as \"1\"",
            ),
        }
    };
    let preamble = match raw.preamble.as_str() {
        "memory" => Preamble::Memory,
        "repeat" => Preamble::Repeat,
        other => {
            return fault(
                "consent.preamble",
                format!("unknown value \"{other}\""),
                "use memory (or repeat, in a later version)",
            );
        }
    };
    Ok(Settings {
        accept: key("accept", &raw.accept)?,
        decline: key("decline", &raw.decline)?,
        request: raw.request.clone(),
        withdraw: raw.withdraw.clone(),
        answer_timeout_ms: raw.answer_timeout_s.saturating_mul(1000),
        attempts: raw.attempts,
        preamble,
        tone: tone("consent.tone", &raw.tone)?,
    })
}

fn storage(
    raw: &raw::Storage,
    folder: &Path,
    data_dir: &Path,
    remarks: &mut Vec<String>,
) -> Result<Storage, Fault> {
    let below = |text: &Option<String>, scheme: &str, key: &str, default: &str| -> Result<PathBuf, Fault> {
        let Some(text) = text else { return Ok(data_dir.join(default)) };
        match text.strip_prefix(scheme) {
            Some(path) if !path.is_empty() => Ok(folder.join(path)),
            _ => fault(
                key,
                format!(
                    "\"{}:\" is not available in this version",
                    text.split(':').next().unwrap_or_default()
                ),
                format!("write it as \"{scheme}{default}\""),
            ),
        }
    };
    let database = below(&raw.database, "sqlite:", "storage.database", "earmark.db")?;
    let audio = below(&raw.audio, "file:", "storage.audio", "audio")?;
    let key = match raw.key_file.as_deref() {
        None => KeySource::File(data_dir.join("keys/master.key")),
        Some(text) => text.strip_prefix("env:").map_or_else(
            || KeySource::File(folder.join(text)),
            |name| KeySource::Environment(name.to_owned()),
        ),
    };
    match raw.union_numbers.as_deref() {
        Some("sealed") => remarks.push(
            "storage.union_numbers = \"sealed\": there is no sealed store in this version; they are not kept at all"
                .to_owned(),
        ),
        None | Some("absent") => {}
        Some(other) => {
            return fault("storage.union_numbers", format!("unknown value \"{other}\""), "use sealed or absent");
        }
    }
    Ok(Storage {
        database: format!("sqlite:{}", database.display()),
        audio,
        key,
        second_spool: raw.second_writer.as_ref().map(|path| folder.join(path)),
    })
}
