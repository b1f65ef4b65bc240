use kassa_bus::Thumbprint;
use kassa_bus::limits::{MAX_BATCH_BODY, MAX_BODY, MAX_ENVELOPE};
use serde_json::{Map, Value, json};

use crate::problem_type::ProblemType;

/// What a till is answered: status, headers and body, before any HTTP library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Seconds, as in `Retry-After` (RFC 9110).
    pub retry_after: Option<u32>,
    /// Seconds a client may keep the answer.
    pub max_age: Option<u32>,
    /// The key to seal with from now on, as the header `Kassa-Key`.
    pub key: Option<Thumbprint>,
    /// Whether a sale was taken that was not there before.
    pub took_some: bool,
    pub body: String,
}

impl Answer {
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        let body = body.to_string();
        Self {
            status,
            content_type: "application/json",
            retry_after: None,
            max_age: None,
            key: None,
            took_some: false,
            body,
        }
    }

    /// The headers, by their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let retry_after = self.retry_after.map(|seconds| ("retry-after", seconds.to_string()));
        let cached = self.max_age.map(|seconds| ("cache-control", format!("public, max-age={seconds}")));
        let key = self.key.as_ref().map(|kid| ("kassa-key", kid.to_string()));
        let content_type = [("content-type", self.content_type.to_owned())];
        content_type.into_iter().chain(retry_after).chain(cached).chain(key)
    }
}

/// Why a request is refused (RFC 9457).
///
/// Details never repeat what was sent: it may be a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// 400: the named field is not what it must be.
    Malformed { field: &'static str, detail: String },
    /// 404.
    UnknownShop,
    /// 404.
    UnknownSale,
    /// 404: nothing is served at this path.
    NoSuchPage,
    /// 405.
    NoSuchMethod,
    /// 413.
    TooLarge,
    /// 429: it may come again, with the same id, when it is its turn.
    TooMany { retry_after: u32, detail: &'static str },
    /// 503: nothing is wrong with the request, try it again with the same id.
    Unavailable { retry_after: u32, detail: &'static str },
    /// 400: the body ends too soon, or its chunks are none.
    CutOff,
    /// 408.
    Slow,
    /// 415: it is packed.
    Encoding,
    /// 421: it names another host than this one, or comes from a page of another site.
    Misdirected(&'static str),
}

impl Problem {
    /// Too much is in hand already, of everybody's or of this shop's or client's.
    pub const BUSY: Self = Self::Unavailable {
        retry_after: 1,
        detail: "the shop is busy; send the sale again with the same message_id",
    };

    pub fn malformed(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { field, detail: detail.into() }
    }

    /// Whether nothing is wrong with the request.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Its `type`, by which whoever is answered knows that it is ours.
    #[must_use]
    pub fn kind(&self) -> ProblemType {
        match self {
            Self::Malformed { .. } => ProblemType::Malformed,
            Self::UnknownShop => ProblemType::UnknownShop,
            Self::UnknownSale => ProblemType::UnknownSale,
            Self::NoSuchPage => ProblemType::NoSuchPage,
            Self::NoSuchMethod => ProblemType::NoSuchMethod,
            Self::TooLarge => ProblemType::TooLarge,
            Self::TooMany { .. } => ProblemType::TooMany,
            Self::Unavailable { .. } => ProblemType::Unavailable,
            Self::CutOff => ProblemType::CutOff,
            Self::Slow => ProblemType::Slow,
            Self::Encoding => ProblemType::Encoding,
            Self::Misdirected(_) => ProblemType::Misdirected,
        }
    }

    /// Whether the same sale may be taken later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.retry_after().is_some()
    }

    /// Seconds after which it may be, if it may.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::TooMany { retry_after, .. } | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    #[must_use]
    pub fn answer(&self) -> Answer {
        let (status, body) = self.document();
        Answer {
            content_type: "application/problem+json",
            retry_after: self.retry_after(),
            ..Answer::json(status, &body)
        }
    }

    /// The status, and the problem as RFC 9457 has it.
    #[must_use]
    pub fn document(&self) -> (u16, Value) {
        const SERVED: &str =
            "POST /shop, GET /shop/{shop_id}/key and GET /shop/{shop_id}/sales/{sale_id} are served";
        let kind = self.kind();
        let detail = match self {
            Self::Malformed { field, detail } => format!("{field}: {detail}"),
            Self::UnknownShop => "shop_id: no shop of this id is registered".into(),
            Self::UnknownSale => "sale_id: no sale of this id was accepted".into(),
            Self::NoSuchPage | Self::NoSuchMethod => SERVED.into(),
            Self::TooLarge => format!(
                "an envelope is at most {MAX_ENVELOPE} bytes, a request's body {MAX_BODY}, that of a batch {MAX_BATCH_BODY}"
            ),
            Self::TooMany { detail, .. } | Self::Unavailable { detail, .. } | Self::Misdirected(detail) => {
                (*detail).into()
            }
            Self::CutOff => {
                "the body ended before its length, or its chunks are malformed; send it again".into()
            }
            Self::Slow => "the body did not come in time; send it again with the same message_id".into(),
            Self::Encoding => "a body is taken as it is: send it without Content-Encoding".into(),
        };
        let mut body = Map::new();
        body.insert("type".into(), json!(kind.uri()));
        body.insert("title".into(), json!(kind.title()));
        body.insert("status".into(), json!(kind.status()));
        body.insert("detail".into(), json!(detail));
        match self {
            Self::Malformed { field, .. } => body.insert("field".into(), json!(field)),
            Self::UnknownShop => body.insert("field".into(), json!("shop_id")),
            Self::UnknownSale => body.insert("field".into(), json!("sale_id")),
            _ => None,
        };
        (kind.status(), Value::Object(body))
    }
}
