//! See `sip_gateway::fuzz::description`.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| sip_gateway::fuzz::description(octets));
