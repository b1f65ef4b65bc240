use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;

use opentelemetry::trace::{FutureExt, TraceContextExt, WithContext};
use opentelemetry::{Context, KeyValue};

use super::context::{Parent, TraceContext};
use super::span::{Kind, Span};
use crate::message::Message;

/// A future within a span.
pub type Within<F> = WithContext<F>;

/// The spans of a batch's messages, by the messages' ids: part of what is known within the batch's own.
pub(super) struct OfMessages(pub HashMap<String, Context>);

/// A span below the one this task is within, if it is within any.
pub fn child(kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
    Context::map_current(|here| Span::begin(here, kind, name))
}

/// Where this task is in a trace that is recorded here.
#[must_use]
pub fn current() -> Option<TraceContext> {
    Context::map_current(|here| TraceContext::of(here.span().span_context()))
}

/// Says something of the span this task is within: copied only if anything is recorded.
pub fn note(name: &'static str, value: impl AsRef<str>) {
    Context::map_current(|here| {
        if here.has_active_span() {
            here.span().set_attribute(KeyValue::new(name, value.as_ref().to_owned()));
        }
    });
}

/// Has what is done about one message of a batch be within that message's own span.
pub fn of_message<F: Future>(message: &Message, future: F) -> Within<F> {
    let own = Context::map_current(|here| {
        here.get::<OfMessages>().and_then(|spans| spans.0.get(&message.id)).unwrap_or(here).clone()
    });
    future.with_context(own)
}

/// A span in the trace that a message belongs to, by whoever this task works for.
pub(super) fn beside(parent: Option<&Parent>, kind: Kind, name: Cow<'static, str>) -> Span {
    Context::map_current(|here| match parent {
        None => Span::begin(here, kind, name),
        Some(parent) => Span::begin(&parent.above(here), kind, name),
    })
}
