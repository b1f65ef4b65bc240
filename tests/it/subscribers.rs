//! Subscribers in the shop on one machine, through the command as its users have it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::process::{Up, accepted, json, kassa};

/// A shop in which a minute takes half a second, and so on.
const FAST: [&str; 6] = ["--set", "MINUTE=500ms", "--set", "GROUP_WAIT=1s", "--set", "RESOLVE_AFTER=4s"];

/// Sells with the command, to the shop that is open.
fn sell(up: &Up, more: &[&str]) {
    accepted(&kassa(&[&["sell", "--url", &up.url, "--shop", "AMIS1", "--json"], more].concat()));
}

/// What the outbox has of shops, by channel: text messages and alerts. What the shop's own alarms say is of none.
fn outbox(data: &Path) -> (Vec<Value>, Vec<Value>) {
    let output = kassa(&["outbox", "--json", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|notice| notice["shop_id"].is_string())
        .partition(|notice: &Value| notice["channel"] == "sms")
}

fn until<T>(what: &str, mut ask: impl FnMut() -> T, right: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if right(&answer) {
            return answer;
        }
        assert!(
            begun.elapsed() < Duration::from_mins(5),
            "in five minutes it did not come about that {what}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn text(notice: &Value) -> &str {
    notice["text"].as_str().unwrap()
}

#[test]
fn a_till_with_the_wrong_key_is_found_the_manager_told_once_and_again_when_it_is_over() {
    // given a shop, and a till that has another shop's key
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let up = Up::start_with(data, &FAST);
    sell(&up, &["--key-of", "AMIS2", "--till", "till-9", "--count", "7"]);

    // then the manager gets one text message and ICT one alert
    let told = |(sms, alerts): &(Vec<Value>, Vec<Value>)| !sms.is_empty() && !alerts.is_empty();
    let (sms, alerts) = until("people are told", || outbox(data), told);
    assert_eq!((sms.len(), alerts.len()), (1, 1));
    assert_eq!((&sms[0]["to"], &sms[0]["shop_id"]), (&"+31600000001".into(), &"AMIS1".into()));
    assert!(text(&sms[0]).chars().count() <= 160, "{}", text(&sms[0]));
    assert_eq!((&alerts[0]["reason"], &alerts[0]["shop_id"]), (&"wrong-key".into(), &"AMIS1".into()));
    assert!(alerts[0]["texts"]["email"].as_str().unwrap().contains("kassa audit keys"));

    // and the audit says which key it was, from which till, how often and what to do
    let audit = ["audit", "keys", "--since", "1h", "--shop", "AMIS1", "--data", data.to_str().unwrap()];
    let found = || json(&[&audit[..], &["--json"]].concat());
    let found = until("all are counted", found, |found| found.to_string().contains("\"count\":7"));
    for told in ["AMIS2", "till-9", "127.0.0.0/24"] {
        assert!(found.to_string().contains(told), "{told} in {found}");
    }
    let shown = String::from_utf8(kassa(&audit).stdout).unwrap();
    assert!(shown.contains("AMIS2") && shown.contains("till-9") && shown.contains('7'), "{shown}");

    // when the till is mended and sells again, and what it sold before is booked
    sell(&up, &["--count", "3"]);
    let book = ["retry", "--shop", "AMIS1", "--opened-with", "AMIS2", "--data", data.to_str().unwrap()];
    let booked = kassa(&book);
    assert!(booked.status.success(), "{}", String::from_utf8_lossy(&booked.stderr));
    let (sms, alerts) = until("it is over", || outbox(data), |(sms, alerts)| sms.len() + alerts.len() >= 4);
    assert_eq!((sms.len(), alerts.len()), (2, 2));
    assert_ne!(text(&sms[0]), text(&sms[1]));
    assert_eq!(alerts[1]["severity"], "info");

    // then that was all, also after the shop was closed and opened again
    assert!(up.terminate().success());
    let _up = Up::start_with(data, &FAST);
    std::thread::sleep(Duration::from_secs(3));
    let (sms, alerts) = outbox(data);
    assert_eq!((sms.len(), alerts.len()), (2, 2));
}

#[test]
fn a_manager_is_told_when_the_group_wait_is_over_whenever_the_minute_comes_and_though_the_shop_sells_on() {
    // given a shop whose minutes are minutes
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start_with(folder.path(), &["--set", "GROUP_WAIT=4s", "--sync", "normal"]);
    let begun = Instant::now();
    sell(&up, &["--key-of", "AMIS2", "--count", "3"]);
    let rejected = Instant::now();
    sell(&up, &["--count", "3"]);
    let told = |(sms, alerts): &(Vec<Value>, Vec<Value>)| !sms.is_empty() && !alerts.is_empty();
    let (sms, alerts) = until("people are told", || outbox(folder.path()), told);
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(rejected.elapsed() <= Duration::from_secs(9), "{:?}", rejected.elapsed());
    assert!(text(&sms[0]).contains("3 verkopen"), "{}", text(&sms[0]));
    // and ICT reads so after it was sent
    assert!(
        alerts[0]["texts"]["email"].as_str().unwrap().contains("was sent a text message at"),
        "{alerts:?}"
    );
    assert!(sms[0]["at"].as_str() <= alerts[0]["at"].as_str(), "{sms:?} {alerts:?}");
}

/// A thousand, or as many as `KASSA_FAILURES` says: `make kill` has ten thousand.
#[test]
fn a_thousand_failures_are_one_text_message_also_when_the_shop_is_killed_among_them() {
    let failures: u64 = std::env::var("KASSA_FAILURES").map_or(1_000, |text| text.parse().unwrap());
    let half = (failures / 2).to_string();
    // given a shop that is killed while a till with the wrong key sells
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let fast = [&FAST[..], &["--sync", "normal"]].concat();
    let wrong = ["--key-of", "AMIS2", "--count", &half, "--concurrency", "64"];
    let up = Up::start_with(data, &fast);
    sell(&up, &wrong);
    up.kill();
    // when it is opened again and the till goes on
    let up = Up::start_with(data, &fast);
    sell(&up, &wrong);

    // then every failure is counted once
    let data_folder = data.to_str().unwrap();
    let found = || json(&["audit", "keys", "--json", "--data", data_folder]).to_string();
    let all = format!("\"count\":{failures}");
    until("all are counted", found, |found| found.contains(&all));
    // and there was one text message
    let (sms, alerts) =
        until("people are told", || outbox(data), |(sms, alerts)| !sms.is_empty() && !alerts.is_empty());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((sms.len(), alerts.len(), outbox(data)), (1, 1, (sms, alerts)));
    assert_eq!(json(&["check", "--json", "--data", data_folder])["rejected"], failures);
}
