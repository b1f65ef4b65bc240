//! A backup of a shop that sells, and a shop of a backup.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chaos::Machine;
use crate::common::old;
use crate::common::process::{Up, command, json as asked, kassa};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn check(data: &Path) -> Value {
    asked(&["check", "--json", "--data", text(data)])
}

fn backup(data: &Path, to: &Path) -> Value {
    asked(&["backup", text(to), "--data", text(data), "--json"])
}

fn restore(from: &Path, data: &Path) -> Value {
    asked(&["restore", text(from), "--data", text(data), "--json"])
}

#[track_caller]
fn refused(output: &Output, wanted: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for wanted in wanted {
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}");
    }
}

#[track_caller]
fn backup_refused(data: &Path, to: &Path, wanted: &[&str]) {
    refused(&kassa(&["backup", text(to), "--data", text(data)]), wanted);
}

#[track_caller]
fn restore_refused(from: &Path, data: &Path, wanted: &[&str]) {
    refused(&kassa(&["restore", text(from), "--data", text(data)]), wanted);
}

/// What there is in a folder, by name.
fn inside(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The sales that were accepted so far.
fn accepted(data: &Path) -> HashSet<String> {
    let events = kassa(&["events", "--shop", "AMIS1", "--data", text(data)]);
    assert!(events.status.success());
    let events = String::from_utf8(events.stdout).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let accepted = events.filter(|event| event["kind"] == "accepted");
    accepted.map(|event| event["sale_id"].as_str().unwrap().to_owned()).collect()
}

/// A till that sells until the test is over, however it ends.
struct Selling(Child);

impl Drop for Selling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_backup_of_a_shop_that_sells_opens_with_all_that_was_accepted_before_it_began() {
    let folder = folder();
    let data = folder.path().join("shop");
    let up = Up::start_with(&data, &["--sync", "normal"]);
    let sell = ["sell", "--shop", "AMIS1", "--url", &up.url, "--concurrency", "32", "--rate", "100"];
    let mut selling = command(&[&sell[..], &["--count", "1000000"]].concat());
    let _selling = Selling(selling.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    for round in 0..3 {
        // given a shop that sells, and gets another key meanwhile
        let before = loop {
            match accepted(&data) {
                before if before.len() > 50 * round => break before,
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let rotating = command(&["key", "rotate", "--shop", "AMIS1", "--data", text(&data)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        // when
        let kept = folder.path().join(format!("backup-{round}"));
        backup(&data, &kept);
        assert!(rotating.unwrap().wait().unwrap().success());
        // then it is a shop, which knows no less
        let restored = folder.path().join(format!("restored-{round}"));
        restore(&kept, &restored);
        let again = Up::start(&restored);
        again.settled();
        let lost: Vec<_> = before.difference(&accepted(&restored)).cloned().collect();
        assert_eq!(lost, Vec::<String>::new(), "of {}", before.len());
        // What was on its way is published again as it opens, a moment after it says that it is open.
        let begun = Instant::now();
        let check = loop {
            match check(&restored) {
                check if check["pending"] == 0 => break check,
                check => assert!(begun.elapsed() < Duration::from_mins(1), "{check}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        again.settled();
        assert_eq!((&check["mismatches"], &check["rejected"]), (&json!([]), &0.into()));
        assert!(check["recorded"].as_u64().unwrap() >= before.len() as u64);
        let sold = asked(&["sell", "--shop", "AMIS1", "--url", &again.url, "--count", "2", "--json"]);
        assert_eq!(sold["accepted"], 2);
    }
}

#[test]
fn a_shop_of_a_backup_is_the_shop_it_was_made_of() {
    let folder = folder();
    let [data, kept, restored] =
        ["shop", "deep/er/backup", "else/where/shop"].map(|name| folder.path().join(name));
    old::shop(&data);
    let is = |data: &Path| {
        [&["check"][..], &["stock"], &["key", "list"], &["till", "list"]]
            .map(|question| asked(&[question, &["--json", "--data", text(data)]].concat()))
    };
    let manifest = backup(&data, &kept);
    assert_eq!((&manifest["format"], manifest["files"].as_array().unwrap().len()), (&1.into(), 5));
    assert_eq!(restore(&kept, &restored), manifest);
    assert_eq!(is(&restored), is(&data));
    // its files are what sha256sum says they are, and its owner's only
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for shop in [&kept, &restored] {
        assert_eq!(
            (mode(shop.clone()), mode(shop.join("keys")), mode(shop.join("keys/AMIS2"))),
            (0o700, 0o700, 0o700)
        );
        for file in manifest["files"].as_array().unwrap() {
            let name = file["name"].as_str().unwrap();
            assert_eq!(mode(shop.join(name)), 0o600, "{name}");
            if *shop == kept {
                let sum = std::process::Command::new("sha256sum").arg(shop.join(name)).output().unwrap();
                assert!(
                    String::from_utf8(sum.stdout).unwrap().starts_with(file["sha256"].as_str().unwrap()),
                    "{name}"
                );
            }
        }
    }
    assert_eq!(inside(&kept), ["backup.json", "keys", "shop.db"]);
    // it is restored as often as one likes, also where an empty folder is
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    restore(&kept, &empty);
    assert_eq!(is(&empty), is(&data));
}

#[test]
fn a_backup_replaces_nothing_and_is_no_shop() {
    let folder = folder();
    let [data, kept, nowhere] = ["shop", "backup", "nowhere"].map(|name| folder.path().join(name));
    backup_refused(&nowhere, &kept, &["there is no shop in", text(&nowhere)]);
    old::shop(&data);
    fs::create_dir(&kept).unwrap();
    backup_refused(&data, &kept, &[text(&kept), "is there already"]);
    fs::remove_dir(&kept).unwrap();
    backup(&data, &kept);
    backup_refused(&data, &kept, &["is there already"]);
    // it is not opened, nor asked, nor backed up
    for asked in [&["up", "--listen", "127.0.0.1:0"][..], &["stock"], &["backup", text(&nowhere)]] {
        let output = kassa(&[asked, &["--data", text(&kept)]].concat());
        refused(&output, &["is a backup", &format!("kassa restore {}", text(&kept))]);
    }
    // nor is a shop replaced by it
    restore_refused(&kept, &data, &[text(&data), "is not empty"]);
    restore_refused(&data, &nowhere, &[text(&data), "is no backup"]);
    assert_eq!(inside(folder.path()), ["backup", "shop"]);
    assert_eq!(check(&data)["recorded"], 11);
}

#[test]
fn a_backup_that_is_not_whole_is_not_restored() {
    let folder = folder();
    let [data, kept, restored] = ["shop", "backup", "restored"].map(|name| folder.path().join(name));
    old::shop(&data);
    backup(&data, &kept);
    let manifest = fs::read_to_string(kept.join("backup.json")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(manifest.contains(from));
        fs::write(kept.join("backup.json"), manifest.replacen(from, to, 1)).unwrap();
    };
    // a list that is damaged, newer, or of something else
    fs::write(kept.join("backup.json"), &manifest[..100]).unwrap();
    restore_refused(&kept, &restored, &["backup.json", "damaged"]);
    with("\"format\": 1", "\"format\": 2");
    restore_refused(&kept, &restored, &["newer kassa"]);
    with("\"keys/AMIS1.pem\"", "\"../AMIS1.pem\"");
    restore_refused(&kept, &restored, &["no part of a shop"]);
    fs::write(kept.join("backup.json"), &manifest).unwrap();
    // a bit that turned
    let tables = fs::File::options().read(true).write(true).open(kept.join("shop.db")).unwrap();
    let mut byte = [0];
    tables.read_exact_at(&mut byte, 70_000).unwrap();
    tables.write_all_at(&[byte[0] ^ 1], 70_000).unwrap();
    restore_refused(&kept, &restored, &["the backup is damaged", "shop.db"]);
    tables.write_all_at(&byte, 70_000).unwrap();
    // a key that is missing, from the folder or from the list
    let key = kept.join("keys/AMIS1.pem");
    fs::rename(&key, folder.path().join("aside")).unwrap();
    restore_refused(&kept, &restored, &[text(&key), "is missing"]);
    with("\"keys/AMIS1.pem\"", "\"keys/AMIS2.pem\"");
    restore_refused(&kept, &restored, &["AMIS"]);
    fs::write(kept.join("backup.json"), &manifest).unwrap();
    fs::rename(folder.path().join("aside"), &key).unwrap();
    // nothing was left of any of that
    assert_eq!(inside(folder.path()), ["backup", "shop"]);
    restore(&kept, &restored);
    assert_eq!(check(&restored)["recorded"], 11);
}

#[test]
fn a_shop_that_would_not_open_is_not_backed_up_as_if_it_were_one() {
    let folder = folder();
    let [data, kept] = ["shop", "backup"].map(|name| folder.path().join(name));
    old::shop(&data);
    // a key that somebody deleted while the shop was open, which still has it in memory
    let up = Up::start(&data);
    fs::rename(data.join("keys/AMIS1.pem"), folder.path().join("aside")).unwrap();
    backup_refused(&data, &kept, &["AMIS1", "is gone"]);
    fs::rename(folder.path().join("aside"), data.join("keys/AMIS1.pem")).unwrap();
    drop(up);
    // tables that are damaged in the middle
    check(&data);
    let tables = fs::File::options().write(true).open(data.join("shop.db")).unwrap();
    let pages = tables.metadata().unwrap().len() / 4096;
    let noise: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
    for page in pages / 2..pages {
        tables.write_all_at(&noise, page * 4096).unwrap();
    }
    backup_refused(&data, &kept, &["is damaged"]);
    assert_eq!(inside(folder.path()), ["shop"]);
}

#[test]
fn killed_before_any_change_of_its_disk_neither_leaves_what_could_be_taken_for_whole() {
    let folder = folder();
    let [data, kept] = ["shop", "backup"].map(|name| folder.path().join(name));
    old::shop(&data);
    let dies = |change: u64, args: &[&str]| {
        let machine = Machine::new(&folder.path().join("machine"));
        machine.dies_at(change);
        let mut command = command(args);
        machine.runs(&mut command);
        let output = command.output().unwrap();
        // Killed, it has no code; else it must have done what it was asked for.
        assert_ne!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        output.status.code().is_none()
    };
    let (mut killed, made, again) = (0, folder.path().join("made"), folder.path().join("again"));
    for change in 1.. {
        if !dies(change, &["backup", text(&kept), "--data", text(&data)]) {
            break;
        }
        killed += 1;
        // The last change gives it its name.
        assert!(!kept.exists(), "killed before change {change}");
    }
    for change in 1.. {
        if !dies(change, &["restore", text(&kept), "--data", text(&made)]) {
            break;
        }
        killed += 1;
        assert!(!made.exists(), "killed before change {change}");
    }
    assert!(killed > 40, "{killed}");
    assert_eq!(check(&made), check(&data));
    // and what they left is in nobody's way
    backup(&made, &again);
}

#[test]
fn after_a_clean_stop_the_file_is_the_whole_shop() {
    let folder = folder();
    let [data, copy] = ["shop", "copy"].map(|name| folder.path().join(name));
    let up = Up::start(&data);
    asked(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "50", "--json"]);
    up.settled();
    assert!(up.terminate().success());
    assert!(fs::metadata(data.join("shop.db-wal")).map_or(0, |log| log.len()) == 0);
    // when only the file is copied, with the keys
    fs::create_dir_all(copy.join("keys")).unwrap();
    for name in ["shop.db", "keys/AMIS1.pem", "keys/AMIS2.pem"] {
        fs::copy(data.join(name), copy.join(name)).unwrap();
    }
    // then it is the shop
    assert_eq!(check(&copy), check(&data));
    let up = Up::start(&copy);
    assert_eq!(check(&copy)["recorded"], 50);
    drop(up);
}
