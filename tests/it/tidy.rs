//! The invariants of the README, held by machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["target", "fuzz"].contains(&name) {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} files in {folder}");
    found
}

/// The code of a file, without its tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = fs::read_to_string(root().join(manifest)).unwrap().parse().unwrap();
    let table = |name: &str| manifest.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    table("dependencies").into_iter().chain(table("dev-dependencies")).map(|(name, _)| name).collect()
}

#[test]
fn pipeline_and_subscribers_depend_on_bus_and_never_on_each_other() {
    let ours =
        |manifest| dependencies(manifest).into_iter().filter(|d| d.starts_with("kassa")).collect::<Vec<_>>();
    assert_eq!(ours("bus/Cargo.toml"), Vec::<String>::new());
    assert_eq!(ours("pipeline/Cargo.toml"), ["kassa-bus"]);
    assert_eq!(ours("subscribers/Cargo.toml"), ["kassa-bus"]);
    for (path, text) in files("pipeline/src", "rs") {
        for subscriber in ["auditor", "alerter", "webhook"] {
            assert!(!code(&text).contains(subscriber), "{} names a subscriber", path.display());
        }
    }
}

/// What a newcomer waits for: most of what AWS's clients cost is compiling them.
#[test]
fn a_build_for_one_machine_compiles_of_aws_dynamodbs_client_alone() {
    let tree = |more: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "tree",
            "--locked",
            "--offline",
            "-p",
            "kassa",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ]);
        let output = cargo.args(more).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let names = String::from_utf8(output.stdout).unwrap();
        names.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect::<BTreeSet<_>>()
    };
    let here = tree(&[]);
    let clients: Vec<_> = here.iter().filter(|name| name.starts_with("aws-sdk-")).collect();
    assert_eq!(clients, ["aws-sdk-dynamodb"]);
    // Nor what only they need: servers and tills here speak HTTP/1.
    for name in ["aws-config", "aws-smithy-http-client", "h2", "lambda_runtime"] {
        assert!(!here.contains(name), "{name}");
    }
    assert!(tree(&["--features", "aws"]).contains("aws-sdk-cloudformation"));
}

#[test]
fn the_aws_sdk_is_named_only_in_adapters_and_bootstraps() {
    let adapters = [
        "bus/src/documents.rs",
        "bus/src/kms.rs",
        "bus/src/lambda/aws.rs",
        "bus/src/lambda/collector.rs",
        "bus/src/lambda/drain.rs",
        "bus/src/attention/table.rs",
        "bus/src/lambda/host.rs",
        "bus/src/lambda/mod.rs",
        "bus/src/notify/sns.rs",
        "bus/src/registry.rs",
        "bus/src/tills/table.rs",
        "bus/src/wake/sqs.rs",
        "bus/src/shops_table.rs",
        "bus/src/sns.rs",
        "bus/src/table.rs",
        "pipeline/src/event_store.rs",
        "pipeline/src/group_commit.rs",
        "pipeline/src/hold.rs",
        "pipeline/src/main.rs",
        "pipeline/src/read_model.rs",
        "pipeline/src/read_model/declare.rs",
        "pipeline/src/read_model/positions.rs",
        "pipeline/src/read_model/replace.rs",
        "pipeline/src/read_model/shared.rs",
        "src/cloud/changes.rs",
        "src/cloud/dead_letters.rs",
        "src/cloud/keys.rs",
        "src/cloud/restore/compare.rs",
        "src/cloud/restore/table.rs",
        "src/cloud/stage.rs",
        "src/embedded/dead_letters.rs",
        "src/embedded/dynamodb.rs",
        "src/embedded/queues.rs",
        "src/embedded/store.rs",
        "src/embedded/stream.rs",
        "src/monitor/aws.rs",
    ];
    let sources =
        ["bus/src", "pipeline/src", "subscribers/src", "src"].into_iter().flat_map(|f| files(f, "rs"));
    for (path, text) in sources {
        let named = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let uses = ["aws_config::", "aws_sdk_", "aws_smithy_", "aws_types::"].iter().any(|sdk| {
            code(&text).contains(&format!("use {sdk}")) || code(&text).contains(&format!(" {sdk}"))
        });
        assert_eq!(uses, adapters.contains(&named.as_str()), "{named}");
    }
}

