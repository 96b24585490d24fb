//! Asks DNS what the core wants to know of its peers' names (RFC 1035, RFC 2782, RFC 3403).
//!
//! Each question is a task of its own, which ends within [`PATIENCE`]; there are never more of them than the
//! core has open questions. Nothing is kept from one to the next, neither answers, which the core keeps, nor
//! the system's configuration, which may change at any time. Names are absolute: no search list applies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::locate::{Answer, Naptr, Question, Records, Srv, Unanswered};
use crate::{Input, PeerId};

/// For one answer, all servers and repetitions together.
const PATIENCE: Duration = Duration::from_secs(10);

/// For one server to answer one datagram, which is sent twice.
const SERVER: Duration = Duration::from_secs(2);

/// How long "there is none" may be kept where the zone does not say (RFC 2308 §5 asks for no caching then).
const UNSTATED_TTL_S: u32 = 0;

/// Where DNS is asked.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// None: the system's.
    servers: Vec<SocketAddr>,
    inputs: mpsc::Sender<Input>,
    runtime: Handle,
}

impl Resolver {
    pub(super) const fn new(servers: Vec<SocketAddr>, inputs: mpsc::Sender<Input>, runtime: Handle) -> Self {
        Self { servers, inputs, runtime }
    }

    /// Asks, and answers with [`Input::Resolved`] within 10 s.
    pub fn resolve(&self, peer: PeerId, question: Question) {
        let Self { servers, inputs, runtime } = self.clone();
        runtime.spawn(async move {
            let answer = timeout(PATIENCE, ask(&servers, &question)).await.unwrap_or(Err(Unanswered));
            // Fails only when the core's task has ended.
            let _ = inputs.send(Input::Resolved { peer, question, answer }).await;
        });
    }
}

async fn ask(servers: &[SocketAddr], question: &Question) -> Result<Answer, Unanswered> {
    let resolver = resolver(servers).map_err(|error| unanswered(&error))?;
    match question {
        Question::Naptr(name) => {
            let found = lookup(&resolver, name, RecordType::NAPTR).await?;
            Ok(found.answer(Records::Naptr(found.data.iter().filter_map(naptr).collect())))
        }
        Question::Srv(name) => {
            let found = lookup(&resolver, name, RecordType::SRV).await?;
            Ok(found.answer(Records::Srv(found.data.iter().filter_map(srv).collect())))
        }
        Question::Addresses(name) => {
            let (four, six) = tokio::join!(
                lookup(&resolver, name, RecordType::A),
                lookup(&resolver, name, RecordType::AAAA)
            );
            addresses(four, six)
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let (config, mut options) =
        if servers.is_empty() { system() } else { (of(servers), ResolverOpts::default()) };
    options.timeout = SERVER;
    options.attempts = 1;
    options.cache_size = 0;
    options.try_tcp_on_error = true;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

/// The system's configuration; where there is none, what resolv.conf(5) says then: a server on this machine.
fn system() -> (ResolverConfig, ResolverOpts) {
    read_system_conf().unwrap_or_else(|error| {
        tracing::debug!(%error, "the system names no DNS server");
        (of(&[SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53)]), ResolverOpts::default())
    })
}

fn of(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        server
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

/// The records of one kind, and how long they may be kept.
struct Found {
    data: Vec<RData>,
    ttl_s: u32,
}

impl Found {
    const fn answer(&self, records: Records) -> Answer {
        Answer { records, ttl_s: self.ttl_s }
    }
}

async fn lookup(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Found, Unanswered> {
    let name = Name::from_ascii(format!("{name}.")).map_err(|error| unanswered(&error.into()))?;
    match resolver.lookup(name, kind).await {
        Ok(lookup) => {
            let ttl_s = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(UNSTATED_TTL_S);
            let data = lookup.answers().iter().map(|record| &record.data);
            Ok(Found { data: data.filter(|data| data.record_type() == kind).cloned().collect(), ttl_s })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            Ok(Found { data: Vec::new(), ttl_s: none.negative_ttl.unwrap_or(UNSTATED_TTL_S) })
        }
        Err(error) => Err(unanswered(&error)),
    }
}

fn unanswered(error: &NetError) -> Unanswered {
    tracing::debug!(%error, "DNS gives no answer");
    Unanswered
}

/// Both kinds together. One that is not answered matters only where the other has none.
fn addresses(four: Result<Found, Unanswered>, six: Result<Found, Unanswered>) -> Result<Answer, Unanswered> {
    let some = |found: &Result<Found, _>| found.as_ref().is_ok_and(|found| !found.data.is_empty());
    if !some(&four) && !some(&six) {
        let (four, six) = (four?, six?);
        return Ok(Answer { records: Records::Addresses(Vec::new()), ttl_s: four.ttl_s.min(six.ttl_s) });
    }
    let found: Vec<Found> =
        [four, six].into_iter().flatten().filter(|found| !found.data.is_empty()).collect();
    let ip = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    let ttl_s = found.iter().map(|found| found.ttl_s).min().unwrap_or(UNSTATED_TTL_S);
    let ips = found.iter().flat_map(|found| &found.data).filter_map(ip).collect();
    Ok(Answer { records: Records::Addresses(ips), ttl_s })
}

fn naptr(data: &RData) -> Option<Naptr> {
    let RData::NAPTR(naptr) = data else { return None };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    naptr.regexp.is_empty().then(|| Naptr {
        order: naptr.order,
        preference: naptr.preference,
        flags: text(&naptr.flags),
        service: text(&naptr.services),
        replacement: plain(&naptr.replacement),
    })
}

fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(srv) = data else { return None };
    Some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target: plain(&srv.target) })
}

/// A name without its final dot; the root is nothing.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
