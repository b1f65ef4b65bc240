//! The bootstrap says which of its settings is missing or wrong. As it has a test here, cargo builds it with the tests:
//! those in `tests/it` deploy it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

const LAMBDA: [(&str, &str); 5] = [
    ("METRICS_NAMESPACE", "kassa-test"),
    ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
    ("AWS_REGION", "eu-west-1"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
];

const DEPLOYMENT: [(&str, &str); 6] = [
    ("EVENTS_TABLE", "kassa-test-events"),
    ("SHOPS_TABLE", "kassa-test-shops"),
    ("TO_DECRYPT_TOPIC", "arn:aws:sns:eu-west-1:000000000000:kassa-test-to-decrypt"),
    ("TO_PROCESS_TOPIC", "arn:aws:sns:eu-west-1:000000000000:kassa-test-to-process"),
    ("DECRYPT_ERRORS_TOPIC", "arn:aws:sns:eu-west-1:000000000000:kassa-test-decrypt-errors"),
    ("KEY_PREFIX", "kassa-test-"),
];

/// What it says as it does not start.
#[track_caller]
fn said(handler: &str, without: &str, with: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.env_clear().envs(LAMBDA).envs(DEPLOYMENT).env("_HANDLER", handler);
    let output = command.env_remove(without).envs(with.iter().copied()).output().unwrap();
    assert!(!output.status.success(), "{handler} starts without {without}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_setting_that_is_missing_is_named() {
    let of_lambda = ["AWS_REGION", "AWS_SECRET_ACCESS_KEY", "METRICS_NAMESPACE"];
    let of_accept = ["EVENTS_TABLE", "SHOPS_TABLE", "TO_DECRYPT_TOPIC", "KEY_PREFIX"];
    for (handler, names) in [
        ("accept", &[&of_accept[..], &of_lambda].concat()[..]),
        (
            "decrypt",
            &["EVENTS_TABLE", "SHOPS_TABLE", "TO_PROCESS_TOPIC", "DECRYPT_ERRORS_TOPIC", "KEY_PREFIX"],
        ),
        ("process", &["EVENTS_TABLE", "SHOPS_TABLE", "DECRYPT_ERRORS_TOPIC"]),
        ("project", &["SHOPS_TABLE"]),
        ("watch", &["EVENTS_TABLE", "SHOPS_TABLE"]),
        ("reconcile", &["EVENTS_TABLE", "SHOPS_TABLE", "TO_DECRYPT_TOPIC"]),
    ] {
        for name in names {
            let said = said(handler, name, &[]);
            assert!(said.contains(&format!("{name} is missing")), "{handler} without {name}: {said}");
        }
    }
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    let said_of_topic = said("accept", "", &[("TO_DECRYPT_TOPIC", "to-decrypt")]);
    assert!(said_of_topic.contains("TO_DECRYPT_TOPIC must be"), "{said_of_topic}");
    let said_of_handler = said("nobody", "", &[]);
    let handlers = "accept, decrypt, process, project, watch or reconcile";
    assert!(said_of_handler.contains(&format!("_HANDLER must be {handlers}")), "{said_of_handler}");
}
