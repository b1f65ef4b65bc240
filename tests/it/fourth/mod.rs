//! A fourth subscriber, added in a copy of the project by doing what `subscribers/README.md` says and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn a_fourth_subscriber_touches_its_own_folder_only_and_is_in_the_shop_and_in_the_template() {
    // given a copy of the project
    let copy = &Copied::anew();
    let files = tracked();
    for file in &files {
        copy.write(file, &fs::read(root().join(file)).unwrap());
    }

    // when the README is followed: a file, a line, a block
    let [readme, list, blocks] =
        ["subscribers/README.md", "subscribers/src/lib.rs", "subscribers/deploy.yml"];
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let rust = block(&read(readme), "```rust\n// src/loyalty_points.rs\n");
    copy.write("subscribers/src/loyalty_points.rs", rust.as_bytes());
    let all = read(list).replacen("vec![", "vec![loyalty_points::ENTRY, ", 1);
    assert_ne!(all, read(list), "all() is a list");
    copy.write(list, format!("{all}\nmod loyalty_points;\n").as_bytes());
    let more = block(&read(readme), "```yaml\n# deploy.yml\n");
    copy.write(blocks, format!("{}\n{more}", read(blocks)).as_bytes());

    // then nothing outside its folder is another
    let changed: BTreeSet<_> =
        files.iter().filter(|f| !same(&root().join(f), &copy.folder.join(f))).collect();
    assert!(changed.iter().all(|file| file.starts_with("subscribers")), "{changed:?}");
    assert_eq!(changed.len(), 2, "{changed:?}");

    // and the shop has it: what is sold there is credited
    copy.write("examples/fourth.rs", &fs::read(root().join("tests/it/fourth/shop.rs")).unwrap());
    // Of a version of its own, by which cargo tells its crates from ours: the rest is built already.
    let (ours, its) = (env!("CARGO_PKG_VERSION"), concat!(env!("CARGO_PKG_VERSION"), "-fourth"));
    for (file, before) in [
        ("Cargo.toml", "[workspace.package]\n"),
        ("Cargo.lock", "name = \"kassa\"\n"),
        ("Cargo.lock", "name = \"kassa-bus\"\n"),
        ("Cargo.lock", "name = \"kassa-pipeline\"\n"),
        ("Cargo.lock", "name = \"kassa-subscribers\"\n"),
    ] {
        copy.replace(file, &format!("{before}version = \"{ours}\""), &format!("{before}version = \"{its}\""));
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--workspace", "--all-features", "--example", "fourth"]);
    let built = cargo.env("CARGO_TARGET_DIR", target).current_dir(&copy.folder).output().unwrap();
    assert!(built.status.success(), "{}", said(&built));
    let shop = Command::new(target.join("debug/examples/fourth")).output().unwrap();
    assert!(shop.status.success(), "{}", said(&shop));

    // and so has the deployment
    let resources = packaged(&copy.folder);
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

/// The copy, always at the same place. A file that is as it was in the last one is that file, by whose age cargo tells what
/// to build again.
struct Copied {
    folder: PathBuf,
    last: PathBuf,
}

impl Copied {
    fn anew() -> Self {
        let [folder, last] =
            ["fourth", "fourth-last"].map(|name| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        if folder.exists() {
            let _ = fs::remove_dir_all(&last);
            fs::rename(&folder, &last).unwrap();
        }
        Self { folder, last }
    }

    fn write(&self, file: impl AsRef<Path>, content: &[u8]) {
        let (to, was) = (self.folder.join(&file), self.last.join(file));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if fs::read(&was).is_ok_and(|was| was == content) {
            fs::rename(was, to).unwrap();
        } else if !fs::read(&to).is_ok_and(|is| is == content) {
            fs::write(to, content).unwrap();
        }
    }

    #[track_caller]
    fn replace(&self, file: &str, from: &str, to: &str) {
        let content = fs::read_to_string(self.folder.join(file)).unwrap();
        assert!(content.contains(from), "{file} has no {from}");
        self.write(file, content.replacen(from, to, 1).as_bytes());
    }
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
