//! The walk through NAPTR, SRV and addresses, by the table of the [module](super).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::plan::{Plan, Step};
use super::{Host, Naptr, Place, Question, Records, Service, Srv, Target, listener_for, transports};
use crate::{Listener, Transport};

/// NAPTR records followed; beyond: left out. There are as many services as transports.
const MAX_SERVICES: usize = 4;

/// What the answers at hand lead to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) plan: Plan,
    /// Every question whose answer the plan stands on.
    pub(super) asked: BTreeSet<Question>,
    /// Whether all of them have been answered.
    pub(super) complete: bool,
}

/// What is known about a question.
pub(super) enum Known<'a> {
    /// Its answer.
    Records(&'a Records),
    /// DNS was asked and gave none.
    Unanswered,
    /// It was not asked yet, or the answer is awaited.
    Nothing,
}

/// Looks for a place with what `know` knows.
pub(super) fn search<'a>(
    place: &Place,
    listeners: &[Listener],
    know: impl Fn(&Question) -> Known<'a>,
) -> Found {
    let mut walk = Walk { place, listeners, know, asked: BTreeSet::new(), complete: true, steps: Vec::new() };
    match &place.host {
        Host::Address(ip) => walk.add(0, 0, vec![place.target_at(*ip)]),
        Host::Name(name) => walk.name(&name.to_ascii_lowercase()),
    }
    Found { plan: Plan::new(walk.steps), asked: walk.asked, complete: walk.complete }
}

struct Walk<'p, K> {
    place: &'p Place,
    listeners: &'p [Listener],
    know: K,
    asked: BTreeSet<Question>,
    complete: bool,
    steps: Vec<Step>,
}

/// Whether a service has SRV records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Srvs {
    Yes,
    No,
    /// DNS does not say, so no conclusion may be drawn from it.
    Unclear,
}

