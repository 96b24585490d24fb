//! Entries that are placed together say what they would say one by one.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What may come at any time, whether its call is known or not.
fn beside(choice: u8) -> Stamped {
    let of = u128::from(choice / 4) + 1;
    let entry = match choice % 4 {
        0 => Entry::CallRinging { call: call(of + 3) },
        1 => Entry::CallsLinked { call: call(of), with: call(of % 4 + 1) },
        _ => ladder(
            of,
            &[rung(choice.into(), "INVITE pbx", 0), rung(of as u16, "200 OK", choice.into())],
            of as u32,
        ),
    };
    at(1, entry)
}

/// Entries of several calls as a busy hour mixes them, with some of what should not happen in between.
fn mixed(order: &[u8]) -> Vec<Stamped> {
    let mut calls =
        [consent_call(1), dispatch_call(2), consent_call(3), dispatch_call(4)].map(VecDeque::from);
    let (mut entries, mut last) = (Vec::new(), audit_entry(0));
    for choice in order {
        let next = match choice % 8 {
            // Said again; before a call's start, or of one that never starts; an end before its time.
            4 => Some(last.clone()),
            5 => Some(beside(choice / 8)),
            6 => calls[usize::from(choice / 8) % 4].pop_back(),
            7 => Some(audit_entry(i64::from(*choice))),
            n => calls[usize::from(n)].pop_front(),
        };
        if let Some(next) = next {
            last = next.clone();
            entries.push(next);
        }
    }
    entries.extend(calls.into_iter().flatten());
    entries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn entries_taken_together_say_what_they_say_one_by_one(
        order in prop::collection::vec(any::<u8>(), 0..60),
        together in 2usize..40,
    ) {
        let entries = numbered(&mixed(&order));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [one_by_one, taken_together] = [1, together].map(|size| runtime.block_on(async {
            let bench = Bench::new().await;
            for batch in entries.chunks(size) {
                bench.store.deliver(batch).await.unwrap();
            }
            dump(&bench.store).await
        }));
        prop_assert_eq!(one_by_one, taken_together);
    }
}
