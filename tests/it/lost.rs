//! A key or a database that is lost or damaged: the shop does not open, says what is wrong and what to do, and replaces nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::Connection;

use crate::common::process::{Up, json as asked, kassa};
use crate::opening::{sells_on, shop, text};

/// What a shop that does not open says.
#[track_caller]
fn refused(data: &Path) -> String {
    let output = kassa(&["up", "--listen", "127.0.0.1:0", "--data", text(data)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("feature"), "{said}");
    said
}

#[track_caller]
fn names(said: &str, all: &[&str]) {
    for wanted in all {
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}");
    }
}

// Keys.

fn kid(data: &Path, shop: &str) -> String {
    let keys = asked(&["key", "list", "--shop", shop, "--json", "--data", text(data)]);
    keys.as_array().unwrap().last().unwrap()["kid"].as_str().unwrap().to_owned()
}

#[test]
fn a_key_file_that_is_gone_is_named_and_not_replaced() {
    let (_folder, data) = shop();
    let file = data.join("keys/AMIS1.pem");
    let aside = data.join("aside");
    fs::rename(&file, &aside).unwrap();
    let said = refused(&data);
    names(
        &said,
        &[text(&file), "is gone", &kid(&data, "AMIS1"), "backup", "kassa key rotate --shop AMIS1 --lost"],
    );
    assert!(!file.exists(), "a key was made");
    // put back, it opens
    fs::rename(&aside, &file).unwrap();
    let up = Up::start(&data);
    sells_on(&data, &up, 11);
}

#[test]
fn a_key_that_is_lost_for_good_is_given_up_on_purpose_only() {
    let (_folder, data) = shop();
    let (file, old) = (data.join("keys/AMIS1.pem"), kid(&data, "AMIS1"));
    let lost = ["key", "rotate", "--shop", "AMIS1", "--lost", "--json", "--data", text(&data)];
    let refused = |wanted: &str| {
        let output = kassa(&lost);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(wanted), "{said}");
    };
    // one that is there is not lost, and what is in its place is somebody's
    refused("is not lost");
    fs::copy(data.join("keys/AMIS2.pem"), &file).unwrap();
    refused("move it away first");
    fs::remove_file(&file).unwrap();
    // when
    let rotated = asked(&lost);
    // then it is retired, and the shop opens with another
    assert_eq!(rotated["from"], old);
    let keys = asked(&["key", "list", "--shop", "AMIS1", "--json", "--data", text(&data)]);
    let states: Vec<&str> =
        keys.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["retired", "present"]);
    let up = Up::start(&data);
    sells_on(&data, &up, 11);
}

#[test]
fn another_key_in_its_place_is_named_and_not_registered() {
    let (_folder, data) = shop();
    let (file, known) = (data.join("keys/AMIS1.pem"), kid(&data, "AMIS1"));
    let other = kid(&data, "AMIS2");
    let its_own = fs::read(&file).unwrap();
    fs::copy(data.join("keys/AMIS2.pem"), &file).unwrap();
    names(&refused(&data), &[text(&file), &other, "a key of AMIS2", &known]);
    // nor is one that nobody has
    let elsewhere = tempfile::tempdir().unwrap();
    drop(Up::start(elsewhere.path()));
    fs::copy(elsewhere.path().join("keys/AMIS1.pem"), &file).unwrap();
    names(&refused(&data), &[text(&file), "no key the registry knows", &known]);
    assert_eq!(kid(&data, "AMIS1"), known);
    // nor an older one of its own
    fs::write(&file, its_own).unwrap();
    let (file, older) = (data.join("keys/AMIS2.pem"), "MDhdfVJhAugViRR30-7VUVkBkwzszbGJG8n8-bRvi6M");
    fs::copy(data.join(format!("keys/AMIS2/{older}.pem")), &file).unwrap();
    names(&refused(&data), &[text(&file), older, "a key of AMIS2", &other]);
}

