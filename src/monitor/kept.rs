use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kassa_bus::cache::Cache;

use super::{AlarmStatus, Line, Monitor, MonitorError, Query};

/// A monitor that is not asked again for what it has just said, however many pages ask. `CloudWatch` has something
/// new once a minute and charges for each question.
pub struct Kept {
    inner: Arc<dyn Monitor>,
    data: Cache<Arc<Vec<Line>>, MonitorError>,
    alarms: Cache<Arc<Vec<AlarmStatus>>, MonitorError>,
}

/// Answers kept, at most.
const ANSWERS: u64 = 500;

impl Kept {
    /// Keeps lines until the minute is over, or for `data`, and alarms for `alarms`.
    #[must_use]
    pub fn new(inner: Arc<dyn Monitor>, data: Duration, alarms: Duration) -> Self {
        Self { inner, data: Cache::new(ANSWERS, data), alarms: Cache::new(1, alarms) }
    }
}

fn minute(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

#[async_trait]
impl Monitor for Kept {
    fn stack(&self) -> &str {
        self.inner.stack()
    }

    fn api(&self) -> &str {
        self.inner.api()
    }

    async fn data(
        &self,
        queries: &[Query],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>, MonitorError> {
        let asked = format!("{} {} {queries:?}", minute(from), minute(to));
        // Whoever asks the same meanwhile waits for the one answer. What failed is not kept.
        let answer = async { self.inner.data(queries, from, to).await.map(Arc::new) };
        Ok(self.data.get_or_load(asked.as_bytes(), answer).await?.to_vec())
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        let answer = async { self.inner.alarms().await.map(Arc::new) };
        Ok(self.alarms.get_or_load(b"", answer).await?.to_vec())
    }
}
