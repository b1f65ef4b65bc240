//! How far the read models have come in a shard of the event stream: a row of the shops table each, under a partition
//! key that no shop can have.

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
    /// `sequence` and `partial`, as far as they are there.
    attributes: Item,
}

const ATTRIBUTES: [&str; 2] = ["sequence", "partial"];

impl Checkpoint {
    /// The shard of the row and its checkpoint; nothing if the row is no shard's.
    pub(crate) fn from_item(item: &Item) -> Option<(String, Self)> {
        let row = text(item, "record_type")?;
        let shard = row.strip_prefix(SHARD)?.to_owned();
        let attribute = |name: &str| Some((name.to_owned(), item.get(name)?.clone()));
        let attributes = ATTRIBUTES.into_iter().filter_map(attribute).collect();
        Some((shard, Self { row: Some(row.to_owned()), attributes }))
    }

    /// Where it is; nothing if the shard has come nowhere.
    ///
    /// # Errors
    /// [`TableError::Attribute`].
    pub fn position(&self) -> Result<Option<Position>, TableError> {
        let Some(row) = &self.row else { return Ok(None) };
        let wrong = |attribute| TableError::Attribute { row: format!("{PROJECTION} {row}"), attribute };
        let is_sequence = |t: &&String| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let sequence = self.attributes.get("sequence").and_then(|is| is.as_s().ok()).filter(is_sequence);
        let sequence = Sequence(sequence.ok_or_else(|| wrong("sequence"))?.clone());
        let partial = self.attributes.get("partial").map(|is| {
            let partial = is.as_n().ok().and_then(|t| t.parse().ok());
            partial.ok_or_else(|| wrong("partial"))
        });
        Ok(Some(Position { sequence, partial: partial.transpose()? }))
    }

    /// The condition that it still stands as it was read, and the values that takes.
    pub(crate) fn unchanged(&self) -> (String, Item) {
        unchanged(&self.attributes, &ATTRIBUTES)
    }
}

/// The condition that these attributes of a row are still as they were read, and the values that takes.
pub(crate) fn unchanged(was: &Item, names: &[&str]) -> (String, Item) {
    let mut values = Item::new();
    let conditions = names.iter().map(|name| match was.get(*name) {
        None => format!("attribute_not_exists(#{name})"),
        Some(value) => {
            values.insert(format!(":was_{name}"), value.clone());
            format!("#{name} = :was_{name}")
        }
    });
    (conditions.collect::<Vec<_>>().join(" AND "), values)
}

/// That of a row which says so.
impl From<Position> for Checkpoint {
    fn from(Position { sequence, partial }: Position) -> Self {
        let mut attributes = Item::from([("sequence".to_owned(), s(sequence.0))]);
        attributes.extend(partial.map(|posting| ("partial".to_owned(), n(posting))));
        Self { row: Some(String::new()), attributes }
    }
}

/// The row of a shard's checkpoint.
pub(crate) fn row_of(shard: &str) -> String {
    format!("{SHARD}{shard}")
}
