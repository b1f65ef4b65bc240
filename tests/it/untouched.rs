//! A shop that does not open leaves everything as it was, and says once why; what can only be read can be asked.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::process::{Up, command, json as asked};
use crate::opening::text;

/// Everything in a folder: modes, and what stands in it.
fn all_of(path: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::metadata(&path).unwrap();
        let mut is = Vec::new();
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            is = fs::read(&path).unwrap();
        }
        all.insert(path, (about.mode() & 0o777, is));
    }
    all
}

/// That it failed, and the one line it said.
#[track_caller]
fn one_error(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(output.stdout.is_empty() && told.lines().count() == 1, "{told}");
    assert!(told.starts_with("kassa: ") && told.contains(words), "{told}");
}

#[test]
fn a_shop_that_does_not_open_leaves_no_folder_and_no_mode_behind() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let shops = folder.path().join("shops.toml");
    fs::write(&shops, "[[shops]]\nid = \"A B\"\n").unwrap();
    let free = "127.0.0.1:0";
    let wrongs: [(&[&str], &str); 6] = [
        (&["--listen", &taken], "choose another with --listen"),
        (&["--listen", free, "--shops", text(&shops)], "shops.toml"),
        (&["--listen", free, "--set", "GROUP_WAIT=soon"], "decrypt-error-alerter does not start"),
        (&["--listen", free, "--set", "MINUTE=soon"], "MINUTE"),
        (&["--listen", free, "--set", "REPEAT_INTERVAL=soon", "--set", "MINUTE=0s"], ""),
        (&["--listen", free, "--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"], "/nowhere"),
    ];
    let opens = |data: &Path, more: &[&str]| {
        command(&[&["up", "--data", text(data)], more].concat()).output().unwrap()
    };
    for (wrong, words) in wrongs {
        // where there was nothing, there is nothing
        one_error(&opens(&folder.path().join("new/deep/shop"), wrong), words);
        assert!(!folder.path().join("new").exists(), "{wrong:?}");
        // a folder that was there is as it was
        let there = folder.path().join("there");
        fs::create_dir_all(&there).unwrap();
        fs::write(there.join("notes.txt"), "somebody's").unwrap();
        fs::set_permissions(&there, Permissions::from_mode(0o755)).unwrap();
        let before = all_of(&there);
        one_error(&opens(&there, wrong), words);
        assert_eq!(all_of(&there), before, "{wrong:?}");
    }
    // and so is a shop
    let data = folder.path().join("shop");
    let up = Up::start(&data);
    asked(&["sell", "--shop", "AMIS1", "--url", &up.url, "--json"]);
    assert!(up.terminate().success());
    fs::set_permissions(&data, Permissions::from_mode(0o750)).unwrap();
    let tables = |data: &Path| {
        all_of(data).into_iter().filter(|(path, _)| !path.ends_with("shop.lock")).collect::<Vec<_>>()
    };
    let before = tables(&data);
    one_error(&opens(&data, &["--listen", &taken]), "choose another with --listen");
    assert_eq!(tables(&data), before);
    // one that is damaged gets no log, no keys, and stays what it is for whoever would save something of it
    let damaged = folder.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("shop.db"), "this is no database".repeat(100)).unwrap();
    let before = all_of(&damaged);
    one_error(&opens(&damaged, &["--listen", free]), "damaged");
    assert_eq!(all_of(&damaged), before);
    // a log whose database is lost least of all: what was sold is in it
    let lost = folder.path().join("lost");
    fs::create_dir(&lost).unwrap();
    fs::write(lost.join("shop.db-wal"), "what was sold".repeat(100)).unwrap();
    let before = all_of(&lost);
    one_error(&opens(&lost, &["--listen", free]), "the log beside it is not");
    assert_eq!(all_of(&lost), before);
    one_error(&opens(Path::new("/proc/nowhere/shop"), &["--listen", free]), "cannot use /proc/nowhere/shop");
    one_error(&opens(&shops, &["--listen", free]), "cannot use");
}

/// A folder in which whoever is not root can run the command, and only read.
struct Nobody {
    folder: TempDir,
    program: PathBuf,
    is_root: bool,
}

const NOBODY: u32 = 65534;