impl<'a, K: Fn(&Question) -> Known<'a>> Walk<'_, K> {
    fn name(&mut self, name: &str) {
        if self.place.port.is_some() {
            return self.addresses_only(name, self.place.transport.unwrap_or(Transport::Udp));
        }
        if let Some(transport) = self.place.transport {
            return self.services(name, &[(transport, srv_name(name, transport))], transport);
        }
        let Some(chosen) = self.naptr(name) else { return };
        match chosen.first() {
            Some((best, _)) => self.services(name, &chosen, *best),
            None => {
                let ours = transports(self.listeners).into_iter();
                let all: Vec<_> = ours.map(|transport| (transport, srv_name(name, transport))).collect();
                self.services(name, &all, Transport::Udp);
            }
        }
    }

    /// The services that NAPTR offers and we speak, best first. `None` while DNS has not been heard.
    fn naptr(&mut self, name: &str) -> Option<Vec<(Transport, String)>> {
        let records = match self.ask(Question::Naptr(name.to_owned())) {
            Known::Records(Records::Naptr(records)) => records.as_slice(),
            // Many a resolver on the way does not know NAPTR at all, and SRV leads to the same servers.
            Known::Records(_) | Known::Unanswered => &[],
            Known::Nothing => return None,
        };
        let ours = transports(self.listeners);
        let mut offered: Vec<(&Naptr, Transport)> =
            records.iter().filter_map(|naptr| Some((naptr, transport_of(naptr, &ours)?))).collect();
        offered.sort_by_key(|(naptr, _)| (naptr.order, naptr.preference));
        let best = offered.first().map(|(naptr, _)| naptr.order);
        let chosen =
            offered.into_iter().take_while(|(naptr, _)| Some(naptr.order) == best).take(MAX_SERVICES);
        Some(chosen.map(|(naptr, transport)| (transport, naptr.replacement.to_ascii_lowercase())).collect())
    }

    /// SRV of each service; where none has any, the addresses of the name itself, by `fallback`.
    fn services(&mut self, name: &str, services: &[(Transport, String)], fallback: Transport) {
        let mut all = Srvs::No;
        for (transport, service) in services {
            match self.service(*transport, service) {
                Srvs::Yes => all = Srvs::Yes,
                Srvs::Unclear if all == Srvs::No => all = Srvs::Unclear,
                Srvs::Unclear | Srvs::No => {}
            }
        }
        if all == Srvs::No {
            self.addresses_only(name, fallback);
        }
    }

    fn service(&mut self, transport: Transport, service: &str) -> Srvs {
        let records = match self.ask(Question::Srv(service.to_owned())) {
            Known::Records(Records::Srv(records)) if !records.is_empty() => records,
            Known::Records(_) => return Srvs::No,
            Known::Unanswered | Known::Nothing => return Srvs::Unclear,
        };
        // The services follow one another as a whole: NAPTR's preference is above SRV's priority.
        let base = self.steps.iter().map(|step| step.tier + 1).max().unwrap_or(0);
        let mut priorities: Vec<u16> = records.iter().map(|srv| srv.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        for srv in records.iter().filter(|srv| !srv.target.is_empty() && srv.port > 0) {
            let above = priorities.iter().filter(|priority| **priority < srv.priority).count();
            let tier = base.saturating_add(u16::try_from(above).unwrap_or(u16::MAX));
            self.server(tier, transport, srv);
        }
        Srvs::Yes
    }

    fn server(&mut self, tier: u16, transport: Transport, srv: &Srv) {
        let targets = self.addresses(&srv.target.to_ascii_lowercase(), transport, srv.port);
        self.add(tier, srv.weight, targets);
    }

    fn addresses_only(&mut self, name: &str, transport: Transport) {
        let port = self.place.port.unwrap_or(transport.usual_port());
        let targets = self.addresses(name, transport, port);
        self.add(0, 0, targets);
    }

    /// The addresses of a host that we can call, those of our first listener's family first.
    fn addresses(&mut self, host: &str, transport: Transport, port: u16) -> Vec<Target> {
        let Known::Records(Records::Addresses(ips)) = self.ask(Question::Addresses(host.to_owned())) else {
            return Vec::new();
        };
        let at = |ip: &IpAddr| Target { transport, address: SocketAddr::new(ip.to_canonical(), port) };
        let mut targets: Vec<_> = ips
            .iter()
            .map(at)
            .filter(|target| is_callable(target.address.ip()) && !self.is_ours(target))
            .filter_map(|target| Some((listener_for(self.listeners, &target)?, target)))
            .collect();
        targets.sort_by_key(|(listener, _)| *listener);
        targets.into_iter().map(|(_, target)| target).collect()
    }

    /// Whether a target is one of our own listeners: a call there would come back to us.
    fn is_ours(&self, target: &Target) -> bool {
        let at = |own: &Listener| own.transport == target.transport && own.address == target.address;
        self.listeners.iter().any(at)
    }

    fn add(&mut self, tier: u16, weight: u16, targets: Vec<Target>) {
        self.steps.push(Step { tier, weight, targets });
    }

    fn ask(&mut self, question: Question) -> Known<'a> {
        let known = (self.know)(&question);
        self.complete &= !matches!(known, Known::Nothing);
        self.asked.insert(question);
        known
    }
}

fn srv_name(name: &str, transport: Transport) -> String {
    format!("{}.{name}", Service::of(transport).srv)
}

/// Which of our transports a NAPTR record offers (RFC 3263 §4.1: flag `s`, service as registered).
fn transport_of(naptr: &Naptr, ours: &[Transport]) -> Option<Transport> {
    let fits = |transport: &Transport| naptr.service.eq_ignore_ascii_case(Service::of(*transport).naptr);
    let usable = naptr.flags.eq_ignore_ascii_case("s") && !naptr.replacement.is_empty();
    ours.iter().copied().find(fits).filter(|_| usable)
}

/// Whether a call could be for one host at this address: a DNS server may say anything.
fn is_callable(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests;
