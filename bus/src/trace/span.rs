use std::borrow::Cow;
use std::future::Future;

use opentelemetry::trace::{FutureExt, Link, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};

use super::context::TraceContext;
use super::scope::{OfMessages, Within};
use super::tracer::Shared;

pub use opentelemetry::trace::SpanKind as Kind;

/// Something that takes time, in a trace. It ends when it is dropped. Where tracing is off it is nothing, and costs that.
///
/// What is said of it is for whoever runs the shop, and leaves it: never anything of a sale's content.
#[must_use]
#[derive(Default)]
pub struct Span(Option<Context>);

impl Span {
    /// Begins a span below the context's, in the trace of that; nothing where no tracer made the context.
    pub(super) fn begin(above: &Context, kind: Kind, name: impl Into<Cow<'static, str>>) -> Self {
        Self::begin_for(above, kind, name, Vec::new())
    }

    /// As [`Span::begin`], for the work of others' traces.
    pub(super) fn begin_for(
        above: &Context,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        links: Vec<Link>,
    ) -> Self {
        let Some(shared) = above.get::<Shared>() else { return Self::default() };
        let span = SpanBuilder {
            name: name.into(),
            span_kind: Some(kind),
            start_time: Some(shared.clock.now().into()),
            attributes: Some(Vec::with_capacity(12)),
            links: Some(links),
            ..SpanBuilder::default()
        };
        Self(Some(above.with_span(shared.tracer.build_with_context(span, above))))
    }

    /// Where it is, for others to continue from.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().and_then(|own| TraceContext::of(own.span().span_context()))
    }

    /// Whether anything is recorded: what costs to find out need not be, otherwise.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub fn attribute(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(own) = &self.0 {
            own.span().set_attribute(KeyValue::new(name, value));
        }
    }

    pub fn number(&self, name: &'static str, value: impl TryInto<i64>) {
        self.attribute(name, value.try_into().unwrap_or(i64::MAX));
    }

    /// A text that is somebody else's: copied only if anything is recorded.
    pub fn text(&self, name: &'static str, value: impl AsRef<str>) {
        if self.is_on() {
            self.attribute(name, value.as_ref().to_owned());
        }
    }

    pub(super) fn link(&self, to: SpanContext) {
        if let Some(own) = &self.0 {
            own.span().add_link(to, Vec::new());
        }
    }

    pub(super) fn links_to(&self, other: &Self) {
        if let Some(other) = &other.0 {
            self.link(other.span().span_context().clone());
        }
    }

    /// What a message carries of it, for whoever takes that to continue from.
    pub(super) fn carried(&self) -> impl Iterator<Item = (String, String)> {
        let state = self.0.as_ref().map(|own| own.span().span_context().trace_state().header());
        let state = state.filter(|state| !state.is_empty());
        let context = self.context().map(|context| ("traceparent".to_owned(), context.to_string()));
        context.into_iter().chain(state.map(|state| ("tracestate".to_owned(), state)))
    }

    /// Says that it failed, by a name of few kinds and in words. Its trace is exported, whatever the sampler says.
    pub fn fail(&self, kind: &'static str, why: impl Into<String>) {
        if let Some(own) = &self.0 {
            self.attribute("error.type", kind);
            own.span().set_status(Status::error(shortened(why.into())));
        }
    }

    /// Ends it, as failed if the outcome is.
    pub fn ends<T, E: ToString>(self, kind: &'static str, outcome: Result<T, E>) -> Result<T, E> {
        if let Err(why) = &outcome
            && self.is_on()
        {
            self.fail(kind, why.to_string());
        }
        outcome
    }

    /// Has spans that begin in the future's course be below this one.
    pub fn within<F: Future>(&self, future: F) -> Within<F> {
        future.with_context(self.0.clone().unwrap_or_default())
    }

    /// As [`Span::within`], and has [`of_message`](super::of_message) find the messages' own spans.
    pub(super) fn within_batch<F: Future>(&self, messages: OfMessages, future: F) -> Within<F> {
        future.with_context(self.0.as_ref().map(|own| own.with_value(messages)).unwrap_or_default())
    }

    /// What others begin their spans below.
    pub(super) fn own(&self) -> Option<&Context> {
        self.0.as_ref()
    }
}

/// No longer than anybody reads.
fn shortened(mut why: String) -> String {
    why.truncate(why.floor_char_boundary(1_000));
    why
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(own) = &self.0
            && let Some(shared) = own.get::<Shared>()
        {
            own.span().end_with_timestamp(shared.clock.now().into());
        }
    }
}
