use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;

/// `kassa up` as a user has it.
pub struct Shop {
    child: Child,
    pub url: String,
    /// From start to the first answer.
    pub opened_in: Duration,
}

impl Shop {
    pub async fn open(data: &Path, sync: &str) -> Outcome<Self> {
        Self::open_told(data, sync, &[]).await
    }

    /// With these settings, as `NAME=value`.
    pub async fn open_told(data: &Path, sync: &str, settings: &[String]) -> Outcome<Self> {
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kassa"))
            .args(["up", "--listen", "127.0.0.1:0", "--sync", sync, "--data"])
            .arg(data)
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            // What is said while everything is down is much, and to be read by nobody here.
            .env("RUST_LOG", if settings.is_empty() { "warn" } else { "off" })
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let url = loop {
            let line = lines.next().ok_or("the shop did not open")??;
            if let Some(url) = line.strip_prefix("Kassa is open at ") {
                break url.to_owned();
            }
        };
        let mut shop = Self { child, url, opened_in: begun.elapsed() };
        shop.health().await?;
        shop.opened_in = begun.elapsed();
        Ok(shop)
    }

    pub async fn health(&self) -> Outcome<Value> {
        Ok(reqwest::get(format!("{}/health", self.url)).await?.json().await?)
    }

    pub async fn counted(&self, metric: &str) -> Outcome<u64> {
        Ok(self.health().await?["counted"][metric].as_u64().unwrap_or(0))
    }

    /// Waits until that many sales are in the read models.
    pub async fn projected(&self, sales: u64) -> Outcome<()> {
        while self.counted("projected").await? < sales {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Resident memory in MB: now, and the most there was.
    pub fn memory_mb(&self) -> Outcome<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kb = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).ok_or("no such line")
        };
        Ok((kb("VmRSS:")? / 1024, kb("VmHWM:")? / 1024))
    }

    pub fn close(mut self) -> Outcome<()> {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
