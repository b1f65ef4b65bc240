//! What the command says, and to whom: a full disk, a reader that has gone, names that nobody has, a narrow terminal.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use kassa::args::Cli;
use serde_json::Value;

use crate::common::process::{Up, command, json, kassa};

/// What a shell says of a command that a closed pipe ended.
const READER_GONE: i32 = 141;

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[track_caller]
fn is_told(args: &[&str], output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {told}");
    assert!(told.contains("cannot write the output") && !told.contains("panicked"), "{args:?}: {told}");
}

/// Each command that answers a question, as it asks the shop in `data`.
fn questions(data: &str) -> Vec<Vec<&str>> {
    [
        &["stock"][..],
        &["stock", "--json"],
        &["events", "--shop", "AMIS1"],
        &["rejected"],
        &["retry", "--shop", "AMIS1"],
        &["drop", "--shop", "AMIS1", "--reason", "wrong-key", "--why", "x"],
        &["dead-letters"],
        &["dead-letters", "redrive"],
        &["reconcile"],
        &["check"],
        &["rebuild", "--json"],
        &["status"],
        &["status", "--watch"],
        &["webhook"],
        &["outbox"],
        &["outbox", "--follow"],
        &["audit", "keys"],
        &["key", "list"],
        &["till", "list"],
    ]
    .into_iter()
    .map(|args| [&[args[0]], &args[1..], &["--data", data]].concat())
    .collect()
}

#[test]
fn what_cannot_be_written_is_an_error_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, other) = (path("shop"), path("other"));
    let (tills, backup, restored) = (path("tills"), path("backup"), path("restored"));
    let up = Up::start(data.as_ref());
    let sold = json(&["sell", "--shop", "AMIS1", "--url", &up.url, "--folder", &tills, "--json"]);
    let sale = sold["last_sale"].as_str().unwrap();
    let mut all = questions(&data);
    all.extend([
        vec!["--version"],
        vec!["--help"],
        vec!["help"],
        vec!["up", "--help"],
        vec!["completions", "zsh"],
        vec!["cost"],
        vec!["demo"],
        vec!["sale", sale, "--data", &data, "--json"],
        vec!["sell", "--shop", "AMIS1", "--url", &up.url, "--folder", &tills],
        vec!["till", "status", "--folder", &tills],
        vec!["till", "drain", "--shop", "AMIS1", "--url", &up.url, "--folder", &tills],
        vec!["up", "--listen", "127.0.0.1:0", "--data", &other],
        vec!["backup", &backup, "--data", &data],
        vec!["restore", &backup, "--data", &restored],
    ]);
    // None is forgotten: of the others, two ask AWS, and one wants a Postgres.
    let tried: BTreeSet<&str> =
        all.iter().map(|args| args[0]).chain(["apply", "console", "warehouse"]).collect();
    for known in Cli::command().get_subcommands() {
        assert!(tried.contains(known.get_name()), "{}", known.get_name());
    }
    for args in &all {
        // A follower of which nothing is to be told has nothing to fail at.
        if !args.contains(&"--follow") {
            is_told(args, &command(args).stdout(full()).output().unwrap());
        }
    }
}

#[track_caller]
fn ends(args: &[&str], child: &mut Child) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("{args:?} goes on, and nobody reads it");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(READER_GONE), "{args:?}");
}

