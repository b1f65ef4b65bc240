use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use moka::future::Cache;

use super::{AlarmStatus, Line, Monitor, MonitorError, Query};

/// A monitor that is not asked again for what it has just said, however many pages ask. `CloudWatch` has something
/// new once a minute and charges for each question.
pub struct Kept {
    inner: Arc<dyn Monitor>,
    data: Cache<String, Arc<Vec<Line>>>,
    alarms: Cache<(), Arc<Vec<AlarmStatus>>>,
}

/// Answers kept, at most.
const ANSWERS: u64 = 500;

impl Kept {
    /// Keeps lines until the minute is over, or for `data`, and alarms for `alarms`.
    #[must_use]
    pub fn new(inner: Arc<dyn Monitor>, data: Duration, alarms: Duration) -> Self {
        Self {
            inner,
            data: Cache::builder().max_capacity(ANSWERS).time_to_live(data).build(),
            alarms: Cache::builder().max_capacity(1).time_to_live(alarms).build(),
        }
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
        match self.data.try_get_with(asked, answer).await {
            Ok(lines) => Ok(lines.to_vec()),
            Err(why) => Err(MonitorError::clone(&why)),
        }
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        let answer = async { self.inner.alarms().await.map(Arc::new) };
        match self.alarms.try_get_with((), answer).await {
            Ok(alarms) => Ok(alarms.to_vec()),
            Err(why) => Err(MonitorError::clone(&why)),
        }
    }
}
