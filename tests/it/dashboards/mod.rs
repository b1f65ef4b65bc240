//! The dashboards, the alarms and their runbook: that they say what there is, and nothing else.

/// Alarms and runbook.
mod alarms;
/// What a body may be.
mod layout;
/// What is measured, and what that costs.
mod metrics;
/// What expressions come to.
mod reckoned;

use std::fs;
use std::path::Path;

use clap::Parser;
use kassa::args::Cli;
use kassa::monitor::alarms::Alarms;
use kassa::monitor::dashboard::{BODIES, Content, Dashboard, Metrics};
use kassa::monitor::placeholders::Placeholders;

const HERE: Placeholders<'_> =
    Placeholders { stack: "kassa-dev", region: "eu-west-1", account: "123456789012", api: "a1b2c3" };

fn dashboards() -> impl Iterator<Item = (&'static str, Dashboard)> {
    BODIES.iter().map(|(name, _)| (*name, Dashboard::named(name, &HERE).unwrap().unwrap()))
}

fn widgets() -> impl Iterator<Item = (&'static str, Metrics)> {
    dashboards().flat_map(|(name, dashboard)| {
        dashboard.widgets.into_iter().filter_map(move |widget| match widget.content {
            Content::Metrics(metrics) => Some((name, *metrics)),
            _ => None,
        })
    })
}

fn alarms() -> Alarms {
    Alarms::of(&HERE).unwrap()
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The commands of ours in a text: whatever is marked as code and begins with `kassa`.
fn kassa(text: &str) -> Vec<String> {
    let blocks = text.split("```").enumerate();
    let code = blocks.flat_map(|(n, block)| {
        let code: Vec<&str> = match n % 2 {
            1 => block.lines().collect(),
            _ => block.split('`').skip(1).step_by(2).collect(),
        };
        code
    });
    code.filter(|code| code.starts_with("kassa "))
        .map(|code| code.replace("<sale_id>", "1-20261122"))
        .collect()
}

#[track_caller]
fn runs(command: &str) {
    if let Err(why) = Cli::try_parse_from(command.split_whitespace()) {
        panic!("{command}: {why}");
    }
}
