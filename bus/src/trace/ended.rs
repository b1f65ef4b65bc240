use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::Notify;

use super::buffer::Buffer;

/// Takes in spans that are over, for whoever exports them. OpenTelemetry's own processors drop what is not sampled, export
/// on threads of their own, and would have an invocation wait for these.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    enough: Notify,
}

impl Ended {
    pub fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once there are so many that there is no waiting for more.
    pub async fn enough(&self) {
        self.0.enough.notified().await;
    }
}

impl SpanProcessor for Ended {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        // The clock may have been set back meanwhile.
        span.end_time = span.end_time.max(span.start_time);
        if self.buffer().push(span) {
            self.0.enough.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::buffer::tests::span;
    use super::*;

    #[test]
    fn a_span_ends_no_sooner_than_it_began() {
        let ended = Ended::default();
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        ended.on_end(SpanData { start_time: began, ..span(1, true, false) });
        assert_eq!(ended.buffer().take()[0].end_time, began);
    }
}
