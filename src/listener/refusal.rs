//! Refusals as RFC 9457 has them, whoever makes them: a route of ours, or what routes to it.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use kassa_pipeline::problem::Answer;
use serde_json::json;

/// The media type of a problem.
const PROBLEM: &str = "application/problem+json";

/// What goes with the answer to whoever brought something new.
#[derive(Debug, Clone, Copy)]
pub struct TookSome;

/// An answer as HTTP has it.
#[must_use]
pub fn response(answer: Answer) -> Response<Body> {
    let headers: Vec<_> = answer.headers().collect();
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if answer.took_some {
        response.extensions_mut().insert(TookSome);
    }
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A problem that needs no type of its own: it says no more than its status, and why.
#[must_use]
pub fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Refused");
    let body = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": why});
    response(Answer { content_type: PROBLEM, ..Answer::json(status.as_u16(), &body) })
}

/// A refusal that has no form of its own, or is mere text, gets this one. Pages and problems stay as they are.
pub(super) fn in_form(answer: Response<Body>) -> Response<Body> {
    let status = answer.status();
    let media_type = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_refusal = status.is_client_error() || status.is_server_error();
    if !is_refusal || media_type.is_some_and(|media_type| !media_type.starts_with(b"text/plain")) {
        return answer;
    }
    let (mut head, _) = answer.into_parts();
    let (form, body) = refused(status, "").into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.extend(form.headers);
    Response::from_parts(head, body)
}
