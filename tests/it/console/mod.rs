//! The console, as a browser has it and as whoever may not look has it.

/// Pages over a monitor whose answers the test decides.
mod drawn;
/// Without a browser: who may look, what stands in a page, what it costs.
mod http;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::process::Up;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Opens a shop whose managers are told within seconds, and runs the tests of a file in a browser beside it.
#[track_caller]
fn browser(file: &str, shops: &Path) {
    let folder = root().join("tests/browser");
    let chromium = folder.join("node_modules/.chromium/chromium");
    assert!(chromium.exists(), "there is no {}; `make setup` makes it", chromium.display());
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start_with(
        data.path(),
        &["--shops", shops.to_str().unwrap(), "--set", "GROUP_WAIT=1s", "--set", "MINUTE=1s"],
    );
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec", "--test-concurrency=1"])
        .arg(folder.join(format!("{file}.test.mjs")))
        .env("KASSA_URL", &shop.url)
        .env("KASSA_COMMAND", env!("CARGO_BIN_EXE_kassa"))
        .env("KASSA_SHOPS", shops)
        .env("KASSA_DATA", data.path())
        .env("SHOTS", Path::new(env!("CARGO_TARGET_TMPDIR")).join("console"))
        .output()
        .expect("node runs");
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}");
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let log = String::from_utf8_lossy(&shop.log.lock().unwrap()).into_owned();
    assert!(!log.contains(" ERROR ") && !log.contains("cannot be drawn"), "{log}");
}

#[test]
fn a_page_that_is_open_shows_what_is_sold_rejected_and_sent() {
    browser("live", &root().join("shops.toml"));
}

#[test]
fn pages_are_whole_without_javascript_and_without_a_mouse() {
    browser("reading", &root().join("shops.toml"));
}

#[test]
fn pages_are_accessible_and_fit_a_desk_and_a_phone_in_the_light_and_in_the_dark() {
    browser("looks", &root().join("shops.toml"));
}

#[test]
fn hostile_names_are_text() {
    let folder = tempfile::tempdir().unwrap();
    let shops = folder.path().join("shops.toml");
    let hostile = r#"
        [[shops]]
        id = "AMIS1"
        name = "AMIS Nieuwegein"
        time_zone = "Europe/Amsterdam"
        unsigned = "accept"

        [[shops]]
        id = "EVIL"
        name = "<script>alert(\"shop\")</script> \u202Egnp.exe"
        time_zone = "UTC"
        manager_phone = "+31600000003"
        unsigned = "accept"

        [[items]]
        number = "98"
        description = "<b>\"bold\"</b> & </td>"
        price = "1"
        opening_stock = "1"
    "#;
    std::fs::write(&shops, hostile).unwrap();
    browser("hostile", &shops);
}
