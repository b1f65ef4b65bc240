//! Whatever state a data folder is in, the shop opens, or says what is wrong and what to do about it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chaos::Machine;
use crate::common::old;
use crate::common::process::{Up, command, json as asked, kassa};

/// A shop of an older version, with sales of every kind.
pub fn shop() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shop");
    old::shop(&data);
    (folder, data)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn check(data: &Path) -> Value {
    asked(&["check", "--json", "--data", text(data)])
}

/// Sells on, and the books balance.
pub fn sells_on(data: &Path, up: &Up, had: u64) {
    let sold = asked(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "3", "--json"]);
    assert_eq!((&sold["accepted"], &sold["failed"]), (&3.into(), &0.into()));
    up.settled();
    let check = check(data);
    assert_eq!((&check["recorded"], &check["mismatches"]), (&(had + 3).into(), &json!([])), "{check}");
}

// Killed while it first opens.

/// Opens a new shop, and kills it right before the n-th change of its disk. Says whether it came so far.
fn dies_while_it_opens(folder: &Path, data: &Path, change: u64) -> bool {
    let machine = Machine::new(&folder.join("machine"));
    machine.dies_at(change);
    let shops = folder.join("shops.toml");
    fs::write(&shops, ONE_SHOP).unwrap();
    let mut command =
        command(&["up", "--listen", "127.0.0.1:0", "--data", text(data), "--shops", text(&shops)]);
    machine.runs(&mut command);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let opened = lines.map_while(Result::ok).any(|line| line.starts_with("Ctrl-C"));
    let _ = child.kill();
    child.wait().unwrap();
    !opened
}

const ONE_SHOP: &str = r#"
[[shops]]
id = "AMIS1"
name = "AMIS Nieuwegein"
time_zone = "Europe/Amsterdam"
language = "nl"
unsigned = "accept"

[[items]]
number = "98"
description = "Espresso beans, 1 kg"
price = "18.95"
opening_stock = "100000"
"#;

/// `KASSA_FIRST_STARTS=1` kills before every change of the disk, of which there are some hundred; else before every few.
#[test]
fn killed_before_any_change_of_its_disk_a_new_shop_opens_and_sells() {
    let step = std::env::var("KASSA_FIRST_STARTS").ok().and_then(|step| step.parse().ok()).unwrap_or(9);
    let mut killed = 0;
    for change in (1..).step_by(step) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("shop");
        if !dies_while_it_opens(folder.path(), &data, change) {
            break;
        }
        killed += 1;
        // a command that only asks is as good as one that opens
        if change % 2 == 0 && data.join("shop.db").exists() {
            assert_eq!(check(&data)["mismatches"], json!([]), "killed before change {change}");
        }
        let shops = folder.path().join("shops.toml");
        let up = Up::start_with(&data, &["--shops", text(&shops)]);
        sells_on(&data, &up, 0);
        assert!(!data.join("shop.new").exists());
    }
    println!("killed {killed} times");
    assert!(killed * step > 40, "{killed}");
}

/// What a kill between dynoxide's two steps, or an upgrade, leaves of a table.
#[derive(Debug, Clone, Copy)]
enum Half {
    Rows,
    Knowledge,
    Both,
}

fn drop_table(data: &Path, table: &str, half: Half) {
    let tables = Connection::open(data.join("shop.db")).unwrap();
    if let Half::Rows | Half::Both = half {
        tables.execute_batch(&format!("DROP TABLE \"{table}\"")).unwrap();
    }
    if let Half::Knowledge | Half::Both = half {
        tables.execute("DELETE FROM _tables WHERE table_name = ?1", [table]).unwrap();
    }
}

