//! `earmark check`: the configuration judged, and what each line would do.

use std::fmt::Write;
use std::num::NonZeroU32;

use consent::{Ask, Line, LineClass, Side, Wall};
use serde::Serialize;
use sip_gateway::locate::Host;
use sip_gateway::{Peer, Transport};

use super::{Configured, Failure, Outcome, print_json, print_text};
use crate::config::Config;
use crate::wall_now;

/// Certificates are renewed in weeks, not in days, where a public authority or an office must be asked.
const EXPIRY_WARNING_DAYS: i64 = 30;

#[derive(Serialize)]
struct Report {
    lines: Vec<LineReport>,
    peers: Vec<PeerReport>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct LineReport {
    number: String,
    name: String,
    class: LineClass,
    does: &'static str,
}

#[derive(Serialize)]
struct PeerReport {
    name: String,
    side: Side,
    found: String,
    ping_s: Option<u32>,
    max_calls: Option<usize>,
    calls_per_minute: Option<u32>,
    /// Whether it may call everybody.
    refuses_destinations: bool,
}

pub(super) fn run(configured: &Configured) -> Result<Outcome, Failure> {
    let config = Config::load(&configured.config)?;
    let mut remarks = config.remarks.clone();
    remarks.extend(config.read_tls()?.and_then(|read| expiry(read.expires_s, wall_now())));
    remarks.extend(config.try_passwords()?);
    let hidden = config.gateway.peers.iter().any(|peer| peer.side == Side::Public && !peer.parties_signalled);
    let report = Report {
        lines: config.rules.lines().iter().map(|line| describe(line, hidden)).collect(),
        peers: config.gateway.peers.iter().map(describe_peer).collect(),
        remarks,
    };
    if configured.json {
        print_json(&report)?;
    } else {
        print_text(&for_people(&config, &report));
    }
    Ok(Outcome::Done)
}

/// What there is to say of a certificate that ends soon.
fn expiry(expires_s: u64, now: Wall) -> Option<String> {
    let expires_s = i64::try_from(expires_s).unwrap_or(i64::MAX);
    let left_days = (expires_s - now.0.div_euclid(1_000_000)).div_euclid(86_400);
    let date = jiff::Timestamp::from_second(expires_s).map_or_else(|_| "?".to_owned(), |end| end.to_string());
    match left_days {
        ..0 => {
            Some(format!("sip.tls.certificate: expired at {date}: peers refuse it; renew it and send SIGHUP"))
        }
        0..EXPIRY_WARNING_DAYS => Some(format!(
            "sip.tls.certificate: expires at {date}, in {left_days} days; renew it and send SIGHUP"
        )),
        EXPIRY_WARNING_DAYS.. => None,
    }
}

fn describe(line: &Line, hidden: bool) -> LineReport {
    let does = match (line.class, line.ask) {
        (LineClass::Dispatch, _) => "records every call, from its first media on",
        (LineClass::Never, _) => "records nothing",
        (LineClass::Union, _) => "records nothing, and withholds the other party's number",
        (LineClass::Consent, _) if hidden => {
            "records nothing through a peer that does not signal its parties; otherwise after all have agreed"
        }
        (LineClass::Consent, Ask::EveryCall) => {
            "asks both parties on every call, and records once both have agreed"
        }
        (LineClass::Consent, Ask::OnRequest) => "asks when the district's party dials the request code",
        (LineClass::Consent, Ask::SignalledOnly) => {
            "never asks, and records once every party's telephone has asked for it (a=recordpref)"
        }
    };
    LineReport { number: line.number.as_str().to_owned(), name: line.name.clone(), class: line.class, does }
}

fn describe_peer(peer: &Peer) -> PeerReport {
    let Peer { name, side, place, ping_s, allowance, .. } = peer;
    let by = place.transport.map_or("", |transport| match transport {
        Transport::Udp => " by udp",
        Transport::Tcp => " by tcp",
        Transport::Tls => " by tls",
    });
    let found = match (&place.host, place.port) {
        (Host::Address(_), _) => match place.target() {
            Some(target) => format!("at {}:{}", target.transport.word(), target.address),
            None => String::new(),
        },
        (Host::Name(host), Some(port)) => format!("at port {port} of the addresses of {host}{by}"),
        (Host::Name(host), None) if place.transport.is_some() => {
            format!("by the SRV records of {host}{by}, else its addresses")
        }
        (Host::Name(host), None) => format!("by the NAPTR and SRV records of {host}, else its addresses"),
    };
    PeerReport {
        name: name.clone(),
        side: *side,
        found,
        ping_s: *ping_s,
        max_calls: allowance.max_calls,
        calls_per_minute: allowance.calls_per_minute.map(NonZeroU32::get),
        refuses_destinations: allowance.refused.is_some(),
    }
}

fn for_people(config: &Config, report: &Report) -> String {
    let mut text = String::from("The configuration is valid.\n\n");
    for line in &report.lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}: {}", line.number, line.name, line.does);
    }
    let _ = writeln!(text, "any other number: logged, never recorded");
    let _ = writeln!(text);
    for peer in &report.peers {
        let PeerReport { name, side, found, ping_s, .. } = peer;
        let side = match side {
            Side::District => "district",
            Side::Public => "public",
        };
        let pings =
            ping_s.map_or_else(|| "not pinged".to_owned(), |seconds| format!("pinged each {seconds} s"));
        let _ = writeln!(text, "peer {name} ({side}): {found}; {pings}{}", allowance_of(peer));
    }
    let _ = writeln!(text, "{} listeners", config.gateway.listeners.len());
    for remark in &report.remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    text
}

/// What bounds a peer's calls.
fn allowance_of(peer: &PeerReport) -> String {
    let at_once = peer.max_calls.map(|most| format!("; at most {most} calls at once"));
    let a_minute = peer.calls_per_minute.map(|most| format!("; at most {most} calls a minute"));
    let refusing = peer.refuses_destinations.then(|| "; may not call everybody".to_owned());
    at_once.into_iter().chain(a_minute).chain(refusing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_spoken_of_in_its_last_month() {
        const DAY_S: u64 = 86_400;
        let now = Wall(1_900_000_000_500_000);
        let said = |left_s: i64| expiry(1_900_000_000_u64.saturating_add_signed(left_s), now);
        assert_eq!(said(30 * DAY_S as i64), None);
        assert_eq!(expiry(u64::MAX, now), None);
        assert!(said(30 * DAY_S as i64 - 1).is_some_and(|text| text.contains("in 29 days")));
        assert!(said(0).is_some_and(|text| text.contains("in 0 days")));
        assert!(said(-1).is_some_and(|text| text.contains("expired at 2030-03-17T17:46:39Z")));
    }
}
