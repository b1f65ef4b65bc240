//! What a till's journal goes through: whatever is done to it in whatever order, old ones, doubled ones, damaged ones.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kassa::till::journal::{Journal, JournalError, Refusal, State};
use kassa::till::{Format, Prepared, Till};
use kassa_bus::{Clock, Line, SaleId};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::old;
use crate::common::process::{Up, json, kassa};

fn id(n: u64) -> SaleId {
    format!("{n}-20261122").parse().unwrap()
}

fn sale(n: u64) -> Prepared {
    Prepared { seq: n, sale_id: id(n), body: "x".repeat(2_000) }
}

fn no() -> Refusal {
    Refusal { status: 400, detail: "no".into() }
}

fn open(folder: &Path) -> Journal {
    Journal::open(folder, Clock::system()).unwrap()
}

/// With so many sales that wait.
async fn with(folder: &Path, sales: u64) {
    let journal = open(folder);
    let written = (1..=sales).map(async |n| journal.ring_up(&sale(n)).await.unwrap());
    futures::future::join_all(written.collect::<Vec<_>>()).await;
}

fn looked(folder: &Path) -> State {
    Journal::look(folder).unwrap().unwrap()
}

#[derive(Debug, Clone)]
enum Done {
    RungUp(u64),
    Accepted(u64),
    Refused(u64),
    Retried(u64),
    Dropped(u64),
    Opened,
}

fn done() -> impl Strategy<Value = Done> {
    let n = 1u64..8;
    prop_oneof![
        3 => n.clone().prop_map(Done::RungUp),
        2 => n.clone().prop_map(Done::Accepted),
        2 => n.clone().prop_map(Done::Refused),
        1 => n.clone().prop_map(Done::Retried),
        1 => n.prop_map(Done::Dropped),
        1 => Just(Done::Opened),
    ]
}

/// What a journal must say: each sale it has, and whether that is refused; and how many were rung up, sent and dropped.
#[derive(Default)]
struct Model {
    sales: BTreeMap<u64, bool>,
    order: Vec<u64>,
    counts: [u64; 3],
}

impl Model {
    /// Whether the journal should say that it is so.
    fn take(&mut self, done: &Done) -> bool {
        match *done {
            Done::RungUp(n) => {
                let new = !self.sales.contains_key(&n);
                if new {
                    self.sales.insert(n, false);
                    self.order.retain(|other| *other != n);
                    self.order.push(n);
                    self.counts[0] += 1;
                }
                new
            }
            Done::Accepted(n) => {
                let there = self.sales.remove(&n).is_some();
                self.counts[1] += u64::from(there);
                there
            }
            Done::Refused(n) => self.turns(n, false, true),
            Done::Retried(n) => self.turns(n, true, false),
            Done::Dropped(n) => {
                let refused = self.sales.get(&n) == Some(&true);
                if refused {
                    self.sales.remove(&n);
                    self.counts[2] += 1;
                }
                refused
            }
            Done::Opened => true,
        }
    }

    fn turns(&mut self, n: u64, from: bool, to: bool) -> bool {
        match self.sales.get_mut(&n) {
            Some(refused) if *refused == from => {
                *refused = to;
                true
            }
            _ => false,
        }
    }

    fn of(&self, refused: bool) -> Vec<SaleId> {
        self.order.iter().filter(|n| self.sales.get(n) == Some(&refused)).map(|n| id(*n)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_done_in_whatever_order_the_journal_says_what_is_so(all in prop::collection::vec(done(), 1..25)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let (mut journal, mut model) = (Some(open(folder.path())), Model::default());
            for done in &all {
                let is = journal.as_ref().unwrap();
                let so = match *done {
                    Done::RungUp(n) => is.ring_up(&sale(n)).await.is_ok(),
                    Done::Accepted(n) => is.accepted(&id(n)).await.unwrap(),
                    Done::Refused(n) => is.refused(&id(n), no()).await.unwrap(),
                    Done::Retried(n) => is.retry(vec![id(n)]).await.unwrap() > 0,
                    Done::Dropped(n) => is.drop_refused(vec![id(n)], "why".into()).await.unwrap() > 0,
                    Done::Opened => {
                        drop(journal.take());
                        journal = Some(open(folder.path()));
                        true
                    }
                };
                assert_eq!(so, model.take(done), "{done:?} of {all:?}");
                let is = journal.as_ref().unwrap();
                let state = is.state().unwrap();
                assert_eq!([state.journalled, state.sent, state.dropped], model.counts, "{all:?}");
                let waiting: Vec<_> = is.oldest(100, usize::MAX).unwrap().into_iter().map(|sale| sale.sale_id).collect();
                assert_eq!(waiting, model.of(false), "{all:?}");
                assert_eq!(is.waiting(), waiting.len() as u64, "{all:?}");
                let refused: Vec<_> = state.refused.iter().map(|refused| refused.sale_id.clone()).collect();
                assert_eq!(refused, model.of(true), "{all:?}");
                assert_eq!(looked(folder.path()), state, "whoever looks from outside sees the same");
            }
        });
    }
}

