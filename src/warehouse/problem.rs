use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::load::NotLoaded;

/// Why a request is refused (RFC 9457). Never repeats what was sent: it may be a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// 400: it is what it claims to be, and no delivery.
    Malformed(String),
    /// 401.
    Unverified(String),
    /// 403: it is not of a topic that is allowed here. No 401, which SNS would answer with a password.
    Forbidden(String),
    /// 404.
    NoSuchPage,
    /// 405.
    NoSuchMethod,
    /// 408.
    Slow,
    /// 413, with how many bytes are allowed.
    TooLarge(usize),
    /// 415.
    Encoding,
    /// 503: the same request may be taken in so many seconds.
    Unavailable(Cow<'static, str>, u32),
}

impl Problem {
    pub const BUSY: Self = Self::Unavailable(Cow::Borrowed("the warehouse is busy"), 1);
}

impl From<NotLoaded> for Problem {
    fn from(why: NotLoaded) -> Self {
        match why {
            NotLoaded::Away | NotLoaded::Unusable(_) => Self::Unavailable(why.to_string().into(), 5),
            NotLoaded::Refused(_) => Self::Malformed(why.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let served = || "POST /sales and POST /sns are served".to_owned();
        let (status, title, detail) = match &self {
            Self::Malformed(why) => (StatusCode::BAD_REQUEST, "This is no delivery of sales", why.clone()),
            Self::Unverified(why) => (StatusCode::UNAUTHORIZED, "The signature does not hold", why.clone()),
            Self::Forbidden(why) => (StatusCode::FORBIDDEN, "This is not taken from here", why.clone()),
            Self::NoSuchPage => (StatusCode::NOT_FOUND, "There is no such page", served()),
            Self::NoSuchMethod => (StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed", served()),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "The body takes too long", "send it again".into()),
            Self::TooLarge(limit) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The delivery is too large",
                format!("a body is at most {limit} bytes"),
            ),
            Self::Encoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The content encoding is not understood",
                "gzip is, and none".into(),
            ),
            Self::Unavailable(why, _) => (StatusCode::SERVICE_UNAVAILABLE, "Try again", why.to_string()),
        };
        let problem =
            json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
        let mut response = (status, Json(problem)).into_response();
        let mut set = |name, value| response.headers_mut().insert(name, value);
        set(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unavailable(_, seconds) => set(header::RETRY_AFTER, seconds.into()),
            // RFC 9110 wants one with a 401.
            Self::Unverified(_) => {
                set(header::WWW_AUTHENTICATE, HeaderValue::from_static("Standard-Webhooks"))
            }
            Self::Encoding => set(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
            _ => None,
        };
        response
    }
}
