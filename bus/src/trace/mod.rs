//! One trace per sale, from till to read model, as OpenTelemetry has it: `traceparent` in the till's request and in each
//! message's attributes, spans by the semantic conventions, and an OTLP export.
//!
//! Spans are OpenTelemetry's own, made by its SDK; what is here is how ours come about and leave. Nothing is global: a
//! driver is given a `Tracer` and begins a span; what goes on within it finds it by its task. Where the tracer is off
//! there is no span to find.

/// Spans that wait for their export.
mod buffer;
/// W3C's `traceparent`, and X-Ray's header.
mod context;
/// Takes in spans that are over.
mod ended;
/// The way out.
mod export;
/// Spans of messages: published, brought in batches, handled.
mod messages;
/// What the variables say.
mod options;
/// Spans of requests: to a door, a table, a service.
mod requests;
/// Which traces are exported.
mod sampler;
/// The span that a task is within.
mod scope;
/// A span, while it lasts.
mod span;
/// What makes spans and has them exported.
mod tracer;

pub use context::{NotAContext, Parent, TraceContext, Xray, if_in_form};
pub use export::{Collector, Connect};
pub use messages::{Batch, Call, Publishing, minute};
pub use requests::{Door, Request, aws, request, table};
pub use scope::{Within, child, current, note, of_message};
pub use span::{Kind, Span};
pub use tracer::Tracer;
