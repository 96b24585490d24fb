//! What DNS has said of one peer, and when it is to be asked again.
//!
//! | question | asked again |
//! |---|---|
//! | answered | at half of its time, within [`REFRESH_LEAST_MS`] and [`REFRESH_MOST_MS`] |
//! | answered, but all answers together lead nowhere | after [`REFRESH_LEAST_MS`] |
//! | not answered, never answered before | after [`FIRST_RETRY_MS`], doubled each time up to [`REFRESH_LEAST_MS`] |
//! | not answered, answered before | after [`REFRESH_LEAST_MS`]; the old answer stays (RFC 8767) |
//! | nothing heard of it at all | after [`PATIENCE_MS`] |
//!
//! A plan takes the old one's place as a whole, when every question behind it has been answered (or, if it
//! never was, asked in vain) and it leads somewhere. So a server that answers nonsense, or forgets a zone,
//! takes no way away that has been found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use consent::Mono;

use super::plan::Plan;
use super::search::{Known, search};
use super::{Answer, Place, Question, Records, Unanswered};
use crate::Listener;

/// No server is asked more often, however short-lived its answers.
const REFRESH_LEAST_MS: u64 = 30_000;
/// A change of address is seen within the hour, whatever its zone says.
const REFRESH_MOST_MS: u64 = 3_600_000;
/// At the start, when no call can go there yet.
const FIRST_RETRY_MS: u64 = 2_000;
/// Longer than any resolver tries.
const PATIENCE_MS: u64 = 60_000;
/// How long an address that DNS no longer names may still speak for the peer: its calls go on. Longer than
/// nearly every call, shorter than a working day.
const SOURCE_KEPT_MS: u64 = 4 * 3_600_000;
/// Such addresses; beyond: the oldest is forgotten.
const MAX_SOURCES: usize = 64;
/// Records of one answer; beyond: left out.
const MAX_RECORDS: usize = 16;

/// The answers about one peer.
#[derive(Debug)]
pub(crate) struct Directory {
    place: Place,
    listeners: Vec<Listener>,
    entries: BTreeMap<Question, Entry>,
    plan: Plan,
    /// Addresses of earlier plans, and until when they were in one.
    former: BTreeMap<IpAddr, Mono>,
}

#[derive(Debug)]
struct Entry {
    records: Option<Records>,
    /// Times asked in vain since the last answer.
    failures: u32,
    due: Mono,
}

impl Directory {
    pub(crate) fn new(place: Place, listeners: &[Listener]) -> Self {
        let plan = place.target().map(Plan::of).unwrap_or_default();
        Self { place, listeners: listeners.to_vec(), entries: BTreeMap::new(), plan, former: BTreeMap::new() }
    }

    /// Whether there is anything to look up.
    pub(crate) fn is_named(&self) -> bool {
        self.place.target().is_none()
    }

    /// Where the peer is, as last found.
    pub(crate) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Takes what an earlier process had found, until DNS has been heard.
    pub(crate) fn recall(&mut self, plan: Plan) {
        if self.is_named() && self.plan.is_empty() {
            self.plan = plan;
        }
    }

    /// What is to be asked now.
    pub(crate) fn questions(&mut self, now: Mono) -> Vec<Question> {
        if !self.is_named() {
            return Vec::new();
        }
        let asked = self.search().asked;
        let due = |question: &Question| self.entries.get(question).is_none_or(|entry| entry.due <= now);
        let questions: Vec<Question> = asked.into_iter().filter(due).collect();
        for question in &questions {
            let entry = self.entries.entry(question.clone());
            let entry = entry.or_insert(Entry { records: None, failures: 0, due: now });
            entry.due = now.plus_ms(PATIENCE_MS);
        }
        questions
    }

    /// When [`Self::questions`] has something to ask next. After an answer, at once, if it led further.
    pub(crate) fn next(&self) -> Option<Mono> {
        if !self.is_named() {
            return None;
        }
        let due = |question| self.entries.get(question).map_or(Mono(0), |entry| entry.due);
        self.search().asked.iter().map(due).min()
    }

