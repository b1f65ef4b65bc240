//! The command as a newcomer builds it, without AWS's clients: it is the whole shop on one machine, and says of what it
//! lacks how to get it. With `--all-features` all else is tested (`tests/it`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "it/common/process.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod process;

use std::process::Stdio;

use process::{Up, json, kassa};

#[test]
fn the_shop_opens_sells_and_balances() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    let sold = kassa(&["sell", "--url", &up.url, "--shop", "AMIS1", "--count", "5", "--json"]);
    assert!(sold.status.success(), "{}", String::from_utf8_lossy(&sold.stderr));
    up.settled();
    let check = json(&["check", "--json", "--data", folder.path().to_str().unwrap()]);
    assert_eq!((&check["accepted"], &check["pending"]), (&5.into(), &0.into()));
    assert_eq!(check["mismatches"], serde_json::json!([]));
    assert!(up.terminate().success());
}

#[cfg(not(feature = "aws"))]
#[test]
fn whatever_asks_for_a_stage_is_told_how_to_get_a_command_that_knows_aws() {
    let folder = tempfile::tempdir().unwrap();
    let tills = folder.path().join("tills");
    let tills = tills.to_str().unwrap();
    for asked in [
        &["apply"][..],
        &["check"],
        &["console"],
        &["dead-letters"],
        &["key", "list"],
        &["rebuild"],
        &["reconcile"],
        &["sell", "--shop", "AMIS1", "--folder", tills],
        &["status"],
        &["status", "--watch"],
        &["stock"],
        &["till", "enroll", "--shop", "AMIS1", "--till", "till-1", "--folder", tills],
    ] {
        let output = kassa(&[asked, &["--stage", "dev"]].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{asked:?}: {told}");
        assert!(told.contains("`cargo install --path . --features aws`"), "{asked:?}: {told}");
        assert!(output.stdout.is_empty(), "{asked:?}");
    }
    // Nothing was rung up, and no key was made, for a shop that cannot be reached.
    assert!(!folder.path().join("tills").exists());
}

#[cfg(not(feature = "aws"))]
#[test]
fn its_help_says_what_it_lacks() {
    let help = kassa(&["--help"]);
    assert!(String::from_utf8(help.stdout).unwrap().contains("  cargo install --path . --features aws"));
}

#[test]
fn whoever_reads_may_go_away() {
    for asked in [&["--help"][..], &["completions", "bash"], &["cost"]] {
        let mut command = process::command(asked);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 141)) && told.is_empty(), "{asked:?}: {told}");
    }
}