fn tables(data: &Path) -> Vec<String> {
    let tables = Connection::open(data.join("shop.db")).unwrap();
    let mut names = tables.prepare("SELECT table_name FROM _tables").unwrap();
    names.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn whatever_is_missing_of_any_table_is_made_and_nothing_else_is_lost() {
    let (_folder, whole) = shop();
    let all = tables(&whole);
    assert!(all.len() >= 10, "{all:?}");
    for table in all {
        for half in [Half::Rows, Half::Knowledge, Half::Both] {
            let (_folder, data) = shop();
            drop_table(&data, &table, half);
            // when it is asked, which opens it as well
            let output = kassa(&["check", "--json", "--data", text(&data)]);
            let said = String::from_utf8_lossy(&output.stderr);
            let check: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{table} {half:?}: {said}"));
            // then sales and rows are as they were, or were made anew
            let old = ["kassa-local-events", "kassa-local-shops", "kassa-local-changes"].contains(&&*table);
            let lost = match half {
                Half::Knowledge => false,
                Half::Rows => true,
                // As an upgrade leaves one that it brings.
                Half::Both => old,
            };
            assert_eq!(said.contains(&table), lost, "{table} {half:?}: {said}");
            match table.as_str() {
                // what is gone with all that was sold is named
                "kassa-local-events" if lost => assert_ne!(check["mismatches"], json!([]), "{half:?}"),
                "kassa-local-shops" if lost => {
                    assert_eq!(check["mismatches"], json!([]), "{half:?}: {check}");
                }
                _ => assert_eq!(
                    (&check["recorded"], &check["mismatches"]),
                    (&11.into(), &json!([])),
                    "{table} {half:?}"
                ),
            }
            assert_eq!(tables(&data).len(), tables(&whole).len());
        }
    }
}

#[test]
fn a_shop_that_lost_its_stream_or_its_rows_makes_them_of_the_events_and_sells_on() {
    for table in ["kassa-local-changes", "kassa-local-shops", "kassa-local-queues"] {
        let (_folder, data) = shop();
        drop_table(&data, table, Half::Both);
        let up = Up::start(&data);
        sells_on(&data, &up, 11);
    }
}

#[test]
fn a_shop_that_lost_its_events_sells_on() {
    let (_folder, data) = shop();
    drop_table(&data, "kassa-local-events", Half::Both);
    let up = Up::start(&data);
    let sold = asked(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "3", "--json"]);
    assert_eq!(sold["accepted"], 3);
    up.settled();
    let check = kassa(&["check", "--json", "--data", text(&data)]);
    let check: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(check["recorded"], 3);
}

#[test]
fn dynoxides_own_tables_are_made_again() {
    for table in ["_config", "_stream_records", "_tables"] {
        let (_folder, data) = shop();
        Connection::open(data.join("shop.db"))
            .unwrap()
            .execute_batch(&format!("DROP TABLE {table}"))
            .unwrap();
        let up = Up::start(&data);
        sells_on(&data, &up, 11);
    }
}

#[test]
fn what_a_kill_leaves_half_made_is_in_nobodys_way() {
    let (_folder, data) = shop();
    for (name, left) in
        [("shop.lock", "{\"pid\":17"), ("shop.new", "half a template"), ("keys/AMIS1.new", "-----BEGIN")]
    {
        fs::write(data.join(name), left).unwrap();
    }
    fs::write(data.join("keys/AMIS2/new"), "").unwrap();
    let up = Up::start(&data);
    sells_on(&data, &up, 11);
    drop(up);
    // and of a shop that never opened
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shop.db"), "").unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    fs::write(folder.path().join("keys/AMIS1.new"), "").unwrap();
    let up = Up::start(folder.path());
    sells_on(folder.path(), &up, 0);
}

// A data folder of an older version.

#[test]
fn a_data_folder_of_fc5a417_opens_and_sells_on() {
    let (_folder, data) = shop();
    let before = asked(&["stock", "--json", "--data", text(&data)]);
    let rows: BTreeMap<(&str, &str), &Value> = before
        .as_array()
        .unwrap()
        .iter()
        .map(|row| ((row["shop_id"].as_str().unwrap(), row["record_type"].as_str().unwrap()), row))
        .collect();
    let row = |shop, name| rows[&(shop, name)];
    assert_eq!(row("AMIS1", "s-00777")["stock"], "-2");
    assert_eq!(
        (&row("AMIS1", "s-00098")["gross_number"], &row("AMIS1", "s-00098")["stock"]),
        (&"12".into(), &"99988".into())
    );
    assert_eq!(row("AMIS1", "d-2026-11-28")["sales"], "8");
    assert_eq!(row("AMIS2", "d-2026-11-28")["sales"], "3");
    let counted = json!({"accepted": 12, "recorded": 11, "rejected": 1, "pending": 0, "mismatches": []});
    assert_eq!(check(&data), counted);
    let tills = asked(&["till", "list", "--json", "--data", text(&data)]);
    assert_eq!(tills[0]["till"], "till-1", "{tills}");
    // when it is opened
    let up = Up::start(&data);
    assert_eq!(asked(&["stock", "--json", "--data", text(&data)]), before);
    sells_on(&data, &up, 11);
    let classic = ["sell", "--shop", "AMIS2", "--url", &up.url, "--format", "classic", "--json"];
    assert_eq!(asked(&classic)["accepted"], 1);
    up.settled();
    assert!(up.terminate().success());
    // then nothing of it is changed by making its rows anew
    let stock = asked(&["stock", "--json", "--data", text(&data)]);
    asked(&["rebuild", "--json", "--data", text(&data)]);
    assert_eq!(asked(&["stock", "--json", "--data", text(&data)]), stock);
    assert_eq!(check(&data)["recorded"], 15);
}
