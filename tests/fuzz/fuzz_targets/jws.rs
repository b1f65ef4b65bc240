//! Whatever a sealed sale holds: `Jws::parse` never panics, and only what the till's key signed is by it, to the letter:
//! whoever has another token of the same till makes no second one of it.
//!
//! A short input is edits to a genuine token, so that the fuzzer need not find its signature first.

#![no_main]

use std::sync::LazyLock;

use kassa_bus::jws::{Jws, Signer};
use libfuzzer_sys::fuzz_target;

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let pkcs8 = Signer::new_key().expect("randomness");
    Signer::new(&"till-1".parse().expect("a till"), &pkcs8).expect("a key")
});

static GENUINE: LazyLock<String> =
    LazyLock::new(|| SIGNER.sign(br#"{"sale_id":"x","shop_id":"AMIS1","till":"till-1","sales":[]}"#).to_string());

const MAX_EDITS: usize = 64;

fn only_genuine_is_by_the_till(text: &str) {
    let Ok(jws) = Jws::parse(text) else { return };
    assert_eq!(jws.is_by(&SIGNER.key()), text == *GENUINE);
}

/// Each edit is four bytes: what to do, where (two bytes), and with what.
fn edited(edits: &[u8]) -> Option<String> {
    let mut text = GENUINE.clone().into_bytes();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_be_bytes([edit[1], edit[2]])) % text.len();
        match edit[0] % 3 {
            0 => text[at] = edit[3],
            1 => text.insert(at, edit[3]),
            _ => drop(text.remove(at)),
        }
    }
    String::from_utf8(text).ok()
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        only_genuine_is_by_the_till(text);
    }
    if data.len() <= MAX_EDITS
        && let Some(text) = edited(data)
    {
        only_genuine_is_by_the_till(&text);
    }
});
