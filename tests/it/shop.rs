//! The shop on one machine, as its users have it: the real command, over real HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kassa::shops::Shops;
use kassa_bus::limits::MAX_BODY;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::process::{Up, accepted, command, json, kassa};
use crate::common::unopenable;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn path(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

/// A raw request, so that nothing corrects what we send. Gives status, head and body.
fn http(up: &Up, method: &str, target: &str, body: &[u8]) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(up.url.strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that has seen enough may close before it was all sent.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head[9..12].parse().unwrap(),
        head.to_ascii_lowercase(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

#[test]
fn up_prints_its_urls_and_answers_them() {
    let folder = folder();
    let up = Up::start(folder.path());
    let printed = up.printed.concat();
    for line in
        [format!("POST {}/shop", up.url), format!("{}/shop/AMIS1/key", up.url), format!("{}/health", up.url)]
    {
        assert!(printed.contains(&line), "{printed}");
    }
    assert_eq!(http(&up, "GET", "/health", b"").2["status"], "ok");
    let (status, head, jwk) = http(&up, "GET", "/shop/AMIS1/key", b"");
    assert_eq!(status, 200);
    assert!(head.contains("cache-control: public, max-age=3600"), "{head}");
    assert_eq!(
        (&jwk["kty"], &jwk["use"], &jwk["alg"]),
        (&"RSA".into(), &"enc".into(), &"RSA-OAEP-256".into())
    );
    assert_eq!(jwk["kid"].as_str().unwrap().len(), 43);
    assert_eq!(http(&up, "GET", "/shop/NOWHERE/key", b"").0, 404);
    assert_eq!(http(&up, "GET", "/shop/..%2Fx/key", b"").0, 404);
}

#[test]
fn bad_requests_are_told_what_is_wrong_and_leave_nothing() {
    let folder = folder();
    let up = Up::start(folder.path());
    let large = vec![b' '; MAX_BODY + 1];
    let deep = "[".repeat(60_000);
    let nowhere = format!(r#"{{"shop_id":"NOWHERE","content_base64":"{}"}}"#, unopenable());
    let cases: Vec<(&[u8], u16, Option<&str>)> = vec![
        (b"", 400, Some("body")),
        (b"hello", 400, Some("body")),
        (b"\xff\xfe", 400, Some("body")),
        (b"[]", 400, Some("body")),
        (deep.as_bytes(), 400, Some("body")),
        (br#"{"shop_id":5}"#, 400, Some("shop_id")),
        (br#"{"shop_id":"AMIS1"}"#, 400, Some("sealed")),
        (nowhere.as_bytes(), 404, Some("shop_id")),
        (br#"{"shop_id":"AMIS1","content_base64":"AAAA"}"#, 400, Some("content_base64")),
        (br#"{"shop_id":"AMIS1","content_base64":"%%%"}"#, 400, Some("content_base64")),
        (br#"{"shop_id":"AMIS1","content_base64":"AAAA","message_id":"17"}"#, 400, Some("message_id")),
        (
            br#"{"shop_id":"AMIS1","message_id":"019394e8-6c00-7000-8000-000000000001","sealed":"a.b"}"#,
            400,
            Some("sealed"),
        ),
        (&large, 413, None),
    ];
    for (body, status, field) in cases {
        let (answered, head, problem) = http(&up, "POST", "/shop", body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        assert_eq!(answered, status, "{shown}: {problem}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert_eq!(
            (problem["status"].as_u64(), problem["field"].as_str()),
            (Some(status.into()), field),
            "{shown}"
        );
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    for (method, target, status) in [("GET", "/nowhere", 404), ("POST", "/shop/", 404), ("GET", "/shop", 405)]
    {
        let (answered, head, problem) = http(&up, method, target, b"");
        assert_eq!((answered, problem["status"].as_u64()), (status, Some(status.into())));
        assert!(head.contains("application/problem+json"));
    }
    assert_eq!(json(&["check", "--json", "--data", path(&folder)])["accepted"], 0);
}

#[test]
fn questions_have_the_same_answers_open_and_closed() {
    let folder = folder();
    let data = path(&folder);
    let up = Up::start(folder.path());
    let sold = json(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "20", "--json"]);
    assert_eq!((&sold["accepted"], &sold["failed"]), (&20.into(), &0.into()));
    json(&["sell", "--shop", "AMIS2", "--url", &up.url, "--count", "5", "--format", "classic", "--json"]);
    let wrong =
        accepted(&kassa(&["sell", "--shop", "AMIS2", "--key-of", "AMIS1", "--url", &up.url, "--json"]));
    up.settled();
    let id = sold["last_sale"].as_str().unwrap();
    let ask = || {
        let events = String::from_utf8(kassa(&["events", "--shop", "AMIS1", "--data", data]).stdout).unwrap();
        let day = events
            .lines()
            .next()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["stream"].as_str().unwrap()[6..].to_owned()
            })
            .unwrap();
        let of_day = kassa(&["events", "--shop", "AMIS1", "--day", &day, "--data", data]).stdout;
        (
            json(&["sale", id, "--json", "--data", data]),
            json(&["stock", "--json", "--data", data]),
            json(&["check", "--json", "--data", data]),
            events,
            String::from_utf8(of_day).unwrap(),
            String::from_utf8(kassa(&["sale", id, "--data", data]).stdout).unwrap(),
            String::from_utf8(kassa(&["stock", "--shop", "AMIS2", "--data", data]).stdout).unwrap(),
        )
    };
    let open = ask();
    assert!(up.terminate().success());
    assert_eq!(open, ask());
    let (sale, stock, check, events, of_day, text, table) = open;
    assert_eq!(sale["status"], "recorded");
    assert_eq!(
        check,
        serde_json::json!({"accepted": 26, "recorded": 25, "rejected": 1, "pending": 0, "mismatches": []})
    );
    assert_eq!(events.lines().count(), 40);
    assert_eq!(events.lines().count(), of_day.lines().count());
    assert!(
        stock
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["record_type"] == "s-00098" && row["stock"].is_string())
    );
    assert!(text.contains("recorded") && table.contains("Espresso"));
    let rejected = json(&["sale", wrong["last_sale"].as_str().unwrap(), "--json", "--data", data]);
    assert_eq!(rejected["events"][1]["body"]["detail"], "sealed with AMIS1's key");
    assert!(kassa(&["rebuild", "--data", data]).status.success());
    assert_eq!(stock, json(&["stock", "--json", "--data", data]));
}

#[test]
fn a_second_shop_on_the_same_data_says_who_has_it() {
    let folder = folder();
    let up = Up::start(folder.path());
    let second = kassa(&["up", "--listen", "127.0.0.1:0", "--data", path(&folder)]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(said.contains("open already") && said.contains(&up.pid().to_string()), "{said}");
}

#[test]
fn asked_to_stop_it_ends_what_was_begun() {
    let folder = folder();
    let up = Up::start(folder.path());
    json(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "300", "--concurrency", "64", "--json"]);
    // when it is stopped with sales on their way
    assert!(up.terminate().success());
    // then each of them came to its end
    let check = json(&["check", "--json", "--data", path(&folder)]);
    assert_eq!((&check["recorded"], &check["pending"]), (&300.into(), &0.into()));
}

#[test]
fn secrets_are_their_owners_only() {
    let folder = folder();
    let data = folder.path().join("shop");
    let _up = Up::start(&data);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("keys/AMIS1.pem")), 0o600);
    assert_eq!(mode(&data.join("shop.lock")), 0o600);
}

#[test]
fn the_operator_listener_answers_nobody_without_the_token() {
    let folder = folder();
    let _up = Up::start(folder.path());
    let lock: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("shop.lock")).unwrap()).unwrap();
    let url = format!("{}/api/stock", lock["operator_url"].as_str().unwrap());
    let status = |more: &[&str]| {
        let args = [&["-s", "-o", "/dev/null", "-w", "%{http_code}", &url], more].concat();
        String::from_utf8(std::process::Command::new("curl").args(args).output().unwrap().stdout).unwrap()
    };
    assert_eq!(status(&[]), "401");
    assert_eq!(status(&["-H", "authorization: Bearer wrong"]), "401");
    assert_eq!(status(&["-H", &format!("authorization: Bearer {}", lock["token"].as_str().unwrap())]), "200");
}

#[test]
fn questions_about_what_is_not_there_say_so() {
    let folder = folder();
    let nowhere = folder.path().join("nothing");
    let said = |args: &[&str]| {
        let output = kassa(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&["stock", "--data", nowhere.to_str().unwrap()]).contains("kassa up --data"));
    let up = Up::start(folder.path());
    let data = path(&folder);
    assert!(said(&["sale", "1-20261122", "--data", data]).contains("no shop has a sale"));
    assert!(said(&["sale", "rubbish", "--data", data]).contains("is not a sale's id"));
    assert!(said(&["stock", "--shop", "NOWHERE", "--data", data]).contains("there are: AMIS1, AMIS2"));
    assert!(
        said(&["events", "--shop", "AMIS1", "--day", "yesterday", "--data", data]).contains("is not a day")
    );
    let refused = said(&["sell", "--shop", "NOWHERE", "--url", &up.url]);
    assert!(refused.contains("nothing was rung up") && refused.contains("no shop of this id"), "{refused}");
}

#[test]
fn read_models_are_rebuilt_exactly_while_sales_go_on() {
    let folder = folder();
    let data = path(&folder);
    let up = Up::start_with(folder.path(), &["--sync", "normal"]);
    json(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "500", "--concurrency", "64", "--json"]);
    let url = up.url.clone();
    let selling = std::thread::spawn(move || {
        json(&["sell", "--shop", "AMIS1", "--url", &url, "--count", "1000", "--concurrency", "64", "--json"])
    });
    let mut rebuilds = 0;
    while !selling.is_finished() {
        json(&["rebuild", "--json", "--data", data]);
        // A check in the midst of it must not be fooled either.
        assert_eq!(json(&["check", "--json", "--data", data])["mismatches"], Value::Array(Vec::new()));
        rebuilds += 1;
    }
    assert_eq!(selling.join().unwrap()["accepted"], 1000);
    assert!(rebuilds > 0);
    up.settled();
    let check = json(&["check", "--json", "--data", data]);
    assert_eq!((&check["recorded"], &check["mismatches"]), (&1500.into(), &Value::Array(Vec::new())));
}

#[test]
fn a_rebuild_that_was_cut_off_is_finished_at_the_next_start() {
    let folder = folder();
    let data = path(&folder);
    let up = Up::start(folder.path());
    json(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "50", "--json"]);
    up.settled();
    up.kill();
    // given the hold that a killed rebuild leaves behind
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store =
            kassa::embedded::Store::open(Some(&folder.path().join("shop.db")), kassa::embedded::Sync::Full)
                .await;
        store.unwrap().read_model.holds.hold().await.unwrap();
    });
    drop(runtime);
    let up = Up::start(folder.path());
    json(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "50", "--json"]);
    up.settled();
    let check = json(&["check", "--json", "--data", data]);
    assert_eq!((&check["recorded"], &check["mismatches"]), (&100.into(), &Value::Array(Vec::new())));
}