#[tokio::test]
async fn a_journal_of_months_is_as_small_as_what_waits_in_it() {
    let folder = tempfile::tempdir().unwrap();
    with(folder.path(), 4_000).await;
    let size = || fs::metadata(folder.path().join("journal.db")).unwrap().len();
    let large = size();
    let journal = open(folder.path());
    for n in 1..3_990 {
        journal.accepted(&id(n)).await.unwrap();
    }
    journal.refused(&id(3_990), no()).await.unwrap();
    drop(journal);
    drop(open(folder.path()));
    assert!(size() < large / 10, "{} of {large}", size());
    let state = looked(folder.path());
    assert_eq!((state.journalled, state.sent, state.waiting, state.refusals), (4_000, 3_989, 10, 1));
    assert_eq!(open(folder.path()).next_seq(), 4_001);
}

#[tokio::test]
async fn a_journal_that_is_damaged_goes_on_with_what_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    with(folder.path(), 400).await;
    // given a disk that has lost what is in the middle
    let file = folder.path().join("journal.db");
    let length = fs::metadata(&file).unwrap().len();
    let disk = fs::OpenOptions::new().write(true).open(&file).unwrap();
    disk.write_all_at(&[0xFF; 4096], length / 2 / 4096 * 4096).unwrap();
    // then whoever only looks is told
    assert!(matches!(Journal::look(folder.path()), Err(JournalError::Damaged(_)) | Ok(_)));
    // and who sells goes on, with all but a few, and the damaged one is kept
    let journal = open(folder.path());
    let kept = journal.found.damaged.clone().expect("the damage is told");
    assert_eq!(fs::metadata(kept).unwrap().len(), length);
    assert!(journal.waiting() >= 390, "{}", journal.waiting());
    assert_eq!(journal.next_seq(), 401);
    journal.ring_up(&sale(401)).await.unwrap();
    drop(journal);
    assert_eq!(open(folder.path()).found.damaged, None);
}

#[tokio::test]
async fn a_sale_whose_name_the_disk_has_changed_is_none_the_worse_and_keeps_no_other() {
    // given what is posted, in which the sale's id stands as well
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for n in 1..=50 {
        let body = json!({"shop_id": "A", "message_id": id(n), "sealed": "x"}).to_string();
        journal.ring_up(&Prepared { body, ..sale(n) }).await.unwrap();
    }
    drop(journal);
    let file = folder.path().join("journal.db");
    let whole = fs::read(&file).unwrap();
    let name = id(25).to_string();
    let places = |bytes: &[u8]| -> Vec<usize> {
        (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name.as_bytes())).collect()
    };
    // in the table, in what is posted, and in the index
    assert!(places(&whole).len() >= 3);
    for place in places(&whole) {
        let mut changed = whole.clone();
        changed[place + 3] ^= 0x40;
        fs::write(&file, changed).unwrap();
        let journal = open(folder.path());
        assert!(journal.waiting() >= 49, "{}", journal.waiting());
        for sale in journal.oldest(100, usize::MAX).unwrap() {
            assert!(journal.accepted(&sale.sale_id).await.unwrap(), "{}", sale.sale_id);
        }
        assert_eq!(journal.waiting(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_read_hides_no_others() {
    let folder = tempfile::tempdir().unwrap();
    for till in ["a", "b"] {
        let place = folder.path().join("A").join(till).join("shop");
        fs::create_dir_all(&place).unwrap();
        with(&place, 2).await;
    }
    fs::write(folder.path().join("A/a/shop/journal.db"), "rubbish, and more of it than a header has")
        .unwrap();
    let tills = folder.path().display().to_string();
    let output = tokio::task::block_in_place(|| kassa(&["till", "status", "--json", "--folder", &tills]));
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told[0]["till"], &told[0]["waiting"]), (&json!("b"), &json!(2)));
    assert!(String::from_utf8(output.stderr).unwrap().contains("a of A"));
}

#[tokio::test]
async fn what_is_no_journal_at_all_is_put_aside() {
    for rubbish in [&b"this is no database, and never was one"[..], &[0xFF; 8192]] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("journal.db"), rubbish).unwrap();
        let journal = open(folder.path());
        assert_eq!(fs::read(journal.found.damaged.clone().unwrap()).unwrap(), rubbish);
        journal.ring_up(&sale(1)).await.unwrap();
    }
    // and one that was only about to be made is made
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("journal.db"), "").unwrap();
    assert_eq!(Journal::look(folder.path()).unwrap(), None);
    let journal = open(folder.path());
    assert_eq!((journal.found.damaged.clone(), journal.next_seq()), (None, 1));
}

#[tokio::test]
async fn a_later_versions_journal_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    with(folder.path(), 1).await;
    let later = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    later.pragma_update(None, "user_version", 99).unwrap();
    drop(later);
    let refused = Journal::open(folder.path(), Clock::system()).err().unwrap().to_string();
    assert!(refused.contains("later version"), "{refused}");
}