#[test]
fn a_key_file_that_is_no_key_is_named() {
    for (content, why) in [
        ("", "is not an RSA private key"),
        ("rubbish", "is not an RSA private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not an RSA private key"),
    ] {
        let (_folder, data) = shop();
        let file = data.join("keys/AMIS1.pem");
        fs::write(&file, content).unwrap();
        names(&refused(&data), &[text(&file), why, "backup"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
    let (_folder, data) = shop();
    let file = data.join("keys/AMIS1.pem");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    names(&refused(&data), &[text(&file), "cannot be read"]);
}

#[test]
fn a_past_key_that_tills_still_seal_with_is_missed_and_a_retired_one_is_not() {
    let (_folder, data) = shop();
    drop(Up::start(&data));
    let rotated = asked(&["key", "rotate", "--shop", "AMIS2", "--json", "--data", text(&data)]);
    let past = rotated["from"].as_str().unwrap();
    let file = data.join(format!("keys/AMIS2/{past}.pem"));
    // given another key under its name
    let aside = data.join("aside");
    fs::rename(&file, &aside).unwrap();
    fs::copy(data.join("keys/AMIS1.pem"), &file).unwrap();
    names(&refused(&data), &[text(&file), &kid(&data, "AMIS1"), "backup"]);
    // or none
    fs::remove_file(&file).unwrap();
    names(&refused(&data), &[past, "is gone", "backup", "kassa key retire --shop AMIS2"]);
    // when it is given up
    asked(&["key", "retire", "--shop", "AMIS2", "--kid", past, "--now", "--json", "--data", text(&data)]);
    // then nobody misses it
    let up = Up::start(&data);
    sells_on(&data, &up, 11);
}

// The database.

fn random(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rand::random()).collect()
}

#[test]
fn a_database_that_is_damaged_is_called_that() {
    for damage in [
        "rubbish",
        "a few bytes",
        "cut off",
        "cut off in its first page",
        "overwritten",
        "a log that is none",
        "gone, its log is there",
    ] {
        let (_folder, data) = shop();
        let file = data.join("shop.db");
        let log = data.join("shop.db-wal");
        let bytes = fs::read(&file).unwrap();
        match damage {
            "rubbish" => fs::write(&file, random(bytes.len())).unwrap(),
            "a few bytes" => fs::write(&file, "hello").unwrap(),
            "cut off" => {
                File::options().write(true).open(&file).unwrap().set_len(bytes.len() as u64 / 2).unwrap();
            }
            "cut off in its first page" => fs::write(&file, &bytes[..1000]).unwrap(),
            "overwritten" => {
                let file = File::options().write(true).open(&file).unwrap();
                file.write_all_at(&random(bytes.len() - 4096), 4096).unwrap();
            }
            "a log that is none" => fs::write(&log, random(8192)).unwrap(),
            _ => {
                fs::remove_file(&file).unwrap();
                fs::write(&log, random(8192)).unwrap();
            }
        }
        let said = refused(&data);
        names(&said, &[text(&file), "is damaged, or no SQLite database", "kassa restore"]);
        // nothing of it is touched, and who only asks is told the same
        if damage.contains("log") {
            assert_eq!(fs::metadata(&log).unwrap().len(), 8192, "{damage}");
        }
        if file.exists() {
            let output = kassa(&["stock", "--data", text(&data)]);
            names(&String::from_utf8(output.stderr).unwrap(), &["is damaged"]);
        }
        // nor is it taken for a shop that could be backed up
        let kept = data.with_file_name("backup");
        let output = kassa(&["backup", text(&kept), "--data", text(&data)]);
        assert_eq!((output.status.code(), kept.exists()), (Some(1), false), "{damage}: {output:?}");
    }
}

#[test]
fn a_database_that_is_gone_with_its_log_is_missed() {
    for emptied in [false, true] {
        let (_folder, data) = shop();
        let file = data.join("shop.db");
        if emptied {
            fs::write(file, "").unwrap();
        } else {
            fs::remove_file(file).unwrap();
        }
        let up = Up::start(&data);
        let said = String::from_utf8(up.log.lock().unwrap().clone()).unwrap();
        names(&said, &[text(&data), "there are keys and no shop.db", "restore a backup"]);
        sells_on(&data, &up, 0);
    }
}

#[test]
fn a_database_that_is_somebody_elses_or_none_at_all_is_named() {
    let (_folder, data) = shop();
    let file = data.join("shop.db");
    fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
    names(&refused(&data), &[text(&file), "no shop's"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    names(&refused(&data), &[text(&file), "it is no file"]);
}
