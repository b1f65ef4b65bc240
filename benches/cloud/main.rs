//! The figures of the deployed shop: `make figures`. Everything is compared with something in the same run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking"
)]

#[path = "../../tests/it/common/bootstraps.rs"]
mod bootstraps;
#[path = "../../tests/it/common/boto.rs"]
mod boto;
#[path = "../../tests/it/common/cloud.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod cloud;
/// From exec to the first request to the Runtime API.
mod cold;
#[path = "../../tests/it/common/function.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod function;
#[path = "../../tests/it/common/otlp.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod otlp;
#[path = "../../tests/it/common/proxy.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod proxy;
#[path = "../../tests/it/common/runtime_api.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod runtime_api;
/// What each subscriber adds.
mod subscribers;
/// What traces add to a sale.
mod traces;
/// What a sale uses of AWS.
mod units;

use std::time::Instant;

use cloud::Cloud;

#[tokio::main]
async fn main() {
    // `cargo bench -- cold` runs one of them.
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    if wanted("cold") {
        cold::starts(&Cloud::deployed().await).await;
    }
    if wanted("traces") {
        traces::added(&Cloud::deployed().await).await;
    }
    if wanted("deploy") {
        deployments().await;
    }
    if wanted("units") {
        units::measure("sealed", 10_000).await;
        units::measure("classic", 1_000).await;
    }
    if wanted("subscribers") {
        subscribers::measure(5_000, 1_000).await;
    }
}

/// Each twice.
async fn deployments() {
    let cloud = Cloud::deployed().await;
    cloud.serverless(&["remove"]).await;
    for (what, args) in [
        ("deploy", &["deploy"][..]),
        ("deploy, nothing changed", &["deploy"]),
        ("update", &["deploy", "--param", "logLevel=debug"]),
        ("remove", &["remove"]),
        ("deploy", &["deploy"]),
        ("update", &["deploy", "--param", "logLevel=debug"]),
        ("remove", &["remove"]),
    ] {
        let begun = Instant::now();
        cloud.serverless(args).await;
        println!("{what:<24} {:>5.1} s", begun.elapsed().as_secs_f64());
    }
}
