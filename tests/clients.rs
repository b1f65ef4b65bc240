//! Clients that share no code with us: Python with jwcrypto, Python with cryptography, curl with openssl.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "common/process.rs"]
mod process;

use std::path::Path;
use std::process::Command;

use process::{Up, json};

/// Runs a client against the shop, and gives the sale's id, which is all it prints.
#[track_caller]
fn client(file: &str, up: &Up, more: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    let script = root.join("tests/clients").join(file);
    let mut command = if Path::new(file).extension().is_some_and(|ending| ending == "py") {
        assert!(python.exists(), "there is no .venv; `make setup` makes it");
        let mut command = Command::new(python);
        command.arg(script);
        command
    } else {
        Command::new(script)
    };
    let output = command.arg(&up.url).args(more).output().unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn clients_that_share_no_code_with_us_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let mut sales = vec![
        (client("sealed.py", &up, &["AMIS1"]), "AMIS1"),
        (client("sealed.py", &up, &["AMIS2"]), "AMIS2"),
        (client("classic.py", &up, &["AMIS1"]), "AMIS1"),
        (client("classic.sh", &up, &["AMIS2"]), "AMIS2"),
    ];
    // The same id again is the same sale, encrypted anew or not.
    let id = sales[3].0.clone();
    assert_eq!(client("classic.sh", &up, &["AMIS2", &id]), id);
    up.settled();
    for (id, shop) in sales.drain(..) {
        let sale = json(&["sale", &id, "--shop", shop, "--json", "--data", data]);
        assert_eq!(sale["status"], "recorded", "{sale}");
    }
    let check = json(&["check", "--json", "--data", data]);
    assert_eq!((&check["recorded"], &check["rejected"]), (&4.into(), &0.into()));
}
