//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/database/>, <https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/>.

use super::context::Parent;
use super::messages::{Call, triggered};
use super::scope::child;
use super::span::{Kind, Span};
use super::tracer::Tracer;

/// What there is to say of a request that came in.
pub struct Request<'a> {
    pub method: &'static str,
    pub route: &'static str,
    pub path: &'a str,
    pub scheme: &'static str,
}

/// The span of a request, until it is answered.
pub struct Door(Span);

/// Begins a request's span.
pub fn request<'a>(
    tracer: &Tracer,
    Request { method, route, path, scheme }: Request<'_>,
    header: impl Fn(&'static str) -> Option<&'a str>,
    call: Option<&Call>,
) -> Door {
    if !tracer.is_on() {
        return Door(Span::default());
    }
    let span = tracer.start(Parent::of_headers(header).as_ref(), Kind::Server, format!("{method} {route}"));
    span.attribute("http.request.method", method);
    span.attribute("http.route", route);
    span.text("url.path", path);
    span.attribute("url.scheme", scheme);
    triggered(&span, call, "http");
    Door(span)
}

impl Door {
    /// What the request is answered within.
    pub fn span(&self) -> &Span {
        &self.0
    }

    /// Ends it with the answer's status. What the client did wrong is no error of ours.
    pub fn answered(self, status: u16) {
        self.0.number("http.response.status_code", status);
        match status {
            503 => self.0.fail("503", "the sale was not accepted; the till comes again"),
            500.. => self.0.fail("500", "the request was not answered"),
            _ => {}
        }
    }
}

/// Begins the span of an operation on a `DynamoDB` table.
pub fn table(operation: &'static str, table: &str) -> Span {
    let Some(span) = below(|| format!("{operation} {table}")) else { return Span::default() };
    span.attribute("db.system.name", "aws.dynamodb");
    span.attribute("db.operation.name", operation);
    span.text("db.collection.name", table);
    span
}

/// Begins the span of a request to another of AWS's services.
pub fn aws(service: &'static str, method: &'static str) -> Span {
    let Some(span) = below(|| format!("{service}/{method}")) else { return Span::default() };
    span.attribute("rpc.system", "aws-api");
    span.attribute("rpc.service", service);
    span.attribute("rpc.method", method);
    span
}

/// A client's span, if this task is within one: its name need not be made otherwise.
fn below(name: impl FnOnce() -> String) -> Option<Span> {
    super::current().map(|_| child(Kind::Client, name()))
}