#[test]
fn dynoxide_is_behind_one_file() {
    for (path, text) in files("src", "rs").into_iter().chain(files("pipeline/src", "rs")) {
        let allowed = ["dynamodb.rs", "store.rs"].contains(&path.file_name().unwrap().to_str().unwrap());
        assert!(allowed || !code(&text).contains("dynoxide"), "{}", path.display());
    }
}

#[test]
fn decisions_are_pure() {
    // The files that say what a request, an envelope, a sale or an event is do nothing but say it.
    let pipeline = [
        "request",
        "content",
        "event",
        "posting",
        "row",
        "problem",
        "problem_type",
        "outcome",
        "overdue",
        "envelope_limit",
        "own_rows",
        "settlement",
        "sweep",
        "tries",
    ]
    .map(|name| ("pipeline", name));
    let bus = ["jwe", "jws", "json", "message", "opening_hours", "quiet_hours", "settings", "tills"];
    let trace = ["buffer", "context", "options", "sampler"].map(|name| format!("trace/{name}"));
    let bus = bus.into_iter().chain(trace.iter().map(String::as_str)).map(|name| ("bus", name));
    let alerter = ["budget", "gsm7", "ict", "incident", "manager", "runbook"];
    let alerter = alerter.map(|name| format!("decrypt_error_alerter/{name}"));
    let alerter = alerter.iter().map(|name| ("subscribers", name.as_str()));
    for (room, name) in pipeline.into_iter().chain(bus).chain(alerter) {
        let text = fs::read_to_string(root().join(format!("{room}/src/{name}.rs"))).unwrap();
        assert!(!code(&text).contains("async "), "{name}.rs does I/O");
    }
}

#[test]
fn what_holds_plaintext_or_keys_cannot_be_printed() {
    let secrets = BTreeMap::from([
        ("bus/src/sale.rs", vec!["struct Line"]),
        ("bus/src/message.rs", vec!["struct DecryptedSale", "struct Message"]),
        ("pipeline/src/content.rs", vec!["struct Content"]),
        ("pipeline/src/event.rs", vec!["struct Recorded", "struct Event", "struct StoredEvent", "enum Fact"]),
        ("bus/src/jwe.rs", vec!["struct ContentKey", "struct Sealer"]),
        ("bus/src/jws.rs", vec!["struct Jws<'a>", "struct Signer"]),
        ("pipeline/src/signature.rs", vec!["struct Opened"]),
        ("bus/src/secrets.rs", vec!["struct SecretText"]),
        ("subscribers/src/warehouse_webhook/delivery.rs", vec!["struct Parcel", "struct Delivery"]),
        ("subscribers/src/warehouse_webhook/post.rs", vec!["struct Letter"]),
        (
            "bus/src/webhook.rs",
            vec!["struct Secret", "struct SalesDelivery", "struct Sales", "struct WarehouseSale"],
        ),
        ("src/console/feed.rs", vec!["struct Sold", "struct Shown"]),
        ("src/embedded/key_file.rs", vec!["struct Key"]),
        ("src/embedded/keys.rs", vec!["struct Job", "struct FileKeys"]),
        ("src/warehouse/copy.rs", vec!["struct Rows"]),
        ("src/warehouse/sns.rs", vec!["struct SnsMessage"]),
    ]);
    for (file, types) in secrets {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for name in types {
            let at = text
                .find(&format!("{name} {{"))
                .or_else(|| text.find(&format!("{name}(")))
                .unwrap_or_else(|| panic!("{file} has no {name}"));
            let before = &text[..at];
            let attributes = &before[before.rfind("\n\n").unwrap_or(0)..];
            assert!(!code(attributes).contains("Debug"), "{file}: {name} derives Debug");
        }
    }
}

