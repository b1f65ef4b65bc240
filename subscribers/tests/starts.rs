//! The bootstrap says which of its settings is missing or wrong. As it has a test here, cargo builds it with the tests:
//! those in `tests/it` deploy it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

const SETTINGS: [(&str, &str); 12] = [
    ("METRICS_NAMESPACE", "kassa-test"),
    ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
    ("AWS_REGION", "eu-west-1"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("TABLE", "kassa-test-table"),
    ("SHOPS_TABLE", "kassa-test-shops"),
    ("KEY_PREFIX", "kassa-test-"),
    ("ALERTS_TOPIC", "arn:aws:sns:eu-west-1:000000000000:kassa-test-alerts"),
    ("QUEUE_URL", "http://127.0.0.1:1/000000000000/kassa-test-queue"),
    ("DEAD_LETTERS_URL", "http://127.0.0.1:1/000000000000/kassa-test-dead-letters"),
    ("WAREHOUSE_URL", "https://warehouse.example.com/sales"),
];

/// What it says as it does not start.
#[track_caller]
fn said(handler: &str, without: &str, with: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_subscribers"));
    command.env_clear().envs(SETTINGS).env("_HANDLER", handler);
    let output = command.env_remove(without).envs(with.iter().copied()).output().unwrap();
    assert!(!output.status.success(), "{handler} starts without {without}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_setting_that_is_missing_is_named() {
    for (handler, names) in [
        ("bad-key-auditor", &["METRICS_NAMESPACE", "TABLE", "SHOPS_TABLE", "KEY_PREFIX"][..]),
        ("decrypt-error-alerter", &["TABLE", "SHOPS_TABLE", "ALERTS_TOPIC", "QUEUE_URL"]),
        ("warehouse-webhook", &["TABLE", "ALERTS_TOPIC", "QUEUE_URL", "DEAD_LETTERS_URL"]),
    ] {
        for name in names {
            let said = said(handler, name, &[]);
            assert!(said.contains(&format!("{name} is missing")), "{handler} without {name}: {said}");
        }
    }
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    let said_of_handler = said("nobody", "", &[]);
    assert!(said_of_handler.contains("_HANDLER must be a subscriber's name"), "{said_of_handler}");
    let said_of_interval = said("warehouse-webhook", "", &[("SCHEDULE_INTERVAL", "often")]);
    assert!(said_of_interval.contains("SCHEDULE_INTERVAL must be a length of time"), "{said_of_interval}");
    let said_of_url = said("warehouse-webhook", "WAREHOUSE_URL", &[]);
    assert!(said_of_url.contains("warehouse-webhook is switched off"), "{said_of_url}");
}
