//! `kassa sell`, as whoever types it has it: what is wrong is said first, what becomes of sales last.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::process::{Up, command, json, kassa};

struct Counter {
    folder: tempfile::TempDir,
    up: Up,
}

impl Counter {
    fn opens(shops: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shops.toml");
        std::fs::write(&file, shops).unwrap();
        let up = Up::start_with(&folder.path().join("shop"), &["--shops", file.to_str().unwrap()]);
        Self { folder, up }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn sells(&self, args: &[&str]) -> Output {
        let to = ["sell", "--shop", "A", "--url", &self.up.url, "--folder", &self.path("tills")]
            .map(str::to_owned);
        let all: Vec<&str> = to.iter().map(String::as_str).chain(args.iter().copied()).collect();
        kassa(&all)
    }

    fn sells_file(&self, sale: &Value, args: &[&str]) -> Output {
        let file = self.path("sale.json");
        std::fs::write(&file, sale.to_string()).unwrap();
        self.sells(&[&["--file", &file, "--json"], args].concat())
    }
}

fn shops(unsigned: &str) -> String {
    format!(
        "[[shops]]\nid = \"A\"\nname = \"A\"\ntime_zone = \"UTC\"\nunsigned = \"{unsigned}\"\n\
         [[items]]\nnumber = \"98\"\ndescription = \"x\"\nprice = \"1.5\"\nopening_stock = \"1\"\n"
    )
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn nobody() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

#[test]
fn what_can_never_work_is_refused_before_anything_is_rung_up() {
    let folder = tempfile::tempdir().unwrap();
    let tills = folder.path().join("tills");
    let long = "x".repeat(101);
    for wrong in [
        ["--till", ""],
        ["--till", &long],
        ["--till", "a\tb"],
        ["--url", "127.0.0.1:8080"],
        ["--url", "ftp://127.0.0.1"],
        ["--url", "http://127.0.0.1:8080/shop?x=1"],
        ["--rate", "1e-300"],
        ["--rate", "inf"],
        ["--drain-rate", "1e-300"],
        ["--patience", "18446744073709551615"],
        ["--concurrency", "0"],
    ] {
        let output =
            kassa(&[&["sell", "--shop", "AMIS1", "--folder", tills.to_str().unwrap()], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(said(&output).contains(wrong[0]), "{wrong:?}: {}", said(&output));
    }
    assert!(!tills.exists());
}

#[test]
fn with_no_shop_there_it_says_at_once_what_it_tries_and_its_patience_is_the_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (url, tills) = (nobody(), folder.path().display().to_string());
    let begun = Instant::now();
    let output = kassa(&[
        "sell",
        "--shop",
        "AMIS1",
        "--url",
        &url,
        "--count",
        "20",
        "--concurrency",
        "1",
        "--patience",
        "2",
        "--folder",
        &tills,
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let said = said(&output);
    let first = said.lines().next().unwrap();
    assert!(first.contains(&url) && first.contains("trying for 2 s"), "{said}");
    assert!(said.contains("nothing was rung up"), "{said}");
}

#[test]
fn the_address_that_up_prints_is_the_shops() {
    let counter = Counter::opens(&shops("accept"));
    let printed = counter.up.printed.concat();
    let address = printed.lines().find_map(|line| line.trim().strip_prefix("POST ")).unwrap().to_owned();
    assert!(address.ends_with("/shop"), "{address}");
    let tills = counter.path("tills");
    let sold = kassa(&[
        "sell",
        "--shop",
        "A",
        "--url",
        &address,
        "--folder",
        &tills,
        "--json",
        "--shops",
        &counter.path("shops.toml"),
    ]);
    assert!(sold.status.success(), "{sold:?}");
    let told: Value = serde_json::from_slice(&sold.stdout).unwrap();
    assert_eq!(
        told["outcomes"],
        json!({"asked": 1, "recorded": 1, "pending": 0, "unknown": 0, "rejected": {}})
    );
    assert!(!printed.contains("Signed sales only"), "{printed}");
}

#[test]
fn a_sale_that_is_rejected_is_told_and_no_success() {
    // given a shop that takes signed sales only, and says so and what to do
    let counter = Counter::opens(&shops("reject"));
    let printed = counter.up.printed.concat();
    assert!(printed.contains("Signed sales only: A; kassa till enroll --shop A --till till-1"), "{printed}");
    // when a till sells that is not enrolled
    let items = counter.path("shops.toml");
    let sold = counter.sells(&["--count", "3", "--shops", &items]);
    // then it is told what became of its sales, and what to do
    assert_eq!(sold.status.code(), Some(1), "{sold:?}");
    let text = String::from_utf8(sold.stdout).unwrap();
    assert!(text.contains("3 rejected as unsigned") && text.contains("kassa till enroll"), "{text}");
    // and with the key it makes so, all is well
    let (tills, data) = (counter.path("tills"), counter.path("shop"));
    json(&[
        "till", "enroll", "--shop", "A", "--till", "till-1", "--folder", &tills, "--data", &data, "--json",
    ]);
    let sold = counter.sells(&["--count", "3", "--shops", &items]);
    assert!(sold.status.success(), "{sold:?}");
    assert!(String::from_utf8(sold.stdout).unwrap().contains("3 recorded"));
}

#[test]
fn a_file_says_when_and_by_whom_or_is_refused() {
    let counter = Counter::opens(&shops("accept"));
    let line = json!([{"item_no": "98", "gross_number": "-1", "gross_turnover": "-1.5"}]);
    // given a refund of the day before yesterday
    let sale =
        json!({"sales": line, "sold_at": "2026-11-20T10:00:00+01:00", "till": "till-1", "shop_id": "A"});
    let sold = counter.sells_file(&sale, &[]);
    assert!(sold.status.success(), "{sold:?}");
    let told: Value = serde_json::from_slice(&sold.stdout).unwrap();
    let data = counter.path("shop");
    let history = json(&["sale", told["last_sale"].as_str().unwrap(), "--json", "--data", &data]);
    let recorded = &history["events"].as_array().unwrap().last().unwrap()["body"];
    assert_eq!((&recorded["sold_at"], &recorded["till"]), (&json!("2026-11-20T09:00:00Z"), &json!("till-1")));
    assert_eq!(recorded["totals"]["gross_turnover"], "-1.5");
    // and whatever would be ignored is refused, with what to do
    for (field, value, args, what) in [
        ("till", json!("till-2"), &[][..], "--till till-2"),
        ("shop_id", json!("B"), &[], "--shop B"),
        ("seq", json!(7), &[], "seq is the till's"),
        ("sale_id", json!("019394e8-6c00-7000-8000-000000000001"), &[], "sale_id is the till's"),
        ("sold_at", json!("yesterday"), &[], "sold_at"),
        ("sold_at", json!("2026-11-20T10:00:00Z"), &["--format", "classic"], "classic"),
        (
            "sales",
            json!([{"item_no": "98", "gross_number": "-1", "gross_turnover": "1.5"}]),
            &[],
            "mixed signs",
        ),
    ] {
        let mut wrong = json!({"sales": line});
        wrong[field] = value;
        let sold = counter.sells_file(&wrong, args);
        assert_eq!(sold.status.code(), Some(1), "{field}");
        assert!(said(&sold).contains(what), "{field}: {}", said(&sold));
    }
}

#[test]
fn a_tills_key_is_one_that_every_library_reads() {
    let counter = Counter::opens(&shops("reject"));
    let (tills, data) = (counter.path("tills"), counter.path("shop"));
    let enroll = ["till", "enroll", "--shop", "A", "--till", "till-1", "--folder", &tills, "--data", &data];
    // where somebody left another
    assert!(kassa(&enroll).status.success());
    std::fs::write(Path::new(&tills).join("A/till-1/till.jwk"), "stale").unwrap();
    let enrolled = kassa(&[&enroll[..], &["--jwk"]].concat());
    assert!(enrolled.status.success(), "{enrolled:?}");
    let of = |name: &str| Path::new(&tills).join("A/till-1").join(name).display().to_string();
    // PKCS#8 of version 1 (RFC 5208) is 48 bytes; what OpenSSL 3.0, Node 20 and Python's cryptography cannot read is 83
    let pem = std::fs::read_to_string(of("till.key")).unwrap();
    assert_eq!(pem::parse(&pem).unwrap().contents().len(), 48);
    let public = Command::new("openssl").args(["pkey", "-pubout", "-in", &of("till.key")]).output().unwrap();
    assert!(public.status.success(), "{public:?}");
    // and the JWK is what the README's client takes
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let client = Command::new(root.join(".venv/bin/python"))
        .arg(root.join("tests/clients/sealed.py"))
        .args([&counter.up.url, "A", &of("till.jwk")])
        .output()
        .unwrap();
    assert!(client.status.success(), "{client:?}");
    counter.up.settled();
    let sale = String::from_utf8(client.stdout).unwrap();
    let history = json(&["sale", sale.trim(), "--json", "--data", &data]);
    assert_eq!(history["status"], "recorded", "{history}");
    // nobody else may read either
    for name in ["till.key", "till.jwk"] {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(of(name)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_till_that_is_slow_beyond_all_clocks_is_no_success_at_the_first_sale() {
    // given the slowest rate there is, and a shop that is there
    let counter = Counter::opens(&shops("accept"));
    let items = counter.path("shops.toml");
    let to = [
        "sell",
        "--shop",
        "A",
        "--url",
        &counter.up.url,
        "--folder",
        &counter.path("tills"),
        "--shops",
        &items,
    ]
    .map(str::to_owned);
    let args: Vec<&str> =
        to.iter().map(String::as_str).chain(["--count", "18446744073709551615", "--rate", "0.001"]).collect();
    let mut till = command(&args).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(till.try_wait().unwrap(), None, "it goes on");
    till.kill().unwrap();
    till.wait().unwrap();
}
