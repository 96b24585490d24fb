//! The order in which a peer's addresses are tried (RFC 2782).
//!
//! Steps of one tier share the calls by weight; a higher tier is for when the lower ones have failed. The
//! addresses within a step follow one another as DNS gave them.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::Target;
use crate::Transport;

/// Addresses of one peer; beyond: the last ones are left out. Carriers publish two to eight.
pub(super) const MAX_TARGETS: usize = 16;

/// Everything found for one peer, tier after tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
}

/// One SRV record's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Lower ones are tried first.
    pub tier: u16,
    /// The share of the calls within the tier.
    pub weight: u16,
    /// One after the other.
    pub targets: Vec<Target>,
}

impl Plan {
    /// Puts steps in order of their tiers, without what is named twice.
    #[must_use]
    pub fn new(mut steps: Vec<Step>) -> Self {
        steps.sort_by_key(|step| step.tier);
        let mut seen = Vec::new();
        for step in &mut steps {
            step.targets.retain(|target| {
                let new = seen.len() < MAX_TARGETS && !seen.contains(target);
                if new {
                    seen.push(*target);
                }
                new
            });
        }
        steps.retain(|step| !step.targets.is_empty());
        Self { steps }
    }

    /// A single address.
    pub(super) fn of(target: Target) -> Self {
        Self::new(vec![Step { tier: 0, weight: 0, targets: vec![target] }])
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Tier after tier.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// All addresses, in no drawn order.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.steps.iter().flat_map(|step| &step.targets).copied()
    }

    /// The order for one call. `draw(most)` gives a number from 0 to `most`, both included, all alike likely.
    pub(crate) fn order(&self, mut draw: impl FnMut(u32) -> u32) -> Vec<Target> {
        let mut order = Vec::with_capacity(self.steps.len());
        for tier in self.steps.chunk_by(|a, b| a.tier == b.tier) {
            let mut left: Vec<&Step> = tier.iter().collect();
            // RFC 2782: those of weight 0 first, so that they are drawn hardly ever beside others.
            left.sort_by_key(|step| step.weight > 0);
            while !left.is_empty() {
                let step = left.remove(pick(&left, &mut draw));
                order.extend(&step.targets);
            }
        }
        order
    }
}

/// "the first in the selected order whose running sum is greater than or equal to the random number" (RFC 2782).
fn pick(left: &[&Step], draw: &mut impl FnMut(u32) -> u32) -> usize {
    if left.len() < 2 {
        return 0;
    }
    let total: u32 = left.iter().map(|step| u32::from(step.weight)).sum();
    let point = draw(total);
    let mut sum = 0;
    let found = left.iter().position(|step| {
        sum += u32::from(step.weight);
        sum >= point
    });
    found.unwrap_or(0)
}

/// A [`Step`] as one line: `0 10 udp:192.0.2.1:5060 udp:[2001:db8::1]:5060`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tier, self.weight)?;
        for target in &self.targets {
            write!(f, " {}:{}", target.transport.word(), target.address)?;
        }
        Ok(())
    }
}

/// No [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a step of a plan")]
pub struct PlanError;

impl FromStr for Step {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut words = text.split_ascii_whitespace();
        let mut number = || words.next()?.parse().ok();
        let (tier, weight) = number().zip(number()).ok_or(PlanError)?;
        let targets = words.map(target).collect::<Option<Vec<_>>>().ok_or(PlanError)?;
        Ok(Self { tier, weight, targets })
    }
}

