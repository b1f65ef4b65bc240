use jiff::Timestamp;
use kassa_bus::shops_table::{ShopsTable, key};
use kassa_bus::table::{Item, TableError, s, text};

/// How far in time something has come: a row of the shops table, under a partition key that no shop can have.
#[derive(Clone)]
pub struct ProgressRow {
    pub table: ShopsTable,
    pub name: &'static str,
}

const UPTO: &str = "upto";

impl ProgressRow {
    /// Up to when everything is done; nothing if it never ran.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn read(&self) -> Result<Option<Timestamp>, TableError> {
        let wrong = || TableError::Attribute { row: self.name.to_owned(), attribute: UPTO };
        let row = self.table.row(self.name, UPTO).await?;
        row.map(|row| text(&row, UPTO).and_then(|upto| upto.parse().ok()).ok_or_else(wrong)).transpose()
    }

    /// Moves on from where it was. If somebody else has moved it meanwhile, theirs stands: what is done twice is.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn write(&self, was: Option<Timestamp>, upto: Timestamp) -> Result<(), TableError> {
        let mut row = key(self.name, UPTO);
        row.insert(UPTO.into(), s(upto.to_string()));
        let (condition, values) = match was {
            Some(was) => ("upto = :was", Item::from([(":was".to_owned(), s(was.to_string()))])),
            None => ("attribute_not_exists(upto)", Item::new()),
        };
        self.table.put_if(row, condition, values).await.map(drop)
    }
}