/// As journals were written before they were `SQLite`'s.
fn old(entries: &[Value]) -> Vec<u8> {
    let entry = |entry: &Value| {
        let json = entry.to_string();
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        [&length[..], &crc32fast::hash(json.as_bytes()).to_le_bytes(), json.as_bytes()].concat()
    };
    entries.iter().flat_map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_tills_left_behind_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let up = Up::start(&path("shop"));
    let address = up.url.strip_prefix("http://").unwrap().replace(':', "_");
    let till = path("tills").join("AMIS1/till-1");
    // given a till of an older version, and two processes of it that ended before their sales were sent
    let sells =
        Till::new(&up.url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    let line = || Line {
        item_no: "98".parse().unwrap(),
        gross_number: "1".parse().unwrap(),
        gross_turnover: "1".parse().unwrap(),
    };
    let mut left: Vec<(PathBuf, Vec<Value>)> = Vec::new();
    for ending in ["", "~2", "~5"] {
        let mut entries = vec![json!({"is": "before", "next_seq": 11, "journalled": 10, "accepted": 10})];
        for n in 0..3 {
            let sale = sells.ring_up(vec![line()]).await.unwrap();
            entries.push(json!({"is": "sale", "seq": 11 + n, "sale_id": sale.sale_id, "at": "2026-11-22T12:00:00Z", "body": sale.body}));
        }
        let refused = entries[3]["sale_id"].clone();
        entries
            .push(json!({"is": "refused", "sale_id": refused, "status": 413, "detail": "a proxy said so"}));
        left.push((till.join(format!("{address}{ending}")), entries));
    }
    for (place, entries) in &left {
        fs::create_dir_all(place).unwrap();
        fs::write(place.join("journal"), old(entries)).unwrap();
    }
    // then people are told before anything is done
    let tills = path("tills").display().to_string();
    let status = json(&["till", "status", "--folder", &tills, "--json"]);
    assert_eq!(
        status.as_array().unwrap().iter().map(|till| till["waiting"].as_u64().unwrap()).sum::<u64>(),
        6
    );
    // when the till is started, or only drained
    let whose = ["--shop", "AMIS1", "--till", "till-1", "--folder", &tills, "--url", &up.url];
    let drained = tokio::task::block_in_place(|| kassa(&[&["till", "drain"], &whose[..]].concat()));
    let said = String::from_utf8(drained.stderr).unwrap();
    assert!(said.contains("3 journals of earlier processes"), "{said}");
    assert_eq!(String::from_utf8(drained.stdout).unwrap(), "6 accepted, 0 refused, 0 still wait\n");
    // then there is one journal, with all they rang up, and what a proxy had refused can be sent
    let status = json(&["till", "status", "--folder", &tills, "--json"]);
    assert_eq!(status.as_array().unwrap().len(), 1, "{status}");
    assert_eq!(
        (&status[0]["journalled"], &status[0]["sent"], &status[0]["refusals"]),
        (&json!(39), &json!(36), &json!(3))
    );
    let again = tokio::task::block_in_place(|| kassa(&[&["till", "retry"], &whose[..]].concat()));
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "3 accepted, 0 refused, 0 still wait\n");
    assert!(!till.join(format!("{address}~2")).exists() && !till.join(format!("{address}~5")).exists());
    up.settled();
    let check = json(&["check", "--json", "--data", &path("shop").display().to_string()]);
    assert_eq!(check["recorded"], 9);
}

#[test]
fn a_till_of_fc5a417_sends_what_it_had_and_signs_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    old::shop(&folder.path().join("shop"));
    let up = Up::start(&folder.path().join("shop"));
    let address = up.url.strip_prefix("http://").unwrap().replace(':', "_");
    old::till(&folder.path().join("tills/AMIS1/till-1"), &address);
    let (data, tills) = (path("shop"), path("tills"));
    let before = json(&["check", "--json", "--data", &data])["recorded"].as_u64().unwrap();
    let whose = ["--shop", "AMIS1", "--till", "till-1", "--folder", &tills, "--url", &up.url];
    let drained = kassa(&[&["till", "drain"], &whose[..]].concat());
    assert_eq!(String::from_utf8(drained.stdout).unwrap(), "2 accepted, 0 refused, 0 still wait\n");
    // its key is PKCS#8 of version 2, as it was written then
    let sold = kassa(&[&["sell", "--json"], &whose[..]].concat());
    let told: Value = serde_json::from_slice(&sold.stdout).unwrap();
    assert_eq!(told["outcomes"]["recorded"], 1, "{told}");
    up.settled();
    let sale = json(&["sale", told["last_sale"].as_str().unwrap(), "--json", "--data", &data]);
    assert_eq!(sale["events"].as_array().unwrap().last().unwrap()["body"]["signed_by"], "till-1");
    let check = json(&["check", "--json", "--data", &data]);
    assert_eq!((&check["recorded"], &check["mismatches"]), (&json!(before + 3), &json!([])));
}
