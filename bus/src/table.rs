use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

/// One row as the SDK has it.
pub type Item = HashMap<String, AttributeValue>;

/// Why a table did not answer. The variants are what a caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TableError {
    /// Throttled, unreachable, failing: try again later.
    #[error("{doing}")]
    Unavailable {
        doing: &'static str,
        #[source]
        cause: Arc<dyn Error + Send + Sync>,
    },
    /// What is in the table is not ours: trying again will not mend it.
    #[error("{0}")]
    Unreadable(String),
    /// A row lacks an attribute, or it is of the wrong type.
    #[error("row {row}: attribute {attribute} is missing or of the wrong form")]
    Attribute { row: String, attribute: &'static str },
}

impl TableError {
    /// For `map_err`: wraps an SDK error with what was being done.
    pub fn unavailable<E: Error + Send + Sync + 'static>(doing: &'static str) -> impl Fn(E) -> Self {
        move |cause| Self::Unavailable { doing, cause: Arc::new(cause) }
    }
}

/// Rows read per request. Without a limit, an embedded table reads itself whole for each page.
pub const PAGE: i32 = 500;

/// A string attribute value.
pub fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number attribute value.
pub fn n(number: impl fmt::Display) -> AttributeValue {
    AttributeValue::N(format!("{number}"))
}

/// The text of a string or number attribute.
#[must_use]
pub fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    match item.get(name)? {
        AttributeValue::S(text) | AttributeValue::N(text) => Some(text),
        _ => None,
    }
}
