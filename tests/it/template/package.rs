//! `serverless package` in a copy of what it reads, so that a deployment next to it is not disturbed.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tool {
    /// What deploys.
    Osls,
    /// Serverless Framework 3.40, which many still have.
    Serverless3,
}

impl Tool {
    fn bin(self) -> &'static str {
        match self {
            Self::Osls => "node_modules/osls/bin/serverless.js",
            Self::Serverless3 => "tests/serverless-3/node_modules/serverless/bin/serverless.js",
        }
    }
}

/// What of the deployment's folder a package is made of.
const FOLDERS: [&str; 6] = [".", "dashboards", "deploy", "deploy/certificate", "pipeline", "subscribers"];

const ROOMS: [&str; 2] = ["pipeline", "subscribers"];

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file that `make setup` makes.
#[track_caller]
pub fn installed(path: &str) -> PathBuf {
    let path = root().join(path);
    assert!(path.exists(), "there is no {}; `make setup` makes it", path.display());
    path
}

/// The file of the template that `tool` compiles, with these arguments, of the service in `folder`. Kept for as
/// long as what it is made of stays as it is: each test is a process of its own.
#[track_caller]
pub fn compiled(tool: Tool, folder: &str, args: &[&str]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (tool, folder, args, fs::read(installed(tool.bin()).with_file_name("../package.json")).unwrap())
        .hash(&mut hasher);
    for source in sources() {
        (&source, fs::read(root().join(&source)).unwrap()).hash(&mut hasher);
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("template-{:x}", hasher.finish()));
    fs::create_dir_all(&copy).unwrap();
    let alone = File::create(copy.join("lock")).unwrap();
    alone.lock().unwrap();
    let template = copy.join("template.json");
    if !template.exists() {
        copy_sources(&copy);
        let output = package(&copy, tool, folder, args, SystemTime::now());
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        fs::rename(packaged(&copy, folder, "cloudformation-template-update-stack.json"), &template).unwrap();
    }
    template
}

pub fn read(template: &Path) -> Value {
    serde_json::from_slice(&fs::read(template).unwrap()).unwrap()
}

pub fn copy_sources(copy: &Path) {
    for source in sources() {
        fs::create_dir_all(copy.join(&source).parent().unwrap()).unwrap();
        fs::copy(root().join(&source), copy.join(source)).unwrap();
    }
}

/// Packages what is in `copy`, with bootstraps that were built at `built` and do nothing.
#[track_caller]
pub fn package(copy: &Path, tool: Tool, folder: &str, args: &[&str], built: SystemTime) -> Output {
    let artifacts = copy.join("artifacts");
    for room in ROOMS {
        zip(&artifacts, &format!("{room}.zip"), built);
    }
    let mut node = Command::new("node");
    node.arg(installed(tool.bin())).arg("package").args(args).current_dir(copy.join(folder));
    // Nothing of whoever runs this: no home, account or region.
    node.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", copy);
    node.env("KASSA_ARTIFACTS", artifacts)
        .env("SLS_TELEMETRY_DISABLED", "1")
        .env("SLS_NOTIFICATIONS_MODE", "off");
    node.output().unwrap()
}

pub fn packaged(copy: &Path, folder: &str, file: &str) -> PathBuf {
    copy.join(folder).join(".serverless").join(file)
}

pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).join("\n")
}

fn sources() -> Vec<PathBuf> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = PathBuf::from(entry.unwrap().file_name());
            let ending = name.extension().and_then(|ending| ending.to_str());
            if matches!((folder, ending), (_, Some("yml" | "js")) | ("dashboards", Some("json"))) {
                sources.push(Path::new(folder).join(name));
            }
        }
    }
    sources.sort();
    sources
}

fn zip(folder: &Path, name: &str, built: SystemTime) {
    fs::create_dir_all(folder).unwrap();
    let bootstrap = File::create(folder.join("bootstrap")).unwrap();
    bootstrap.set_modified(built).unwrap();
    let mut python = Command::new(installed(".venv/bin/python"));
    python.args(["-m", "zipfile", "-c", name, "bootstrap"]).current_dir(folder);
    assert!(python.status().unwrap().success());
}

/// A zip knows seconds in pairs.
pub const LATER: Duration = Duration::from_hours(1);
