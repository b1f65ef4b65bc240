//! Whatever text is posted as an envelope: neither `Jwe::parse` nor `Jwe::open` panics, and with the
//! content key in hand only what was sealed with it opens. An envelope that opens is a genuine one
//! to the letter; only its encrypted key, which the tag does not cover, may be another.
//!
//! A long input is the text itself. A short one, too short for an envelope, is also read as edits to
//! a genuine envelope, so that the fuzzer need not find its 400 characters first.

#![no_main]

use std::sync::LazyLock;

use kassa_bus::jwe::{ContentKey, Jwe, Sealer};
use libfuzzer_sys::fuzz_target;

/// The content key of the genuine seeds. Their encrypted key is this one under an RSA key that
/// nobody has any more.
const KEY: [u8; 32] = [7; 32];

/// Sealed with [`KEY`], each with its own header, content or both.
const SEEDS: [&str; 3] = [
    include_str!("../seeds/envelope/genuine.jwe"),
    include_str!("../seeds/envelope/genuine-empty.jwe"),
    include_str!("../seeds/envelope/genuine-header.jwe"),
];

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const MAX_EDITS: usize = 64;

fn key() -> ContentKey {
    ContentKey::new(&KEY).expect("32 bytes")
}

fn parsed(text: &str) -> Jwe<'_> {
    Jwe::parse(text).expect("genuine")
}

static CONTENT_KEY: LazyLock<ContentKey> = LazyLock::new(key);

/// The seeds, and one that is sealed by today's code.
static GENUINE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut genuine: Vec<String> = SEEDS.map(str::to_owned).into();
    let seed = parsed(SEEDS[0]);
    let sealer = Sealer::new(key(), &seed.kid, &seed.encrypted_key);
    genuine.push(sealer.seal(b"{\"sales\":[]}").expect("randomness"));
    for text in &genuine {
        assert!(parsed(text).open(&CONTENT_KEY).is_ok(), "{text} is not genuine");
    }
    genuine
});

/// Each edit is four bytes: what to do, where (two bytes), and with what.
fn edited(edits: &[u8]) -> Option<String> {
    let (&which, edits) = edits.split_first()?;
    let mut text = GENUINE[usize::from(which) % GENUINE.len()].clone().into_bytes();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_be_bytes([edit[1], edit[2]])) % text.len();
        match edit[0] % 4 {
            // Counted from what is there, so that it is a change whatever the random iv.
            0 => {
                let old = BASE64URL.iter().position(|c| *c == text[at]).unwrap_or(0);
                text[at] = BASE64URL[(old + 1 + usize::from(edit[3]) % 63) % 64];
            }
            1 => text[at] = edit[3],
            2 => text.insert(at, edit[3]),
            _ => drop(text.remove(at)),
        }
    }
    String::from_utf8(text).ok()
}

fn only_genuine_opens(text: &str) {
    let Ok(jwe) = Jwe::parse(text) else { return };
    let encrypted_key = jwe.encrypted_key.clone();
    if jwe.open(&CONTENT_KEY).is_err() {
        assert!(!GENUINE.iter().any(|genuine| genuine == text), "a genuine envelope does not open");
        return;
    }
    let covered = |text: &str| -> Vec<String> {
        text.split('.').enumerate().filter(|(part, _)| *part != 1).map(|(_, text)| text.to_owned()).collect()
    };
    let genuine =
        GENUINE.iter().find(|genuine| covered(genuine) == covered(text)).expect("what opens was sealed");
    assert!(
        text == genuine || encrypted_key != parsed(genuine).encrypted_key,
        "the same envelope in other letters"
    );
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        only_genuine_opens(text);
    }
    if data.len() <= MAX_EDITS
        && let Some(text) = edited(data)
    {
        only_genuine_opens(&text);
    }
});
