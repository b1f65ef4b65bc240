//! Whatever is posted in SNS's name: reading it never panics, nothing is fetched but from the SNS of one of our topics, and
//! without a signature by its certificate nothing is believed.

#![no_main]

use std::sync::LazyLock;

use jiff::Timestamp;
use kassa::warehouse::{SigningCertificate, SnsMessage, TopicArn};
use libfuzzer_sys::fuzz_target;

static TOPICS: LazyLock<[TopicArn; 1]> =
    LazyLock::new(|| ["arn:aws:sns:eu-west-1:123456789012:kassa-prod-to-process".parse().expect("a topic")]);

/// Where the topic's SNS is.
const HOST: &str = "https://sns.eu-west-1.amazonaws.com/";

fuzz_target!(|data: &[u8]| {
    let _ = SigningCertificate::from_pem(data);
    let Ok(message) = SnsMessage::read(data) else { return };
    let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("a time");
    if let Ok(url) = message.certificate_url(&*TOPICS, now) {
        assert!(url.starts_with(HOST) && url.ends_with(".pem"), "{url}");
        assert!(!url[HOST.len()..].contains(['/', '?', '#', '@', '%', '\\']), "{url}");
    }
    if let Ok(url) = message.confirmation_url(&*TOPICS) {
        assert!(url.starts_with(&format!("{HOST}?")), "{url}");
    }
});
