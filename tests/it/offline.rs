//! A till that is cut off: it sells on, loses nothing, and sends what it sold in order once the shop answers.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use kassa::till::drain::{Drain, Step};
use kassa::till::journal::Journal;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::{Clock, Line};
use serde_json::{Value, json};

use crate::common::process::{Up, command, json, kassa};

/// A shop that comes and goes at one address, and a till of it.
struct Place {
    folder: tempfile::TempDir,
    address: String,
}

impl Place {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), address: free.to_string() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn opens(&self) -> Up {
        Up::start_on(&self.address, &self.path("shop"))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let tills = self.path("tills").display().to_string();
        let mut args: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--shop", "AMIS1", "--folder", &tills].map(str::to_owned));
        args
    }

    fn runs(&self, more: &[&str]) -> Output {
        let args = self.args(more);
        kassa(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// One after the other, and the shop is waited for a second.
    fn sells(&self, count: u32) -> Value {
        self.sells_patiently(count, "1")
    }

    fn sells_patiently(&self, count: u32, patience: &str) -> Value {
        let count = count.to_string();
        let args =
            ["sell", "--url", &self.url(), "--count", &count, "--concurrency", "1", "--patience", patience];
        let output = self.runs(&[&args[..], &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    fn drains(&self) -> Output {
        self.drains_patiently("5")
    }

    fn drains_patiently(&self, patience: &str) -> Output {
        self.runs(&["till", "drain", "--url", &self.url(), "--patience", patience])
    }

    fn status(&self) -> Value {
        let output = self.runs(&["till", "status", "--json"]);
        let tills: Vec<Value> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        tills.into_iter().next().unwrap_or_default()
    }

    fn journal(&self) -> PathBuf {
        let till = self.path("tills").join("AMIS1/till-1");
        fs::read_dir(till).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap()
    }

    /// The sales' numbers in the order the shop accepted them, each recorded once.
    fn recorded(&self, up: &Up) -> Vec<String> {
        up.settled();
        let data = self.path("shop").display().to_string();
        assert_eq!(json(&["check", "--json", "--data", &data])["mismatches"], json!([]));
        let output = kassa(&["events", "--shop", "AMIS1", "--data", &data]);
        let events = String::from_utf8(output.stdout).unwrap();
        let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |name: &str| -> Vec<String> {
            let mut of: Vec<&Value> = events.iter().filter(|event| event["kind"] == name).collect();
            of.sort_by_key(|event| event["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
            of.into_iter().map(|event| event["sale_id"].as_str().unwrap().to_owned()).collect()
        };
        let (accepted, mut recorded) = (of("accepted"), of("recorded"));
        recorded.sort();
        let mut sorted = accepted.clone();
        sorted.sort();
        assert_eq!(recorded, sorted);
        accepted
    }
}

fn lines() -> Vec<Line> {
    vec![Line {
        item_no: "98".parse().unwrap(),
        gross_number: "1".parse().unwrap(),
        gross_turnover: "18.95".parse().unwrap(),
    }]
}

#[test]
fn a_till_sells_through_an_outage_and_a_crash_and_everything_arrives_once() {
    let place = Place::new();
    // given a till that has sold, and a shop that is gone
    let up = place.opens();
    assert_eq!(place.sells(3)["accepted"], 3);
    up.kill();
    // when it sells on
    let sold = place.sells(20);
    assert_eq!((&sold["accepted"], &sold["waiting"], &sold["failed"]), (&json!(0), &json!(20), &json!(0)));
    // and is killed while it does
    let args = place.args(&["sell", "--url", &place.url(), "--count", "100000", "--rate", "200"]);
    let mut till = command(&args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let begun = Instant::now();
    while place.status()["journalled"].as_u64().unwrap() < 40 {
        assert!(begun.elapsed() < Duration::from_mins(1), "it does not sell on");
        std::thread::sleep(Duration::from_millis(20));
    }
    till.kill().unwrap();
    till.wait().unwrap();
    // then all it sold waits, and people are told
    let status = place.status();
    let journalled = status["journalled"].as_u64().unwrap();
    assert_eq!((&status["sent"], &status["waiting"]), (&json!(3), &json!(journalled - 3)));
    assert_eq!(status["oldest"]["sale_id"].as_str().unwrap().len(), 36);
    let told = String::from_utf8(place.runs(&["till", "status"]).stdout).unwrap();
    assert!(told.contains("AMIS1") && told.contains(&journalled.to_string()), "{told}");
    // and once the shop is back it is sent, in the order it was rung up
    assert_eq!(place.drains_patiently("1").status.code(), Some(1), "a till that still has something says so");
    let up = place.opens();
    let drained = place.drains();
    assert!(drained.status.success(), "{drained:?}");
    let status = place.status();
    assert_eq!((&status["sent"], &status["waiting"]), (&json!(journalled), &json!(0)));
    assert_eq!(place.recorded(&up).len() as u64, journalled);
    // and it counts on from there
    assert_eq!(place.sells(1)["accepted"], 1);
    assert_eq!(place.status()["journalled"], journalled + 1);
}

#[test]
fn what_waits_goes_first_when_the_till_sells_again() {
    let place = Place::new();
    let up = place.opens();
    place.sells(1);
    up.kill();
    place.sells(150);
    let up = place.opens();
    let sold = place.sells_patiently(10, "20");
    assert_eq!((&sold["accepted"], &sold["waiting"], &sold["failed"]), (&json!(160), &json!(0), &json!(0)));
    let recorded = place.recorded(&up);
    assert_eq!(recorded.len(), 161);
    // Ids are UUIDv7s, which begin with the millisecond they were rung up in; batches are taken at one time.
    let rung_up: Vec<&str> = recorded.iter().map(|id| &id[..13]).collect();
    let mut sorted = rung_up.clone();
    sorted.sort_unstable();
    assert_eq!(rung_up[..101], sorted[..101]);
}

#[test]
fn what_the_shop_refuses_is_told_with_why_and_holds_up_nobody() {
    let place = Place::new();
    let up = place.opens();
    place.sells(1);
    // given a journal in which the shop will not like one in the middle
    let journal = Journal::open(&place.journal(), Clock::system()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let till =
        Till::new(&up.url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    runtime.block_on(async {
        till.count_on(journal.next_seq());
        for n in 0..5 {
            let mut sale = till.ring_up(lines()).await.unwrap();
            if n == 2 {
                let mut body: Value = serde_json::from_str(&sale.body).unwrap();
                body["sealed"] = json!("rubbish");
                sale = Prepared { body: body.to_string(), ..sale };
            }
            journal.ring_up(&sale).await.unwrap();
        }
    });
    drop(journal);
    // then the others are recorded, and it is told with its reason
    let drained = place.drains();
    assert_eq!(drained.status.code(), Some(1));
    assert_eq!(String::from_utf8(drained.stdout).unwrap(), "4 accepted, 1 refused, 0 still wait\n");
    let status = place.status();
    assert_eq!((&status["sent"], &status["waiting"]), (&json!(5), &json!(0)));
    let refused = &status["refused"][0];
    assert_eq!(refused["status"], 400);
    assert!(refused["detail"].as_str().unwrap().contains("sealed"), "{refused}");
    assert_eq!(place.recorded(&up).len(), 5);
    // and it is kept: sent again it is refused again, and it can be given up, with why
    let sale = refused["sale_id"].as_str().unwrap().to_owned();
    let again = place.runs(&["till", "retry", "--url", &place.url(), &sale]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "0 accepted, 1 refused, 0 still wait\n");
    assert_eq!(place.status()["refusals"], 1);
    let nameless = place.runs(&["till", "drop", "--url", &place.url(), &sale]);
    assert!(String::from_utf8(nameless.stderr).unwrap().contains("--why"));
    let other = place.runs(&["till", "drop", "--url", &place.url(), "--why", "x", "7-20261122"]);
    assert!(String::from_utf8(other.stderr).unwrap().contains("not among the 1 refused"));
    let dropped = place.runs(&["till", "drop", "--url", &place.url(), "--why", "it was rubbish", &sale]);
    assert!(dropped.status.success(), "{dropped:?}");
    let status = place.status();
    assert_eq!((&status["refusals"], &status["dropped"]), (&json!(0), &json!(1)));
}

#[test]
fn one_till_has_one_journal_and_a_second_process_says_so() {
    let place = Place::new();
    let up = place.opens();
    let args = place.args(&["sell", "--url", &up.url, "--count", "1000", "--rate", "50"]);
    let mut first = command(&args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let begun = Instant::now();
    // Until it has a journal, there is nothing to be told of.
    let journal = || place.runs(&["till", "status"]).status.success();
    while !(journal() && place.status()["sent"].as_u64() > Some(0)) {
        assert!(begun.elapsed() < Duration::from_mins(1), "it does not sell");
        std::thread::sleep(Duration::from_millis(20));
    }
    // when the same till is started again, however its shop's address is written
    let second = place.runs(&["sell", "--url", &format!("{}/shop/", up.url)]);
    // then it has rung up nothing, and says who is there
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(told.contains(&format!("process {}", first.id())) && told.contains("--till"), "{told}");
    assert_eq!(place.runs(&["till", "drain", "--url", &up.url]).status.code(), Some(1));
    first.kill().unwrap();
    first.wait().unwrap();
    let folders = fs::read_dir(place.path("tills").join("AMIS1/till-1")).unwrap();
    assert_eq!(folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 1);
    // and what it had not sent goes with the next
    assert!(place.drains().status.success());
    assert_eq!(place.recorded(&up).len() as u64, place.status()["journalled"].as_u64().unwrap());
}

#[test]
fn what_was_sold_to_one_address_is_never_sent_to_another() {
    let place = Place::new();
    let up = place.opens();
    place.sells(1);
    up.kill();
    place.sells(3);
    // given another shop, which has another key
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Up::start(elsewhere.path());
    let drained = place.runs(&["till", "drain", "--url", &other.url]);
    assert_eq!(drained.status.code(), Some(1));
    let told = String::from_utf8([drained.stdout, drained.stderr].concat()).unwrap();
    assert!(told.contains(&format!("0 accepted, 0 refused, 0 still wait for {}", other.url)), "{told}");
    assert!(told.contains("3 sales wait for 127.0.0.1_"), "{told}");
    assert_eq!(place.status()["waiting"], 3);
    let up = place.opens();
    assert!(place.drains().status.success());
    assert_eq!(place.recorded(&up).len(), 4);
}

#[test]
fn the_largest_sale_is_rung_up_offline_and_arrives_and_one_line_more_is_not_rung_up() {
    let place = Place::new();
    let up = place.opens();
    place.sells(1);
    up.kill();
    // given 2,000 lines of the largest form there is, which a till keeps over a restart
    let file = place.path("sale.json").display().to_string();
    let line = |n: u64| json!({"item_no": (100_000_000_000_000_000 + n).to_string(), "gross_number": "-123456789012.123456", "gross_turnover": "-123456789012.123456"});
    let sells = |lines: u64| {
        let sale = json!({"sales": (0..lines).map(line).collect::<Vec<_>>()});
        fs::write(&file, sale.to_string()).unwrap();
        place.runs(&["sell", "--url", &place.url(), "--file", &file, "--patience", "1", "--json"])
    };
    let sold: Value = serde_json::from_slice(&sells(2_000).stdout).unwrap();
    assert_eq!((&sold["waiting"], &sold["failed"]), (&json!(1), &json!(0)), "{sold}");
    let refused = sells(2_001);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("1 to 2000 lines"));
    place.sells(2);
    assert_eq!(place.status()["journalled"], 4);
    let up = place.opens();
    let drained = place.drains();
    assert_eq!(String::from_utf8(drained.stdout).unwrap(), "3 accepted, 0 refused, 0 still wait\n");
    assert_eq!(place.recorded(&up).len(), 4);
}

/// Runs `kassa sell` with the most a file may have, which to the till is a disk that is full.
fn sell_where_files_end_at(place: &Place, kib: u32, count: &str) -> Output {
    let args = place.args(&["sell", "--url", &place.url(), "--count", count, "--patience", "1", "--json"]);
    let program = env!("CARGO_BIN_EXE_kassa");
    // A block is 1,024 bytes to bash. Whoever ignores the signal is told by the call instead.
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    std::process::Command::new("bash").args(["-c", &script, program]).args(&args).output().unwrap()
}

#[test]
fn a_full_disk_is_told_before_the_sale_is_rung_up() {
    let place = Place::new();
    let up = place.opens();
    place.sells(1);
    up.kill();
    // given a disk on which there is no room for another sale
    let before = place.status();
    let output = sell_where_files_end_at(&place, 2, "2");
    // then the till says so, with what to do, and has rung up nothing
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the disk is full") && told.contains("make room"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(place.status(), before);
    // and with room it sells on
    assert_eq!(place.sells(2)["waiting"], 2);
    let up = place.opens();
    assert!(place.drains().status.success());
    assert_eq!(place.recorded(&up).len(), 3);
}

#[test]
fn a_disk_that_fills_up_while_the_till_sells_loses_none_it_rang_up() {
    let place = Place::new();
    let up = place.opens();
    place.sells(1);
    up.kill();
    let output = sell_where_files_end_at(&place, 1024, "100000");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the disk is full"), "{told}");
    let status = place.status();
    let waiting = status["waiting"].as_u64().unwrap();
    assert!(waiting > 100, "{status}");
    let up = place.opens();
    assert!(place.drains().status.success());
    assert_eq!(place.recorded(&up).len() as u64, waiting + 1);
}

#[tokio::test]
async fn draining_keeps_to_its_rate() {
    let place = Place::new();
    let up = place.opens();
    let till =
        Till::new(&up.url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), Clock::system()).unwrap();
    for _ in 0..50 {
        let sale = till.ring_up(lines()).await.unwrap();
        journal.ring_up(&sale).await.unwrap();
    }
    let drain = Drain { till: &till, journal: &journal, rate: 25.0 };
    let begun = Instant::now();
    let mut sent = 0;
    while let Step::Sent(count) = drain.step().await.unwrap() {
        sent += count.count();
    }
    assert_eq!(sent, 50);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}
