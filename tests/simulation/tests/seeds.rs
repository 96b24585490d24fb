//! Some seeds in every test run: the first of them, and all that ever failed.

use simulation::run;

fn hold(seeds: impl IntoIterator<Item = u64>) {
    let broken = seeds.into_iter().filter_map(|seed| run(seed, 60).err());
    let told: Vec<String> = broken
        .map(|failure| format!("seed {}: {} violated: {}", failure.seed, failure.invariant, failure.what))
        .collect();
    assert_eq!(told, [] as [String; 0]);
}

#[test]
fn the_first_seeds_hold() {
    hold(0..20);
}

#[test]
fn seeds_that_once_failed_hold() {
    let lines = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert!(!seeds.is_empty());
    hold(seeds);
}

#[test]
fn a_seed_is_the_same_twice() {
    let [one, two] = [0, 1].map(|_| run(7, 60).map(|counts| counts.0).map_err(|failure| failure.what));
    assert_eq!(one, two);
}
