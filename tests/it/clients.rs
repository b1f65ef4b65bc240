//! Clients that share no code with us: Python with jwcrypto, Python with cryptography, curl with openssl.

use std::path::Path;
use std::process::Command;

use crate::common::process::{Up, json};

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
    sales.push((client("sealed.py", &up, &["AMIS1", &signing_key(folder.path(), data)]), "AMIS1"));
    up.settled();
    let signed = sales[4].0.clone();
    for (id, shop) in sales.drain(..) {
        let sale = json(&["sale", &id, "--shop", shop, "--json", "--data", data]);
        assert_eq!(sale["status"], "recorded", "{sale}");
    }
    let check = json(&["check", "--json", "--data", data]);
    assert_eq!((&check["recorded"], &check["rejected"]), (&5.into(), &0.into()));
    let signed = json(&["sale", &signed, "--json", "--data", data]);
    assert_eq!(signed["events"].as_array().unwrap().last().unwrap()["body"]["signed_by"], "till-1");
}

/// A till's private key as a JWK, made by a library that is not ours, and enrolled by its public half.
fn signing_key(folder: &Path, data: &str) -> String {
    let (private, public) = (folder.join("till.jwk"), folder.join("till.pub.jwk"));
    let make = "import sys; from jwcrypto.jwk import JWK; key = JWK.generate(kty='OKP', crv='Ed25519'); \
                open(sys.argv[1], 'w').write(key.export()); open(sys.argv[2], 'w').write(key.export_public())";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    assert!(Command::new(python).args(["-c", make]).args([&private, &public]).status().unwrap().success());
    let (private, public) = (private.to_str().unwrap(), public.to_str().unwrap());
    let till = ["--shop", "AMIS1", "--till", "till-1"];
    let enrolled =
        json(&[&["till", "enroll"], &till[..], &["--key", public, "--json", "--data", data]].concat());
    assert_eq!(enrolled["till"], "till-1");
    private.to_owned()
}