    /// Takes an answer. Whether the plan is another one now.
    pub(crate) fn on_answer(
        &mut self,
        now: Mono,
        question: &Question,
        answer: Result<Answer, Unanswered>,
    ) -> bool {
        // What nobody asked, or does not fit the question, is nothing.
        let Some(entry) = self.entries.get_mut(question) else { return false };
        match answer {
            Ok(answer) if answer.records.answers(question) => entry.answer(now, answer),
            Ok(_) | Err(Unanswered) => entry.fail(now),
        }
        self.adopt(now)
    }

    /// Whether a source address is one of the peer's.
    pub(crate) fn is_source(&self, now: Mono, ip: IpAddr) -> bool {
        let named = self.plan.targets().any(|target| target.address.ip() == ip);
        named || self.former.get(&ip).is_some_and(|last| last.plus_ms(SOURCE_KEPT_MS) > now)
    }

    fn search(&self) -> super::search::Found {
        search(&self.place, &self.listeners, |question| match self.entries.get(question) {
            Some(Entry { records: Some(records), .. }) => Known::Records(records),
            Some(Entry { failures: 1.., .. }) => Known::Unanswered,
            Some(_) | None => Known::Nothing,
        })
    }

    fn adopt(&mut self, now: Mono) -> bool {
        let found = self.search();
        if !found.complete {
            return false;
        }
        self.entries.retain(|question, _| found.asked.contains(question));
        if found.plan.is_empty() {
            let soon = now.plus_ms(REFRESH_LEAST_MS);
            for entry in self.entries.values_mut() {
                entry.due = entry.due.min(soon);
            }
            return false;
        }
        if found.plan == self.plan {
            return false;
        }
        let old = std::mem::replace(&mut self.plan, found.plan);
        self.keep_sources(now, &old);
        true
    }

    fn keep_sources(&mut self, now: Mono, old: &Plan) {
        self.former.retain(|_, last| last.plus_ms(SOURCE_KEPT_MS) > now);
        self.former.extend(old.targets().map(|target| (target.address.ip(), now)));
        while self.former.len() > MAX_SOURCES {
            let Some(oldest) = self.former.iter().min_by_key(|(_, last)| **last).map(|(ip, _)| *ip) else {
                return;
            };
            self.former.remove(&oldest);
        }
    }
}

impl Entry {
    fn answer(&mut self, now: Mono, answer: Answer) {
        self.failures = 0;
        self.records = Some(answer.records.bounded());
        let half_ms = u64::from(answer.ttl_s) * 500;
        self.due = now.plus_ms(half_ms.clamp(REFRESH_LEAST_MS, REFRESH_MOST_MS));
    }

    fn fail(&mut self, now: Mono) {
        let doubled = FIRST_RETRY_MS.saturating_mul(1 << self.failures.min(10));
        let retry_ms = if self.records.is_some() { REFRESH_LEAST_MS } else { doubled.min(REFRESH_LEAST_MS) };
        self.failures = self.failures.saturating_add(1);
        self.due = now.plus_ms(retry_ms);
    }
}

impl Records {
    const fn answers(&self, question: &Question) -> bool {
        matches!(
            (self, question),
            (Self::Naptr(_), Question::Naptr(_))
                | (Self::Srv(_), Question::Srv(_))
                | (Self::Addresses(_), Question::Addresses(_))
        )
    }

