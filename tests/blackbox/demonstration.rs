//! `earmark demo --once`: what the README promises.
