use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry::trace::{Link, SpanId, TraceId, TracerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};

use super::context::{Parent, Xray};
use super::ended::Ended;
use super::export::{Connect, Exporter, Sent};
use super::options::Options;
use super::span::{Kind, Span};
use crate::clock::Clock;
use crate::settings::{SettingError, Settings};

/// Makes spans and has them exported, or does nothing: what every span's context comes from, with what they share in it.
#[derive(Clone, Default)]
pub struct Tracer(Option<Context>);

/// What all spans of a program have in common.
pub(super) struct Shared {
    pub clock: Clock,
    pub tracer: SdkTracer,
    ended: Ended,
    exporter: Exporter,
    timeout: Duration,
    exports: tokio::sync::Mutex<Exports>,
}

/// Held while spans are exported.
#[derive(Default)]
struct Exports {
    /// Until when whoever collects the spans is left alone.
    rest: Option<Instant>,
    /// What could not be sent, and how many spans that is.
    unsent: Option<(Bytes, usize)>,
}

/// How long whoever collects the spans is left alone when an export failed: nobody is to wait for it each time.
const REST: Duration = Duration::from_secs(30);

/// How often spans are exported where nothing else says when.
const EVERY: Duration = Duration::from_secs(1);

impl Tracer {
    /// Traces if OpenTelemetry's variables say where to. The resource is who makes the spans; the variables may say
    /// otherwise. Spans are posted with what `connect` makes.
    ///
    /// # Errors
    /// [`SettingError`] names the variable that is wrong.
    pub fn new(
        settings: &Settings,
        resource: impl IntoIterator<Item = (&'static str, String)>,
        clock: Clock,
        connect: Connect,
    ) -> Result<Self, SettingError> {
        let Some(options) = Options::of(settings, resource)? else { return Ok(Self::default()) };
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder()
            .with_resource(options.resource.clone())
            .with_sampler(options.sampler.clone())
            .with_id_generator(Ids::default())
            .with_span_processor(ended.clone())
            .build();
        let scope = InstrumentationScope::builder("kassa").with_version(env!("CARGO_PKG_VERSION"));
        let shared = Shared {
            clock,
            tracer: provider.tracer_with_scope(scope.build()),
            ended,
            timeout: options.timeout,
            exporter: Exporter::new(options, connect)?,
            exports: tokio::sync::Mutex::default(),
        };
        Ok(Self(Some(Context::new().with_value(shared))))
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn shared(&self) -> Option<&Shared> {
        self.0.as_ref().and_then(Context::get)
    }

    /// A span in the parent's trace, or in one of its own.
    pub fn start(&self, parent: Option<&Parent>, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        let Some(base) = &self.0 else { return Span::default() };
        let above = parent.map_or_else(|| base.clone(), |parent| parent.above(base));
        // Where `Ids` finds what X-Ray calls the trace.
        let _here = above.clone().attach();
        Span::begin(&above, kind, name)
    }

    /// A span in a trace of its own, that works for others' traces.
    pub(super) fn start_for(&self, links: Vec<Link>, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        let Some(base) = &self.0 else { return Span::default() };
        Span::begin_for(base, kind, name, links)
    }

    /// Exports every second, or sooner where there is much. Never ends.
    pub async fn run(self) {
        let Some(shared) = self.shared() else { return };
        loop {
            // Either is reason to.
            let _ = tokio::time::timeout(EVERY, shared.ended.enough()).await;
            shared.flush(Duration::MAX).await;
        }
    }

    /// Exports what an invocation made, within this time and its variables'. What was held of traces without an error is
    /// let go: nothing more comes of them here.
    pub async fn invocation_ended(&self, limit: Duration) {
        if let Some(shared) = self.shared() {
            shared.ended.buffer().forget_held();
            shared.flush(limit.min(shared.timeout)).await;
        }
    }

    /// Exports what is left, within this time: the last try there is.
    pub async fn close(&self, limit: Duration) {
        if let Some(shared) = self.shared() {
            if let Ok(mut exports) = tokio::time::timeout(limit, shared.exports.lock()).await {
                exports.rest = None;
            }
            shared.flush(limit).await;
        }
    }
}

impl Shared {
    /// Exports what there is, within this time. What cannot be exported is kept for the next time, as far as there is
    /// room; then, and for half a minute, nobody waits.
    async fn flush(&self, limit: Duration) {
        let begun = Instant::now();
        let Ok(mut exports) = tokio::time::timeout(limit, self.exports.lock()).await else { return };
        if exports.rest.is_some_and(|until| begun < until) {
            return;
        }
        exports.rest = None;
        loop {
            let patience = limit.saturating_sub(begun.elapsed()).min(self.timeout);
            if patience.is_zero() {
                break;
            }
            let Some((body, spans)) = exports.unsent.take().or_else(|| self.next()) else { break };
            // Whoever cuts this off leaves it for the next.
            exports.unsent = Some((body.clone(), spans));
            let sent = tokio::time::timeout(patience, self.exporter.send(body)).await;
            match sent.unwrap_or_else(|_| Sent::Failed(format!("no answer within {patience:?}"))) {
                Sent::Taken => exports.unsent = None,
                Sent::Refused(why) => {
                    tracing::warn!(spans, %why, "traces were refused and are lost");
                    exports.unsent = None;
                }
                Sent::Failed(why) => {
                    tracing::warn!(%why, "traces cannot be exported, the next try is in half a minute");
                    exports.rest = Some(Instant::now() + REST);
                    break;
                }
            }
        }
        match self.ended.buffer().let_go() {
            0 => {}
            spans => tracing::warn!(spans, "there was no room for more traces, these are lost"),
        }
    }

    fn next(&self) -> Option<(Bytes, usize)> {
        let spans = self.ended.buffer().take();
        let count = spans.len();
        (count > 0).then(|| (self.exporter.encode(spans), count))
    }
}

/// Ids by chance, but of a trace that has one by X-Ray's header and no span yet, which OpenTelemetry takes for none.
/// API Gateway sends each request so.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let xray = Context::map_current(|here| here.get::<Xray>().map(|xray| xray.trace_id));
        xray.unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}