#[test]
fn no_log_however_talkative_holds_anything_of_a_sale() {
    let folder = folder();
    // given a shop that writes all it can, tells a manager at once, and has a till that signs
    let data = folder.path().to_str().unwrap();
    let (secret, tills) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", folder.path().join("tills"));
    let soon = [
        "GROUP_WAIT=1ms",
        "MINUTE=100ms",
        "WAREHOUSE_URL=http://127.0.0.1:9/sales",
        "WAREHOUSE_ALLOW_HTTP=true",
        "WAREHOUSE_ALLOW_PRIVATE=true",
    ];
    let secretive = format!("WAREHOUSE_SECRET={secret}");
    let told: Vec<&str> =
        soon.iter().chain([&secretive.as_str()]).flat_map(|setting| ["--set", *setting]).collect();
    let up = [&["up", "--listen", "127.0.0.1:0", "--data", data], &told[..]].concat();
    let up = Up::spawn(command(&up).env("RUST_LOG", "trace"));
    let enrol =
        ["till", "enroll", "--shop", "AMIS1", "--till", "till-1", "--data", data, "--json", "--folder"];
    json(&[&enrol[..], &[tills.to_str().unwrap()]].concat());
    // and sales that can be recognised
    let file = folder.path().join("sale.json");
    let sale = |turnover: &str| {
        format!(
            r#"{{"sales":[{{"item_no":"777313","gross_number":"271828","gross_turnover":"{turnover}"}}]}}"#
        )
    };
    std::fs::write(&file, sale("31337.42")).unwrap();
    let file = file.to_str().unwrap();
    for more in
        [vec![], vec!["--format", "classic"], vec!["--key-of", "AMIS2"], vec!["--till", "marked-till"]]
    {
        let args = [
            vec![
                "sell",
                "--shop",
                "AMIS1",
                "--url",
                &up.url,
                "--file",
                file,
                "--json",
                "--folder",
                tills.to_str().unwrap(),
            ],
            more,
        ]
        .concat();
        assert_eq!(accepted(&kassa(&args))["accepted"], 1);
    }
    // and one that was posted in plaintext by mistake
    http(&up, "POST", "/shop", sale("31337.42").as_bytes());
    up.settled();
    while !kassa(&["outbox", "--data", data]).stdout.windows(4).any(|some| some == b"+316") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let written = up.log.clone();
    assert!(up.terminate().success());
    let log = || String::from_utf8_lossy(&written.lock().unwrap()).into_owned();
    let complete = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        log().contains("closing")
    });
    let log = log();
    assert!(complete && log.contains("sale rejected"), "there is a log: {log}");
    // then there is nothing of a sale in it, no way to reach a person, and no key
    let shops = Shops::read(None).unwrap().shops;
    let phones = shops.iter().flat_map(|shop| &shop.manager_phone).map(ToString::to_string);
    let mails = shops.iter().flat_map(|shop| &shop.manager_email).map(ToString::to_string);
    let people: Vec<String> = phones.chain(mails).collect();
    assert!(people.len() >= 4, "{people:?}");
    let (keys, of_tills) = (keys_in(&folder.path().join("keys")), keys_in(&tills));
    assert!(keys.len() > 40 && !of_tills.is_empty(), "{} and {} lines", keys.len(), of_tills.len());
    let keys = keys.into_iter().chain(of_tills);
    let sale =
        ["31337.42", "777313", "271828", "marked-till", "BEGIN PRIVATE KEY", secret].map(str::to_owned);
    for mark in sale.into_iter().chain(people).chain(keys) {
        assert!(!log.contains(&mark), "{mark} is in the log");
    }
}

/// The lines of every private key in this folder and those in it.
fn keys_in(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        if file.is_dir() {
            lines.extend(keys_in(&file));
        } else if file.extension().is_some_and(|ending| ending == "pem" || ending == "key") {
            let text = std::fs::read_to_string(&file).unwrap();
            lines.extend(text.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
        }
    }
    lines
}