impl Nobody {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
        // Where it was built, nobody else may be able to look.
        let (built, program) = (env!("CARGO_BIN_EXE_kassa"), folder.path().join("kassa"));
        let linked = if is_root {
            fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop))
        } else {
            Ok(())
        };
        linked.unwrap();
        let program = if is_root { program } else { built.into() };
        Self { folder, program, is_root }
    }

    fn runs(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir("/").env_remove("RUST_LOG");
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().unwrap()
    }

    /// A copy of a shop that its owner can read, and nobody write.
    fn copy(&self, data: &Path) -> PathBuf {
        let copy = self.folder.path().join("copy");
        assert!(Command::new("cp").args(["-r", text(data), text(&copy)]).status().unwrap().success());
        for (path, (_, _)) in all_of(&copy) {
            let mode = if path.is_dir() { 0o500 } else { 0o400 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            if self.is_root {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        copy
    }
}

#[test]
fn a_copy_that_can_only_be_read_can_be_asked_and_is_not_changed() {
    let nobody = Nobody::new();
    let data = nobody.folder.path().join("shop");
    let up = Up::start(&data);
    let sold = asked(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", "3", "--json"]);
    up.settled();
    assert!(up.terminate().success());
    let copy = nobody.copy(&data);
    let before = all_of(&copy);
    let ask = |args: &[&str]| {
        let output = nobody.runs(&[args, &["--data", text(&copy), "--json"]].concat());
        assert!(
            output.status.success() || args == ["status"],
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let check = ask(&["check"]);
    assert_eq!((&check["recorded"], &check["mismatches"]), (&json!(3), &json!([])));
    assert_eq!(ask(&["sale", sold["last_sale"].as_str().unwrap()])["status"], "recorded");
    assert_eq!(ask(&["status"])["place"], text(&copy));
    for args in [
        &["stock"][..],
        &["rejected"],
        &["dead-letters"],
        &["key", "list"],
        &["till", "list"],
        &["outbox"],
        &["webhook"],
    ] {
        ask(args);
    }
    let events = nobody.runs(&["events", "--shop", "AMIS1", "--data", text(&copy)]);
    assert_eq!(String::from_utf8(events.stdout).unwrap().lines().count(), 6);
    // what would change it is refused
    for args in [
        &["rebuild"][..],
        &["key", "rotate", "--shop", "AMIS1"],
        &["webhook", "--resume"],
        &["dead-letters", "drop", "--queue", "decrypt", "--why", "x"],
        &["up", "--listen", "127.0.0.1:0"],
    ] {
        one_error(&nobody.runs(&[args, &["--data", text(&copy)]].concat()), "cannot be written to");
    }
    assert_eq!(all_of(&copy), before);
    // and one that may not even be looked into is not "no shop"
    fs::set_permissions(&copy, Permissions::from_mode(0o000)).unwrap();
    for args in [&["stock"][..], &["backup", "/tmp/nowhere"], &["up", "--listen", "127.0.0.1:0"]] {
        one_error(&nobody.runs(&[args, &["--data", text(&copy)]].concat()), "Permission denied");
    }
    fs::set_permissions(&copy, Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_file_that_may_not_grow_loses_nothing_and_ends_no_shop() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shop");
    // given a shop none of whose files may be larger than 1 MiB, in blocks of 512 bytes
    let mut limited = Command::new("sh");
    let open = ["up", "--listen", "127.0.0.1:0", "--data", text(&data)];
    limited.args(["-c", "ulimit -f 2048; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_kassa")]).args(open);
    let up = Up::spawn(limited.env_remove("RUST_LOG"));
    let tills = folder.path().join("tills");
    let sell = |url: &str, count: &str| {
        let args =
            ["sell", "--shop", "AMIS1", "--folder", text(&tills), "--url", url, "--patience", "1", "--json"];
        let output = command(&[&args[..], &["--count", count]].concat()).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    // when more is sold than they hold
    let first = sell(&up.url, "110");
    let accepted = first["accepted"].as_u64().unwrap();
    assert!(accepted > 0 && first["waiting"].as_u64().unwrap() > 0, "{first}");
    // then the shop is there, says what is wrong, and has what it said it has
    assert!(up.health().is_object());
    let log = String::from_utf8_lossy(&up.log.lock().unwrap()).into_owned();
    assert!(log.contains("disk"), "{log}");
    let address = up.url.trim_start_matches("http://").to_owned();
    up.kill();
    let up = Up::start_on(&address, &data);
    let waiting = first["waiting"].as_u64().unwrap();
    let drain = ["till", "drain", "--shop", "AMIS1", "--folder", text(&tills), "--url", &up.url];
    let drained = command(&drain).output().unwrap();
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    up.settled();
    let check = asked(&["check", "--json", "--data", text(&data)]);
    assert_eq!(
        (&check["recorded"], &check["mismatches"]),
        (&json!(accepted + waiting), &json!([])),
        "{check}"
    );
}