fn target(word: &str) -> Option<Target> {
    let (transport, address) = word.split_once(':')?;
    let transport = Transport::ALL.into_iter().find(|known| known.word() == transport)?;
    Some(Target { transport, address: address.parse::<SocketAddr>().ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::core::Generator;

    fn step(tier: u16, weight: u16, host: u8) -> Step {
        Step { tier, weight, targets: vec![at(host)] }
    }

    fn at(host: u8) -> Target {
        Target { transport: Transport::Udp, address: SocketAddr::from(([192, 0, 2, host], 5060)) }
    }

    fn hosts(order: &[Target]) -> Vec<u8> {
        let last = |target: &Target| match target.address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        order.iter().map(last).collect()
    }

    #[test]
    fn lower_tiers_come_first_and_nothing_is_drawn_where_there_is_no_choice() {
        let plan = Plan::new(vec![step(20, 7, 3), step(10, 0, 1), step(15, 1, 2)]);
        assert_eq!(hosts(&plan.order(|_| panic!("there is nothing to draw"))), [1, 2, 3]);
    }

    /// RFC 2782.
    #[test]
    fn the_running_sum_decides() {
        // Sorted by "weight 0 first" the running sums are 0, 10, 40, 100.
        let plan = Plan::new(vec![step(0, 10, 1), step(0, 0, 2), step(0, 30, 3), step(0, 60, 4)]);
        for (point, first) in [(0, 2), (1, 1), (10, 1), (11, 3), (40, 3), (41, 4), (100, 4)] {
            let mut points = vec![point];
            let order = plan.order(|_| points.pop().unwrap_or(0));
            assert_eq!(hosts(&order)[0], first, "{point}");
            assert_eq!(order.len(), 4);
        }
    }

    #[test]
    fn an_address_named_twice_is_tried_once() {
        let plan = Plan::new(vec![step(1, 0, 1), step(0, 0, 1), step(2, 0, 2)]);
        assert_eq!(hosts(&plan.order(|_| 0)), [1, 2]);
        let many = Plan::new((0..=99).map(|host| step(u16::from(host), 0, host)).collect());
        assert_eq!(many.targets().count(), MAX_TARGETS);
    }

    #[test]
    fn a_step_survives_being_written_down() {
        let step = Step {
            tier: 3,
            weight: 65_535,
            targets: vec![
                at(7),
                Target { transport: Transport::Tcp, address: "[2001:db8::1]:5070".parse().unwrap() },
            ],
        };
        assert_eq!(step.to_string(), "3 65535 udp:192.0.2.7:5060 tcp:[2001:db8::1]:5070");
        assert_eq!(step.to_string().parse(), Ok(step));
        for text in ["", "1", "1 x", "1 2 udp", "1 2 udp:192.0.2.7", "1 2 smoke:192.0.2.7:5060", "70000 1"] {
            assert_eq!(text.parse::<Step>(), Err(PlanError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn shares_follow_weights(seed: [u8; 32], weights in prop::collection::vec(1..=100_u16, 2..6)) {
            const CALLS: u32 = 4_000;
            let steps = weights.iter().zip(0..).map(|(weight, host)| step(0, *weight, host)).collect();
            let plan = Plan::new(steps);
            let mut generator = Generator::new(seed);
            let mut firsts: BTreeMap<u8, u32> = BTreeMap::new();
            for _ in 0..CALLS {
                let order = plan.order(|most| generator.up_to(most));
                prop_assert_eq!(order.len(), weights.len());
                *firsts.entry(hosts(&order)[0]).or_default() += 1;
            }
            // RFC 2782 draws from 0 to the sum, both included: the first has one number more.
            let numbers = f64::from(weights.iter().map(|weight| u32::from(*weight)).sum::<u32>() + 1);
            for (weight, host) in weights.iter().zip(0..) {
                let share = (f64::from(*weight) + f64::from(u8::from(host == 0))) / numbers;
                let expected = share * f64::from(CALLS);
                // Six standard deviations: one failure in 10^9 draws of the seed.
                let most_off = 6.0 * (expected * (1.0 - share)).sqrt() + 1.0;
                let drawn = f64::from(firsts.get(&host).copied().unwrap_or(0));
                prop_assert!((drawn - expected).abs() < most_off, "{drawn} of {expected} for weight {weight}");
            }
        }
    }
}