    /// The records that count, the best first where there are too many.
    fn bounded(mut self) -> Self {
        match &mut self {
            Self::Naptr(records) => {
                records.sort_by_key(|naptr| (naptr.order, naptr.preference));
                records.truncate(MAX_RECORDS);
            }
            Self::Srv(records) => {
                records.sort_by_key(|srv| srv.priority);
                records.truncate(MAX_RECORDS);
            }
            Self::Addresses(ips) => {
                let mut seen = BTreeSet::new();
                ips.retain(|ip| seen.insert(*ip));
                ips.truncate(MAX_RECORDS);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::SocketAddr;

    use super::super::Target;
    use super::*;
    use crate::Transport;
    use crate::locate::{Host, Srv};

    const NAME: &str = "trunk.example";

    fn directory() -> Directory {
        let listener = Listener { transport: Transport::Udp, address: "10.0.0.1:5060".parse().unwrap() };
        let host = Host::Name(NAME.to_owned());
        Directory::new(Place { host, port: None, transport: Some(Transport::Udp) }, &[listener])
    }

    fn srv() -> Question {
        Question::Srv(format!("_sip._udp.{NAME}"))
    }

    fn host(name: &str) -> Question {
        Question::Addresses(name.to_owned())
    }

    fn leads_to(target: &str, ttl_s: u32) -> Answer {
        let srv = Srv { priority: 0, weight: 0, port: 5060, target: target.to_owned() };
        Answer { records: Records::Srv(vec![srv]), ttl_s }
    }

    fn at(ip: &str, ttl_s: u32) -> Answer {
        Answer { records: Records::Addresses(vec![ip.parse().unwrap()]), ttl_s }
    }

    fn second(s: u64) -> Mono {
        Mono(0).plus_ms(s * 1_000)
    }

    fn ips(directory: &Directory) -> Vec<String> {
        directory.plan().targets().map(|target| target.address.ip().to_string()).collect()
    }

    /// Found at 192.0.2.1 at once, by answers that are good for so long.
    fn found(ttl_s: u32) -> Directory {
        let mut directory = directory();
        assert_eq!(directory.questions(second(0)), [srv()]);
        assert!(!directory.on_answer(second(0), &srv(), Ok(leads_to("a.example", ttl_s))));
        assert_eq!(directory.next(), Some(second(0)), "the next step is due at once");
        assert_eq!(directory.questions(second(0)), [host("a.example")]);
        assert!(directory.on_answer(second(0), &host("a.example"), Ok(at("192.0.2.1", ttl_s))));
        assert_eq!(ips(&directory), ["192.0.2.1"]);
        directory
    }

    #[test]
    fn an_answer_is_renewed_at_half_of_its_time_within_bounds() {
        for (ttl_s, due_s) in [(600, 300), (60, 30), (5, 30), (0, 30), (7_200, 3_600), (604_800, 3_600)] {
            let mut directory = found(ttl_s);
            assert_eq!(directory.next(), Some(second(due_s)), "{ttl_s}");
            assert_eq!(directory.questions(second(due_s - 1)), []);
            assert_eq!(directory.questions(second(due_s)), [srv(), host("a.example")]);
            assert_eq!(directory.questions(second(due_s)), [], "asked once");
        }
    }

    /// RFC 8767 §4.
    #[test]
    fn what_is_stale_stays_in_use_while_dns_is_away() {
        let mut directory = found(60);
        for round in 1..=2_000 {
            let now = second(30 * round);
            assert_eq!(directory.questions(now).len(), 2, "asked again each 30 s");
            for question in [srv(), host("a.example")] {
                assert!(!directory.on_answer(now, &question, Err(Unanswered)));
            }
            assert_eq!(ips(&directory), ["192.0.2.1"]);
        }
    }

    #[test]
    fn what_never_answered_is_asked_after_2_4_8_16_and_then_30_s() {
        let mut directory = directory();
        let mut now = second(0);
        for wait_s in [2, 4, 8, 16, 30, 30] {
            assert_eq!(directory.questions(now), [srv()]);
            assert!(!directory.on_answer(now, &srv(), Err(Unanswered)));
            let next = now.plus_ms(wait_s * 1_000);
            assert_eq!(directory.next(), Some(next));
            now = next;
        }
    }

    #[test]
    fn a_question_that_nobody_answers_at_all_is_asked_again() {
        let mut directory = directory();
        assert_eq!(directory.questions(second(0)), [srv()]);
        assert_eq!(directory.next(), Some(second(60)));
        assert_eq!(directory.questions(second(60)), [srv()]);
    }

    #[test]
    fn a_change_takes_effect_as_a_whole() {
        let mut directory = found(60);
        directory.questions(second(30));
        assert!(!directory.on_answer(second(30), &srv(), Ok(leads_to("b.example", 60))));
        assert_eq!(ips(&directory), ["192.0.2.1"], "until the new host's address is known");
        assert_eq!(directory.questions(second(30)), [host("b.example")]);
        assert!(directory.on_answer(second(30), &host("b.example"), Ok(at("192.0.2.2", 60))));
        assert_eq!(ips(&directory), ["192.0.2.2"]);
        assert!(!directory.questions(second(60)).contains(&host("a.example")), "nobody needs it any more");
    }

    #[test]
    fn a_zone_that_is_lost_or_lies_takes_no_way_away() {
        let empty_srv = Answer { records: Records::Srv(vec![]), ttl_s: 86_400 };
        let gone = leads_to("", 86_400);
        let wrong_kind = at("192.0.2.66", 86_400);
        for answer in [empty_srv, gone, wrong_kind] {
            let mut directory = found(60);
            directory.questions(second(30));
            assert!(!directory.on_answer(second(30), &srv(), Ok(answer.clone())));
            for question in directory.questions(second(30)) {
                let none = Answer { records: Records::Addresses(vec![]), ttl_s: 86_400 };
                assert!(!directory.on_answer(second(30), &question, Ok(none)));
            }
            assert_eq!(ips(&directory), ["192.0.2.1"], "{answer:?}");
            assert!(directory.next() <= Some(second(60)), "and DNS is asked again soon");
        }
        let mut directory = found(60);
        assert!(!directory.on_answer(second(1), &host("evil.example"), Ok(at("192.0.2.66", 60))), "unasked");
        assert_eq!(ips(&directory), ["192.0.2.1"]);
    }

    #[test]
    fn answers_are_bounded() {
        let many = (0..=255).map(|n| Srv {
            priority: u16::from(u8::MAX - n),
            weight: 0,
            port: 5060,
            target: format!("h{n}.example"),
        });
        let mut directory = directory();
        directory.questions(second(0));
        let answer = Answer { records: Records::Srv(many.collect()), ttl_s: 60 };
        directory.on_answer(second(0), &srv(), Ok(answer));
        let questions = directory.questions(second(0));
        assert_eq!(questions.len(), MAX_RECORDS);
        assert!(questions.contains(&host("h255.example")), "of the lowest priority numbers");
    }

    #[test]
    fn an_address_speaks_for_its_peer_for_hours_after_dns_has_dropped_it() {
        let mut directory = found(60);
        let (old, new) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        directory.questions(second(30));
        directory.on_answer(second(30), &srv(), Ok(leads_to("a.example", 60)));
        assert!(directory.on_answer(second(30), &host("a.example"), Ok(at("192.0.2.2", 60))));
        assert!(directory.is_source(second(30), new) && directory.is_source(second(30), old));
        assert!(directory.is_source(second(30 + 4 * 3_600 - 1), old));
        assert!(!directory.is_source(second(30 + 4 * 3_600), old));
        assert!(!directory.is_source(second(30), "192.0.2.3".parse().unwrap()));
    }

    #[test]
    fn a_remembered_plan_serves_until_dns_is_heard() {
        let remembered: SocketAddr = "192.0.2.7:5060".parse().unwrap();
        let mut directory = directory();
        directory.recall(Plan::of(Target { transport: Transport::Udp, address: remembered }));
        assert_eq!(ips(&directory), ["192.0.2.7"]);
        assert_eq!(directory.questions(second(0)), [srv()]);
        directory.on_answer(second(0), &srv(), Err(Unanswered));
        assert_eq!(ips(&directory), ["192.0.2.7"]);
        directory.on_answer(second(0), &srv(), Ok(leads_to("a.example", 60)));
        directory.questions(second(0));
        directory.on_answer(second(0), &host("a.example"), Ok(at("192.0.2.1", 60)));
        assert_eq!(ips(&directory), ["192.0.2.1"]);
    }
}
