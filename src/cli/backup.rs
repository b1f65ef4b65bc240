use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kassa_bus::Clock;
use serde_json::json;

use super::Failure;
use crate::args::{BackupArgs, DATA};
use crate::embedded::{self, Doing, Manifest};
use crate::output::print;

pub(super) async fn backup(BackupArgs { to, data, json }: BackupArgs) -> Result<ExitCode, Failure> {
    let bar = bar();
    let made =
        embedded::backup(&data, &to, Clock::system().now(), &|doing, done, of| show(&bar, doing, done, of))
            .await;
    bar.finish_and_clear();
    let made = made?;
    told(json, &made, || format!("{} has all that was accepted before {:.0}\n", to.display(), made.at))
}

pub(super) async fn restore(from: &Path, data: &Path, json: bool) -> Result<ExitCode, Failure> {
    let bar = bar();
    let made = embedded::restore(from, data, Clock::system().now(), &|doing, done, of| {
        show(&bar, doing, done, of);
    })
    .await;
    bar.finish_and_clear();
    let made = made?;
    told(json, &made, || {
        let option =
            if data.as_os_str() == DATA { String::new() } else { format!(" --data {}", data.display()) };
        format!(
            "{} is a shop, with all that was accepted before {:.0}\n  kassa up{option}\n  kassa check{option}\n",
            data.display(),
            made.at
        )
    })
}

fn told(as_json: bool, manifest: &Manifest, text: impl FnOnce() -> String) -> Result<ExitCode, Failure> {
    print(&if as_json { format!("{}\n", json!(manifest)) } else { text() })?;
    Ok(ExitCode::SUCCESS)
}

/// Draws nothing where stderr is no terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{spinner} {prefix} {bar:30.green} {bytes}/{total_bytes}, {bytes_per_sec}",
    );
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // Checking takes a while and cannot say how much of it is done.
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(bar: &ProgressBar, doing: Doing, done: u64, of: u64) {
    bar.set_prefix(match doing {
        Doing::Copying => "copying",
        Doing::Checking => "checking",
    });
    if of > 0 {
        bar.set_length(of);
        bar.set_position(done);
    }
}
