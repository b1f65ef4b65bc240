//! Kassa's figures, each against a limit measured in the same run: `cargo bench --bench shop`.
//!
//! The machines this runs on are noisy, so it is ratios that hold. Name a section to run only that:
//! `cargo bench --bench shop -- sealed`. Of the section `strangers` one can be named as well: `-- strangers Undeclared`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

/// The console on a million events, and what its feed costs a sale.
mod console;
/// The table's own best rate: what everything is measured against.
mod limits;
/// A million events: rebuilding, scanning, starting.
mod million;
/// Accept while something behind it is down.
mod outage;
/// A shop in a process of its own, and what it says of itself.
mod process;
/// Sealed and classic sales from post to read model.
mod selling;
/// A till's answers while strangers and neighbours do what they can.
mod strangers;
/// What counting, logging and tracing add to a sale.
mod telemetry;
/// A till that can do without its shop.
mod tills;
/// The whole shop in memory, as the tests have it.
#[path = "../../tests/it/common/world.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod world;

use std::error::Error;

/// The limits get the allocator that the command has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// One figure of the report.
pub fn figure(name: &str, value: &str, limit: &str, wanted: &str, held: bool) {
    println!("{} {name}: {value}  [{limit}; wanted {wanted}]", if held { "ok  " } else { "MISS" });
}

fn main() -> Outcome<()> {
    if std::env::var_os(telemetry::COLLECTOR).is_some() {
        return telemetry::collect();
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |section: &str| wanted.is_empty() || wanted.iter().any(|w| w == section);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if runs("sealed") {
            selling::sealed().await?;
        }
        if runs("latency") {
            selling::latency().await?;
        }
        if runs("classic") {
            selling::classic().await?;
        }
        if runs("memory") {
            selling::memory().await?;
        }
        if runs("telemetry") {
            telemetry::figures().await?;
        }
        if runs("tills") {
            tills::figures().await?;
        }
        if runs("outage") {
            outage::figures().await?;
        }
        if runs("strangers") {
            strangers::figures(&wanted).await?;
        }
        if runs("million") {
            million::figures().await?;
        }
        if runs("console") {
            console::feed()?;
            if !runs("million") {
                console::figures().await?;
            }
        }
        Ok(())
    })
}
