use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};

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

    /// Whether it is a row's own fault, so that others can be gone on with.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        !matches!(self, Self::Unavailable { .. })
    }
}

/// What could be read of a table, and which rows could not: one that cannot keeps no other from being read. Whoever
/// takes the one part says what becomes of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readable<T> {
    pub rows: Vec<T>,
    /// Each with what is wrong with it.
    pub unreadable: Vec<String>,
}

impl<T> Default for Readable<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), unreadable: Vec::new() }
    }
}

impl<T> Readable<T> {
    /// Takes the next row as it was read.
    pub fn push(&mut self, row: Result<T, TableError>) {
        match row {
            Ok(row) => self.rows.push(row),
            Err(error) => self.unreadable.push(error.to_string()),
        }
    }

    pub fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.unreadable.extend(other.unreadable);
    }

    /// The same of other rows.
    #[must_use]
    pub fn map<U>(self, of: impl FnMut(T) -> U) -> Readable<U> {
        Readable { rows: self.rows.into_iter().map(of).collect(), unreadable: self.unreadable }
    }

    /// Its rows; those that could not be read are logged.
    #[must_use]
    pub fn logged(self) -> Vec<T> {
        for row in &self.unreadable {
            tracing::error!(row, "skipped, since it cannot be read");
        }
        self.rows
    }
}

impl<T> FromIterator<Result<T, TableError>> for Readable<T> {
    fn from_iter<I: IntoIterator<Item = Result<T, TableError>>>(rows: I) -> Self {
        let mut readable = Self::default();
        rows.into_iter().for_each(|row| readable.push(row));
        readable
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