#[test]
fn a_command_whose_reader_has_gone_ends_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shop");
    let up = Up::start(&data);
    json(&["sell", "--shop", "AMIS1", "--url", &up.url, "--json"]);
    let mut all = questions(data.to_str().unwrap());
    all.extend([vec!["completions", "bash"], vec!["--help"], vec!["cost"]]);
    for mut args in all {
        if args.starts_with(&["status", "--watch"]) {
            args.push("--json");
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = command(&args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        ends(&args, &mut child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn a_follower_whose_reader_has_enough_ends_though_nothing_more_comes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shop");
    let _up = Up::start(&data);
    let data = data.to_str().unwrap();
    // Of those who would hear of the next line, there is none.
    for args in
        [["outbox", "--follow", "--json", "--data", data], ["status", "--watch", "--json", "--data", data]]
    {
        let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        drop(child.stdout.take());
        ends(&args, &mut child);
    }
}

#[test]
fn a_shop_whose_log_cannot_be_written_sells_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shop");
    let mut child = command(&["up", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    let mut child = child.env("RUST_LOG", "debug").stdout(Stdio::null()).stderr(full()).spawn().unwrap();
    let begun = Instant::now();
    let occupant = loop {
        let text = std::fs::read(data.join("shop.lock")).unwrap_or_default();
        if let Ok(occupant) = serde_json::from_slice::<Value>(&text) {
            break occupant;
        }
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    };
    let url = occupant["url"].as_str().unwrap();
    assert_eq!(json(&["sell", "--shop", "AMIS1", "--url", url, "--json"])["accepted"], 1);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // and what is wrong is an exit code, where nobody can be told
    for (args, code) in [(&["stock", "--data", "/nowhere"][..], 1), (&["no-such-command"], 2)] {
        assert_eq!(command(args).stderr(full()).output().unwrap().status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn of_a_name_that_nobody_has_it_is_said_which_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let (data, tills) = (folder.path().join("shop"), folder.path().join("tills"));
    let up = Up::start(&data);
    let (data, tills) = (data.to_str().unwrap(), tills.to_str().unwrap());
    let at = ["--folder", tills, "--url", &up.url];
    let sold = json(&[&["sell", "--shop", "AMIS1", "--till", "till-7", "--json"], &at[..]].concat());
    let sale = sold["last_sale"].as_str().unwrap();
    json(&[
        "till", "enroll", "--shop", "AMIS1", "--till", "till-7", "--folder", tills, "--data", data, "--json",
    ]);
    let of = |till: &'static str| [&["--shop", "AMIS1", "--till", till], &at[..]].concat();
    let says = |args: &[&str], code: i32, words: &str| {
        let output = kassa(args);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).unwrap();
        assert!(
            output.status.code() == Some(code) && told.contains(words),
            "{args:?} {:?}: {told}",
            output.status
        );
    };
    // tills of this machine
    says(
        &[&["till", "drain"], &of("nope")[..]].concat(),
        1,
        "nope of AMIS1 has no journal here; there are: till-7 of AMIS1",
    );
    says(&[&["till", "retry"], &of("nope")[..]].concat(), 1, "there are: till-7 of AMIS1");
    says(
        &[&["till", "drop", "--all", "--why", "x"], &of("nope")[..]].concat(),
        1,
        "there are: till-7 of AMIS1",
    );
    says(&["till", "status", "--till", "nope", "--folder", tills], 1, "there are: till-7 of AMIS1");
    says(&[&["till", "drain"], &of("till-7")[..]].concat(), 0, "0 accepted, 0 refused, 0 still wait");
    // shops, enrolled tills, queues, sales
    let there = |args: &[&str], code, words: &str| says(&[args, &["--data", data]].concat(), code, words);
    for args in [
        &["stock"][..],
        &["events"],
        &["rejected"],
        &["retry"],
        &["reconcile"],
        &["key", "list"],
        &["key", "rotate"],
        &["till", "list"],
        &["till", "revoke", "--till", "till-7"],
        &["audit", "keys"],
        &["sale", sale],
    ] {
        there(&[args, &["--shop", "NOPE"]].concat(), 1, "there is no shop NOPE; there are: AMIS1, AMIS2");
    }
    there(&["till", "revoke", "--shop", "AMIS1", "--till", "nope"], 1, "there are: till-7");
    there(&["till", "revoke", "--shop", "AMIS2", "--till", "nope"], 1, "none is enrolled");
    there(&["dead-letters", "redrive", "--queue", "nope"], 1, "there are: decrypt, process");
    there(&["dead-letters", "redrive"], 0, "There are no dead letters to send back.");
    there(
        &["dead-letters", "drop", "--queue", "decrypt", "--why", "x"],
        0,
        "There are no dead letters to drop.",
    );
    there(&["retry", "--shop", "AMIS1"], 0, "No such sale is rejected, so none was put through again.");
    there(&["retry", "--shop", "AMIS1", "--sale", sale], 1, "is not rejected; kassa sale");
}

/// Runs a command on a terminal of 80 columns, and gives what stands there afterwards.
fn on_a_terminal(args: &[&str]) -> String {
    const TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, screen = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
try:
    while written := os.read(screen, 65536):
        os.write(1, written)
except OSError:
    pass
os.waitpid(pid, 0)
"#;
    let output =
        Command::new("python3").args(["-c", TERMINAL, env!("CARGO_BIN_EXE_kassa")]).args(args).output();
    let output = output.unwrap();
    assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[test]
fn no_table_breaks_an_id_on_a_terminal_of_eighty_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (data, tills) = (folder.path().join("shop"), folder.path().join("tills"));
    let up = Up::start(&data);
    let (data, tills) = (data.to_str().unwrap(), tills.to_str().unwrap());
    // given a sale that is rejected, one that is recorded, and a till with a key
    let at = ["--shop", "AMIS1", "--folder", tills, "--url", &up.url, "--json"];
    let wrong = kassa(&[&["sell", "--till", "counter-17", "--key-of", "AMIS2"], &at[..]].concat());
    let wrong: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    let right = json(&[&["sell", "--till", "counter-17"], &at[..]].concat());
    json(&[
        "till",
        "enroll",
        "--shop",
        "AMIS1",
        "--till",
        "counter-17",
        "--folder",
        tills,
        "--data",
        data,
        "--json",
    ]);
    up.settled();
    let (wrong, right) = (wrong["last_sale"].as_str().unwrap(), right["last_sale"].as_str().unwrap());
    let till = json(&["till", "list", "--data", data, "--json"])[0]["keys"][0]["key"]["x"].clone();
    let key = json(&["key", "list", "--data", data, "--json"])[0]["kid"].clone();
    for (args, ids) in [
        (&["rejected"][..], &[wrong, "AMIS1", "wrong-key"][..]),
        (&["retry", "--shop", "AMIS1", "--dry-run"], &[wrong]),
        (&["sale", wrong], &[wrong]),
        (&["sale", right], &[right, "counter-17"]),
        (&["till", "list"], &["AMIS1", "counter-17", till.as_str().unwrap()]),
        (&["key", "list"], &["AMIS1", "AMIS2", key.as_str().unwrap()]),
        (&["audit", "keys"], &["AMIS1", "counter-17", "AMIS2"]),
        (&["dead-letters"], &["bad-key-auditor", "decrypt-error-alerter", "warehouse-webhook"]),
        (&["stock"], &["12345", "91279"]),
        (&["status"], &["AMIS1", "AMIS2", "warehouse-webhook"]),
    ] {
        let text = on_a_terminal(&[args, &["--data", data]].concat());
        for id in ids {
            assert!(text.contains(id), "{args:?} breaks {id}:\n{text}");
        }
    }
}
