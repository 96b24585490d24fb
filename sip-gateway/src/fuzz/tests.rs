//! The targets over their corpora, and over what is a little different from them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use proptest::prelude::*;

use super::{datagram, description, digest, stream};

type Target = fn(&[u8]);

/// The RFCs' torture messages are seeds too.
const TARGETS: [(Target, &[&str]); 4] = [
    (
        datagram,
        &["fuzz/corpus/datagram", "sip-gateway/tests/torture/rfc4475", "sip-gateway/tests/torture/rfc5118"],
    ),
    (stream, &["fuzz/corpus/stream"]),
    (description, &["fuzz/corpus/description"]),
    (digest, &["fuzz/corpus/digest"]),
];

/// The files of a corpus, in an order that is the same everywhere.
fn corpus(folders: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let files = |folder| std::fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
    let mut paths: Vec<_> = folders.iter().flat_map(files).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn every_file_of_the_corpora_holds() {
    for (target, folders) in TARGETS {
        let files = corpus(folders);
        assert!(files.len() >= 20, "{folders:?} holds {} files", files.len());
        files.iter().for_each(|octets| target(octets));
    }
}

/// Replaces, removes, inserts and doubles octets.
fn edited(mut octets: Vec<u8>, edits: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\t ;:,<>\"\\@=?/[]%0-\0\x7f\xff\xc3";
    for (index, kind, byte) in edits {
        if octets.is_empty() {
            break;
        }
        let at = index.index(octets.len());
        let telling = TELLING.get(usize::from(*byte) % TELLING.len()).copied().unwrap_or(*byte);
        match kind {
            0 => octets[at] = *byte,
            1 => drop(octets.remove(at)),
            2 => octets.insert(at, telling),
            3 => octets[at] = telling,
            _ => octets.extend_from_within(at..),
        }
        octets.truncate(8_000);
    }
    octets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_like_a_file_of_the_corpora_holds(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<u8>()), 1..12),
    ) {
        thread_local!(static CORPORA: Vec<Vec<Vec<u8>>> = TARGETS.map(|(_, folders)| corpus(folders)).to_vec());
        CORPORA.with(|corpora| {
            for ((target, _), files) in TARGETS.iter().zip(corpora) {
                target(&edited(which.get(files).clone(), &edits));
            }
        });
    }
}