#[test]
fn configuration_is_read_once_in_the_command_and_at_a_functions_start() {
    let sources =
        ["bus/src", "pipeline/src", "subscribers/src", "src"].into_iter().flat_map(|f| files(f, "rs"));
    for (path, text) in sources {
        let reads = code(&text).contains("env::var");
        let may = path.ends_with("src/cli.rs") || path.ends_with("bus/src/settings.rs");
        assert!(!reads || may, "{} reads the environment", path.display());
    }
}

#[test]
fn the_stages_are_files_of_their_own_and_the_shop_starts_each() {
    let embedded = |name: &str| fs::read_to_string(root().join("src/embedded").join(name)).unwrap();
    let stages = embedded("stages.rs");
    for (file, stage) in [
        ("accept", "Accept"),
        ("decrypt", "Decrypt"),
        ("process", "Process"),
        ("project", "Project"),
        ("watch", "Watch"),
        ("reconcile", "Reconcile"),
    ] {
        let text = fs::read_to_string(root().join(format!("pipeline/src/{file}.rs"))).unwrap();
        assert!(
            text.contains(&format!("pub const NAME: &str = \"{file}\";")),
            "{file}.rs names its function"
        );
        assert!(stages.contains(stage), "the embedded shop starts {stage}");
    }
    assert!(embedded("open.rs").contains("kassa_subscribers::all()"));
}

#[test]
fn the_lambda_profile_keeps_the_runtimes_panic_handling_and_release_builds_quickly() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let profile = |name: &str| manifest["profile"][name].clone();
    assert_eq!(profile("release")["lto"].as_str(), Some("off"), "a newcomer does not wait for LTO");
    assert_eq!(profile("release")["strip"].as_str(), Some("symbols"));
    assert!(profile("release")["package"].get("*").is_none(), "build scripts and macros are not optimised");
    assert_eq!(profile("lambda")["lto"].as_str(), Some("fat"));
    assert_eq!(profile("lambda")["overflow-checks"].as_bool(), Some(false), "it is no debug build");
    assert_eq!(profile("lambda")["debug-assertions"].as_bool(), Some(false));
    for name in ["release", "lambda"] {
        assert!(profile(name).get("panic").is_none());
    }
}

#[test]
fn every_crate_shares_the_workspaces_versions_and_lints() {
    for manifest in ["Cargo.toml", "bus/Cargo.toml", "pipeline/Cargo.toml", "subscribers/Cargo.toml"] {
        let table: toml::Table = fs::read_to_string(root().join(manifest)).unwrap().parse().unwrap();
        assert_eq!(table["lints"]["workspace"].as_bool(), Some(true), "{manifest}");
        for section in ["dependencies", "dev-dependencies"] {
            for (name, dependency) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten()
            {
                assert_eq!(
                    dependency.get("workspace").and_then(toml::Value::as_bool),
                    Some(true),
                    "{manifest}: {name}"
                );
            }
        }
    }
}

#[test]
fn the_readme_names_only_what_there_is() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for line in readme.lines().filter(|line| line.contains("](") && !line.contains("](http")) {
        for link in line.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            assert!(target.is_empty() || Path::new(&root()).join(target).exists(), "README links {target}");
        }
    }
}

#[test]
fn the_readmes_clients_are_those_that_are_tested() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for client in ["sealed.py", "classic.sh"] {
        let text = fs::read_to_string(root().join("tests/clients").join(client)).unwrap();
        assert!(readme.contains(text.trim()), "the README's {client} is not the file's");
    }
}

#[test]
fn each_test_that_the_security_page_names_is_there() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named = page.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `"));
    let named: Vec<&str> = named.map(|(_, test)| test).collect();
    let sources: Vec<String> = ["bus/src", "pipeline/src", "subscribers/src", "src", "tests"]
        .into_iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|(_, text)| text)
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for test in named {
        assert!(sources.iter().any(|text| text.contains(&format!("fn {test}("))), "{test}");
    }
}
