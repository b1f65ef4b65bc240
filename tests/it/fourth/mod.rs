//! A fourth subscriber, added in a copy of the project by doing what `subscribers/README.md` says and nothing else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn a_fourth_subscriber_touches_its_own_folder_only_and_is_in_the_shop_and_in_the_template() {
    // given a copy of the project, always at the same place: what did not change since is not built again
    let copy = &Path::new(env!("CARGO_TARGET_TMPDIR")).join("fourth");
    if copy.exists() {
        fs::remove_dir_all(copy).unwrap();
    }
    let files = tracked();
    for file in &files {
        write(&copy.join(file), &fs::read(root().join(file)).unwrap(), &[file]);
    }

    // when the README is followed: a file, a line, a block
    let [readme, list, blocks] =
        ["subscribers/README.md", "subscribers/src/lib.rs", "subscribers/deploy.yml"];
    let read = |file: &str| fs::read_to_string(copy.join(file)).unwrap();
    let followed = |file: &str, content: &str| {
        write(&copy.join(file), content.as_bytes(), &[readme, list, blocks, file!()]);
    };
    followed(
        "subscribers/src/loyalty_points.rs",
        &block(&read(readme), "```rust\n// src/loyalty_points.rs\n"),
    );
    let all = read(list).replacen("vec![", "vec![loyalty_points::ENTRY, ", 1);
    assert_ne!(all, read(list), "all() is a list");
    followed(list, &format!("{all}\nmod loyalty_points;\n"));
    let more = block(&read(readme), "```yaml\n# deploy.yml\n");
    followed(blocks, &format!("{}\n{more}", read(blocks)));

    // then nothing outside its folder is another
    let changed: BTreeSet<_> = files.iter().filter(|f| !same(&root().join(f), &copy.join(f))).collect();
    assert!(changed.iter().all(|file| file.starts_with("subscribers")), "{changed:?}");
    assert_eq!(changed.len(), 2, "{changed:?}");

    // and the shop has it: what is sold there is credited
    let shop = "tests/it/fourth/shop.rs";
    write(&copy.join("examples/fourth.rs"), &fs::read(root().join(shop)).unwrap(), &[shop]);
    let mut cargo = Command::new(env!("CARGO"));
    // The features that the tests are built with, so that the dependencies are those that are there.
    cargo.args(["run", "--locked", "--quiet", "--all-features", "--example", "fourth"]).current_dir(copy);
    // An example of another folder: it shares what does not change, and touches no binary of ours.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let shop = cargo.env("CARGO_TARGET_DIR", target).output().unwrap();
    assert!(shop.status.success(), "{}", said(&shop));

    // and so has the deployment
    let resources = packaged(copy);
    for kind in ["Queue", "DeadLetters", "Subscription", "QueuePolicy", "Table", "Role"] {
        assert!(resources.get(format!("LoyaltyPoints{kind}")).is_some(), "no {kind}");
    }
    let subscription = &resources["LoyaltyPointsSubscription"]["Properties"];
    assert_eq!(subscription["TopicArn"]["Ref"], "ToProcessTopic");
    let function = resources.as_object().unwrap().values().filter(|resource| {
        resource["Type"] == "AWS::Lambda::Function" && resource["Properties"]["Handler"] == "loyalty-points"
    });
    assert_eq!(function.count(), 1);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What belongs to the project: no builds, no data.
fn tracked() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = git.output().unwrap();
    assert!(listed.status.success(), "{}", said(&listed));
    let names = String::from_utf8(listed.stdout).unwrap();
    names.split_terminator('\0').map(PathBuf::from).filter(|file| root().join(file).is_file()).collect()
}

/// Writes a file that is as old as the youngest of those that it is made of, by which cargo tells what to build again.
fn write(to: &Path, content: &[u8], of: &[impl AsRef<Path>]) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, content).unwrap();
    let modified = of.iter().map(|file| fs::metadata(root().join(file)).unwrap().modified().unwrap()).max();
    File::options().append(true).open(to).unwrap().set_modified(modified.unwrap()).unwrap();
}

fn block(readme: &str, begins: &str) -> String {
    let (_, rest) = readme.split_once(begins).unwrap_or_else(|| panic!("no {begins}"));
    rest.split_once("```").unwrap().0.to_owned()
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

/// The copy's template, with bootstraps that are never run.
fn packaged(copy: &Path) -> Value {
    let artifacts = copy.join("artifacts");
    fs::create_dir_all(&artifacts).unwrap();
    fs::write(artifacts.join("bootstrap"), "").unwrap();
    for room in ["pipeline.zip", "subscribers.zip"] {
        let mut python = Command::new(root().join(".venv/bin/python"));
        python.args(["-m", "zipfile", "-c", room, "bootstrap"]).current_dir(&artifacts);
        assert!(python.status().unwrap().success());
    }
    let mut node = Command::new("node");
    node.arg(root().join("node_modules/osls/bin/serverless.js")).arg("package").current_dir(copy);
    node.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", copy);
    node.env("KASSA_ARTIFACTS", artifacts).env("SLS_TELEMETRY_DISABLED", "1");
    let output = node.env("SLS_NOTIFICATIONS_MODE", "off").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let template = copy.join(".serverless/cloudformation-template-update-stack.json");
    let mut template: Value = serde_json::from_slice(&fs::read(template).unwrap()).unwrap();
    template["Resources"].take()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).join("\n")
}
