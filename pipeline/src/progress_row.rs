use jiff::Timestamp;
use kassa_bus::shops_table::{ShopsTable, key};
use kassa_bus::table::{Item, TableError, s};

/// How far in time something has come: a row of the shops table, under a partition key that no shop can have.
#[derive(Clone)]
pub struct ProgressRow {
    pub table: ShopsTable,
    pub name: &'static str,
}

/// How far it had come when the row was read.
pub struct Reached {
    /// Up to when everything is done; nothing if it never ran, or nobody can read how far it came.
    pub upto: Option<Timestamp>,
    /// As the row says it, for the condition that it still does.
    stored: Item,
}

const UPTO: &str = "upto";

impl ProgressRow {
    /// Reads how far it has come.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn read(&self) -> Result<Reached, TableError> {
        let stored = self.table.row(self.name, UPTO).await?.and_then(|mut row| row.remove(UPTO));
        let upto = stored.as_ref().and_then(|stored| stored.as_s().ok()?.parse().ok());
        let stored: Item = stored.into_iter().map(|stored| (":was".to_owned(), stored)).collect();
        if !stored.is_empty() && upto.is_none() {
            tracing::error!(
                "row {} {UPTO}: attribute {UPTO} is of the wrong form, and is begun anew",
                self.name
            );
        }
        Ok(Reached { upto, stored })
    }

    /// Moves on from where it was. If somebody else has moved it meanwhile, theirs stands: what is done twice is.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn write(&self, was: Reached, upto: Timestamp) -> Result<(), TableError> {
        let mut row = key(self.name, UPTO);
        row.insert(UPTO.into(), s(upto.to_string()));
        let condition = if was.stored.is_empty() { "attribute_not_exists(upto)" } else { "upto = :was" };
        self.table.put_if(row, condition, was.stored).await.map(drop)
    }
}
