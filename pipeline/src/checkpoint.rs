//! How far the read models have come in a shard of the event stream: a row of the shops table each, under a partition
//! key that no shop can have.

use aws_sdk_dynamodb::types::AttributeValue;
use kassa_bus::table::{Item, TableError, n, s, text};

use crate::posting::{Position, Sequence};

/// Partition of rows about projecting itself.
pub(crate) const PROJECTION: &str = "#projection";
const SHARD: &str = "shard#";

/// A shard's checkpoint as it stands in its row, whatever that is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    /// Its key, if there is a row.
    row: Option<String>,
    sequence: Option<AttributeValue>,
    partial: Option<AttributeValue>,
}

impl Checkpoint {
    /// The shard of the row and its checkpoint; nothing if the row is no shard's.
    pub(crate) fn from_item(item: &Item) -> Option<(String, Self)> {
        let row = text(item, "record_type")?;
        let shard = row.strip_prefix(SHARD)?.to_owned();
        let [sequence, partial] = ["sequence", "partial"].map(|name| item.get(name).cloned());
        Some((shard, Self { row: Some(row.to_owned()), sequence, partial }))
    }

    /// Where it is; nothing if the shard has come nowhere.
    ///
    /// # Errors
    /// [`TableError::Attribute`].
    pub fn position(&self) -> Result<Option<Position>, TableError> {
        let Some(row) = &self.row else { return Ok(None) };
        let wrong = |attribute| TableError::Attribute { row: format!("{PROJECTION} {row}"), attribute };
        let is_sequence = |t: &&String| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let sequence = self.sequence.as_ref().and_then(|is| is.as_s().ok()).filter(is_sequence);
        let sequence = Sequence(sequence.ok_or_else(|| wrong("sequence"))?.clone());
        let partial = |is: &AttributeValue| is.as_n().ok().and_then(|t| t.parse().ok());
        let partial =
            self.partial.as_ref().map(|is| partial(is).ok_or_else(|| wrong("partial"))).transpose()?;
        Ok(Some(Position { sequence, partial }))
    }

    /// The condition that it still stands as it was read, and the values that takes.
    pub(crate) fn unchanged(&self) -> (String, Item) {
        let mut values = Item::new();
        let mut is = |name: &str, value: &Option<AttributeValue>| match value {
            None => format!("attribute_not_exists(#{name})"),
            Some(value) => {
                values.insert(format!(":was_{name}"), value.clone());
                format!("#{name} = :was_{name}")
            }
        };
        let condition = [is("sequence", &self.sequence), is("partial", &self.partial)].join(" AND ");
        (condition, values)
    }
}

/// That of a row which says so.
impl From<Position> for Checkpoint {
    fn from(Position { sequence, partial }: Position) -> Self {
        Self { row: Some(String::new()), sequence: Some(s(sequence.0)), partial: partial.map(n) }
    }
}

/// The row of a shard's checkpoint.
pub(crate) fn row_of(shard: &str) -> String {
    format!("{SHARD}{shard}")
}
