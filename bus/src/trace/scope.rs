use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;

use super::context::{Parent, TraceContext};
use super::span::{Cell, Kind, Span};
use crate::message::Message;

/// The spans of a batch's messages, by the messages' ids.
pub(super) type Spans = HashMap<String, Arc<Cell>>;

/// What a task knows of the span it is within.
#[derive(Clone)]
pub struct Scope {
    pub(super) cell: Arc<Cell>,
    pub(super) batch: Option<Arc<Spans>>,
}

tokio::task_local! {
    static SCOPE: Option<Scope>;
}

/// A future within a span.
pub type Within<F> = TaskLocalFuture<Option<Scope>, F>;

pub(super) fn within<F: Future>(scope: Option<Scope>, future: F) -> Within<F> {
    SCOPE.scope(scope, future)
}

fn scope() -> Option<Scope> {
    SCOPE.try_with(Clone::clone).ok().flatten()
}

/// A span below the one this task is within, if it is within any.
pub fn child(kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
    SCOPE
        .try_with(|scope| scope.as_ref().map(|scope| scope.cell.child(kind, name.into())))
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Where this task is in a trace that is recorded here.
#[must_use]
pub fn current() -> Option<TraceContext> {
    SCOPE.try_with(|scope| scope.as_ref().map(|scope| scope.cell.context)).ok().flatten()
}

/// Says something of the span this task is within: copied only if anything is recorded.
pub fn note(name: &'static str, value: impl AsRef<str>) {
    let _ = SCOPE.try_with(|scope| {
        if let Some(scope) = scope {
            scope.cell.change(|data| data.attributes.push((name, value.as_ref().to_owned().into())));
        }
    });
}

/// Has what is done about one message of a batch be within that message's own span.
pub fn of_message<F: Future>(message: &Message, future: F) -> Within<F> {
    let own = scope().map(|scope| {
        let own = scope.batch.as_ref().and_then(|batch| batch.get(&message.id));
        Scope { cell: own.cloned().unwrap_or(scope.cell), batch: None }
    });
    SCOPE.scope(own, future)
}

/// A span in the trace that a message belongs to, by whoever this task works for.
pub(super) fn beside(parent: Option<&Parent>, kind: Kind, name: Cow<'static, str>) -> Span {
    let Some(Scope { cell, .. }) = scope() else { return Span::default() };
    match parent {
        None => cell.child(kind, name),
        Some(parent) => {
            let context = parent.child(parent.sampled.unwrap_or(cell.context.is_sampled()));
            Span::begin(&cell.shared, context, Some(parent), kind, name)
        }
    }
}
