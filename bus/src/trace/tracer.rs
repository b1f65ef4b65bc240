use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::buffer::Buffer;
use super::context::{Parent, TraceContext};
use super::export::{Exporter, Sent};
use super::options::Options;
use super::sampler::Sampler;
use super::span::{Finished, Kind, Span};
use crate::clock::Clock;
use crate::settings::{SettingError, Settings};

/// Makes spans and has them exported, or does nothing.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

/// What all spans of a program have in common.
pub(super) struct Shared {
    pub clock: Clock,
    sampler: Sampler,
    buffer: Mutex<Buffer>,
    enough: Notify,
    exporter: Exporter,
    timeout: Duration,
    /// Until when whoever collects the spans is left alone. Held while spans are exported.
    rest: tokio::sync::Mutex<Option<Instant>>,
}

/// How long whoever collects the spans is left alone when an export failed: nobody is to wait for it each time.
const REST: Duration = Duration::from_secs(30);

/// How often spans are exported where nothing else says when.
const EVERY: Duration = Duration::from_secs(1);

impl Tracer {
    /// Traces if OpenTelemetry's variables say where to. The resource is who makes the spans; the variables may say
    /// otherwise.
    ///
    /// # Errors
    /// [`SettingError`] names the variable that is wrong.
    pub fn new(
        settings: &Settings,
        resource: impl IntoIterator<Item = (&'static str, String)>,
        clock: Clock,
    ) -> Result<Self, SettingError> {
        let Some(options) = Options::of(settings, resource)? else { return Ok(Self::default()) };
        let (sampler, timeout) = (options.sampler, options.timeout);
        Ok(Self(Some(Arc::new(Shared {
            clock,
            sampler,
            buffer: Mutex::default(),
            enough: Notify::new(),
            exporter: Exporter::new(options)?,
            timeout,
            rest: tokio::sync::Mutex::default(),
        }))))
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A span in the parent's trace, or in one of its own.
    pub fn start(&self, parent: Option<&Parent>, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        let Some(shared) = &self.0 else { return Span::default() };
        let parent_or_own = parent.map_or_else(|| Cow::Owned(TraceContext::random().into()), Cow::Borrowed);
        let sampled = parent.and_then(|parent| parent.sampled);
        let context = parent_or_own.child(shared.sampler.samples(parent_or_own.trace_id, sampled));
        Span::begin(shared, context, parent, kind, name.into())
    }

    /// A span in a trace of its own, that is sampled if any of those it works for is.
    pub(super) fn start_for(
        &self,
        works_for_sampled: bool,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
    ) -> Span {
        let Some(shared) = &self.0 else { return Span::default() };
        let context = TraceContext::random().sibling(works_for_sampled);
        Span::begin(shared, context, None, kind, name.into())
    }

    /// Exports every second, or sooner where there is much. Never ends.
    pub async fn run(self) {
        let Some(shared) = &self.0 else { return };
        loop {
            // Either is reason to.
            let _ = tokio::time::timeout(EVERY, shared.enough.notified()).await;
            self.flush(Duration::MAX).await;
        }
    }

    /// Exports what there is, within this time. What cannot be exported is kept for the next time, as far as there is
    /// room; then, and for half a minute, nobody waits.
    async fn flush(&self, limit: Duration) {
        let Some(shared) = &self.0 else { return };
        let begun = Instant::now();
        let Ok(mut rest) = tokio::time::timeout(limit, shared.rest.lock()).await else { return };
        if rest.is_some_and(|until| begun < until) {
            return;
        }
        *rest = None;
        loop {
            let patience = limit.saturating_sub(begun.elapsed()).min(shared.timeout);
            let spans = if patience.is_zero() { Vec::new() } else { shared.buffer().take() };
            if spans.is_empty() {
                break;
            }
            let sent = tokio::time::timeout(patience, shared.exporter.send(&spans)).await;
            match sent.unwrap_or_else(|_| Sent::Failed(format!("no answer within {patience:?}"))) {
                Sent::Taken => {}
                Sent::Refused(why) => {
                    tracing::warn!(spans = spans.len(), %why, "traces were refused and are lost");
                }
                Sent::Failed(why) => {
                    tracing::warn!(%why, "traces cannot be exported, the next try is in half a minute");
                    shared.buffer().put_back(spans);
                    *rest = Some(Instant::now() + REST);
                    break;
                }
            }
        }
        match shared.buffer().let_go() {
            0 => {}
            spans => tracing::warn!(spans, "there was no room for more traces, these are lost"),
        }
    }

    /// Exports what an invocation made, within this time and its variables'. What was held of traces without an error is
    /// let go: nothing more comes of them here.
    pub async fn invocation_ended(&self, limit: Duration) {
        if let Some(shared) = &self.0 {
            shared.buffer().forget_held();
            self.flush(limit.min(shared.timeout)).await;
        }
    }

    /// Exports what is left, within this time: the last try there is.
    pub async fn close(&self, limit: Duration) {
        if let Some(shared) = &self.0 {
            if let Ok(mut rest) = tokio::time::timeout(limit, shared.rest.lock()).await {
                *rest = None;
            }
            self.flush(limit).await;
        }
    }
}

impl Shared {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn finished(&self, span: Finished) {
        if self.buffer().push(span) {
            self.enough.notify_one();
        }
    }
}
