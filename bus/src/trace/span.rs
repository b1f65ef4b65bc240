use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::context::{Parent, TraceContext};
use super::scope::{Scope, Spans, Within, within};
use super::tracer::Shared;

/// What a span does for whoever is at its other end
/// (<https://opentelemetry.io/docs/specs/otel/trace/api/#spankind>); the values are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// What an attribute may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
    Flag(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Something that takes time, in a trace. It ends when it is dropped. Where tracing is off it is nothing, and costs that.
///
/// What is said of it is for whoever runs the shop, and leaves it: never anything of a sale's content.
#[must_use]
#[derive(Default)]
pub struct Span(Option<Arc<Cell>>);

/// A span as long as it goes on.
pub(super) struct Cell {
    pub context: TraceContext,
    pub shared: Arc<Shared>,
    data: Mutex<Data>,
}

/// What is said of a span.
pub(super) struct Data {
    pub name: Cow<'static, str>,
    pub kind: Kind,
    pub parent: Option<u64>,
    pub state: Option<Arc<str>>,
    pub begun: Timestamp,
    pub attributes: Vec<(&'static str, Value)>,
    pub links: Vec<TraceContext>,
    /// Of those that it would have had beside.
    pub more_links: u64,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

/// A span that is over.
pub(super) struct Finished {
    pub context: TraceContext,
    pub ended: Timestamp,
    pub data: Data,
}

/// Links one span has, at most: what OpenTelemetry's own libraries keep.
const LINKS: usize = 128;

impl Span {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        context: TraceContext,
        parent: Option<&Parent>,
        kind: Kind,
        name: Cow<'static, str>,
    ) -> Self {
        let data = Data {
            name,
            kind,
            parent: parent.and_then(|parent| parent.span_id).map(Into::into),
            state: parent.and_then(|parent| parent.state.clone()),
            begun: shared.clock.now(),
            attributes: Vec::with_capacity(8),
            links: Vec::new(),
            more_links: 0,
            failed: None,
        };
        Self(Some(Arc::new(Cell { context, shared: Arc::clone(shared), data: Mutex::new(data) })))
    }

    /// Where it is, for others to continue from.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|cell| cell.context)
    }

    /// Whether anything is recorded: what costs to find out need not be, otherwise.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub fn attribute(&self, name: &'static str, value: impl Into<Value>) {
        self.change(|data| data.attributes.push((name, value.into())));
    }

    /// A text that is somebody else's: copied only if anything is recorded.
    pub fn text(&self, name: &'static str, value: impl AsRef<str>) {
        self.change(|data| data.attributes.push((name, value.as_ref().to_owned().into())));
    }

    pub(super) fn link(&self, to: TraceContext) {
        self.change(|data| {
            if data.links.len() < LINKS {
                data.links.push(to);
            } else {
                data.more_links += 1;
            }
        });
    }

    pub(super) fn links_to(&self, other: &Self) {
        if let Some(to) = other.context() {
            self.link(to);
        }
    }

    /// Says that it failed, by a name of few kinds and in words. Its trace is exported, whatever the sampler says.
    pub fn fail(&self, kind: &'static str, why: impl Into<String>) {
        self.change(|data| {
            data.attributes.push(("error.type", kind.into()));
            data.failed = Some(shortened(why.into()));
        });
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
        within(self.0.as_ref().map(|cell| Scope { cell: Arc::clone(cell), batch: None }), future)
    }

    /// As [`Span::within`], and has [`of_message`](super::of_message) find the messages' own spans.
    pub(super) fn within_batch<F: Future>(&self, spans: Spans, future: F) -> Within<F> {
        let scope = |cell| Scope { cell: Arc::clone(cell), batch: Some(Arc::new(spans)) };
        within(self.0.as_ref().map(scope), future)
    }

    pub(super) fn cell(&self) -> Option<&Arc<Cell>> {
        self.0.as_ref()
    }

    /// What its trace carries of other vendors.
    pub(super) fn state(&self) -> Option<Arc<str>> {
        self.0.as_ref().and_then(|cell| cell.change(|data| data.state.clone()))
    }

    fn change(&self, change: impl FnOnce(&mut Data)) {
        if let Some(cell) = &self.0 {
            cell.change(change);
        }
    }
}

/// No longer than anybody reads.
fn shortened(mut why: String) -> String {
    why.truncate(why.floor_char_boundary(1_000));
    why
}

impl Cell {
    pub fn change<T>(&self, change: impl FnOnce(&mut Data) -> T) -> T {
        change(&mut self.data.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn child(&self, kind: Kind, name: Cow<'static, str>) -> Span {
        let state = self.change(|data| data.state.clone());
        let parent = Parent { state, ..self.context.into() };
        Span::begin(&self.shared, self.context.sibling(self.context.is_sampled()), Some(&parent), kind, name)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(cell) = self.0.take() else { return };
        let ended = cell.shared.clock.now();
        // Whoever still holds the cell can only begin spans below it.
        let nothing = Data {
            name: Cow::Borrowed(""),
            kind: Kind::Internal,
            parent: None,
            state: None,
            begun: ended,
            attributes: Vec::new(),
            links: Vec::new(),
            more_links: 0,
            failed: None,
        };
        let data = cell.change(|data| std::mem::replace(data, nothing));
        cell.shared.finished(Finished { context: cell.context, ended, data });
    }
}
