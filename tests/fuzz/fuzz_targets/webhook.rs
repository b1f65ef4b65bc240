//! Whatever is posted to the warehouse: its headers and its body never panic whoever reads them, only what was signed with
//! the secret is taken, and a delivery reads back as it was written.
//!
//! An input is the three headers, a line each, and the body; with an empty signature it is signed first.

#![no_main]

use std::sync::LazyLock;

use jiff::Timestamp;
use kassa_bus::webhook::{Headers, SalesDelivery, Secret, sign, verify};
use libfuzzer_sys::fuzz_target;

static SECRETS: LazyLock<[Secret; 1]> =
    LazyLock::new(|| ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret")]);

const NOW: i64 = 1_764_000_000;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok()).unwrap_or_default();
    let (id, timestamp, signature) = (text(), text(), text());
    let body = parts.next().unwrap_or_default();
    let now = Timestamp::from_second(NOW).expect("a time");
    let header = |signature, timestamp| {
        Headers::from(move |name| match name {
            "webhook-id" => Some(id),
            "webhook-timestamp" => Some(timestamp),
            _ => Some(signature),
        })
    };
    if let Ok(headers) = header(signature, timestamp) {
        let genuine = sign(id, now, body, &*SECRETS);
        let taken = verify(headers, body, &*SECRETS, now).is_ok();
        // Of base64 there is one way to write it; a list may hold others beside it.
        assert!(!taken || signature.split(' ').any(|one| one == genuine), "taken without being signed");
    }
    if !id.is_empty() {
        let (signed, at) = (sign(id, now, body, &*SECRETS), NOW.to_string());
        let headers = header(&signed, &at).expect("all are there");
        assert!(verify(headers, body, &*SECRETS, now).is_ok());
        let headers = header(&signed, &at).expect("all are there");
        let other = [body, b" "].concat();
        assert!(verify(headers, &other, &*SECRETS, now).is_err());
    }
    match SalesDelivery::read(body) {
        Ok(delivery) => {
            let anew = SalesDelivery::read(&delivery.to_json());
            assert!(anew.is_ok_and(|anew| anew.data == delivery.data && anew.timestamp == delivery.timestamp));
        }
        Err(error) => assert!(error.to_string().len() <= 200),
    }
});
