use std::collections::HashSet;
use std::pin::pin;

use futures::SinkExt;
use kassa_bus::webhook::WarehouseSale;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Statement};

use super::copy::Rows;
use super::database::{Database, DatabaseError};
use super::dialect;
use super::dimensions::{Dimensions, SaleKeys};
use super::schema::SchemaError;

/// How often a group is begun anew because others were at the same sales. Each time, some of them are there.
const ATTEMPTS: usize = 10;

/// Why sales are not in the warehouse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLoaded {
    /// Nothing is wrong with them. They may even be there: loading them again is safe.
    #[error("the database is away")]
    Away,
    /// The database is there and does not do what it must: nothing is wrong with them, and somebody has to look.
    #[error("the database cannot be used: {0}")]
    Unusable(String),
    /// The database has a rule of its own that they break.
    #[error("the database refuses them: {0}")]
    Refused(String),
}

/// One connection that loads sales, each exactly once.
pub(super) struct Loader {
    client: Client,
    there: Statement,
    copy: Statement,
    dimensions: Dimensions,
}

impl Loader {
    pub async fn connect(database: &Database) -> Result<Self, DatabaseError> {
        let client = database.connect().await?;
        let (there, copy) = (client.prepare(dialect::THERE).await?, client.prepare(dialect::COPY).await?);
        let dimensions = Dimensions::read(&client).await?;
        Ok(Self { client, there, copy, dimensions })
    }

    /// Whether the database closed the connection, as when it was restarted.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Loads those of the sales that are not there, all or none. Committed when it answers.
    ///
    /// Of two sales with one id, the first that comes stays: which of them the shop recorded is not known
    /// here.
    pub async fn load(&mut self, sales: &[&WarehouseSale]) -> Result<(), Error> {
        self.dimensions.make(&mut self.client, sales).await?;
        let sales = in_key_order(sales, &self.dimensions);
        for _ in 1..ATTEMPTS {
            match self.copy_missing(&sales).await {
                // Another loader committed one of them since we looked: the primary key refused ours, whole.
                Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
                done => return done,
            }
        }
        self.copy_missing(&sales).await
    }

    async fn copy_missing(&self, sales: &[(SaleKeys, &WarehouseSale)]) -> Result<(), Error> {
        let shops: Vec<i32> = sales.iter().map(|(keys, _)| keys.shop).collect();
        let ids: Vec<&str> = sales.iter().map(|(_, sale)| sale.sale_id.as_str()).collect();
        let there = self.client.query(&self.there, &[&shops, &ids]).await?;
        let there: HashSet<(i32, &str)> = there.iter().map(|row| (row.get(0), row.get(1))).collect();
        let mut rows = Rows::new();
        for (keys, sale) in sales {
            if !there.contains(&(keys.shop, sale.sale_id.as_str())) {
                // `Dimensions::make` made every item's row.
                let items = sale.lines.iter().filter_map(|line| self.dimensions.item(line.item_no));
                rows.sale(sale, keys, items);
            }
        }
        // One statement, so a transaction of its own.
        let mut copy = pin!(self.client.copy_in(&self.copy).await?);
        copy.send(rows.finish()).await?;
        copy.finish().await?;
        Ok(())
    }
}

/// The sales with their keys, each id once, in the primary key's order. Neighbours then share the pages of
/// its index, and two loaders at the same sales wait for each other instead of locking each other out.
fn in_key_order<'a>(
    sales: &[&'a WarehouseSale],
    dimensions: &Dimensions,
) -> Vec<(SaleKeys, &'a WarehouseSale)> {
    // `Dimensions::make` made every shop's row.
    let keyed = sales.iter().filter_map(|sale| Some((dimensions.keys(sale)?, *sale)));
    let mut sales: Vec<_> = keyed.collect();
    sales.sort_by_key(|(keys, sale)| (keys.shop, sale.sale_id.as_str()));
    sales.dedup_by_key(|(keys, sale)| (keys.shop, sale.sale_id.as_str()));
    sales
}

impl From<&DatabaseError> for NotLoaded {
    fn from(error: &DatabaseError) -> Self {
        match error {
            // No sale was sent yet, so none is refused.
            DatabaseError::Unusable(error) | DatabaseError::Schema(SchemaError::Sql(error)) => {
                match Self::from(error) {
                    Self::Refused(said) => Self::Unusable(said),
                    other => other,
                }
            }
            other => Self::Unusable(other.to_string()),
        }
    }
}

impl From<&Error> for NotLoaded {
    fn from(error: &Error) -> Self {
        // Messages and details are left out: Postgres quotes the row in them.
        let Some(db) = error.as_db_error() else { return Self::Away };
        let constraint = db.constraint().map(|name| format!(" ({name})")).unwrap_or_default();
        let said = format!("SQLSTATE {}{constraint}", db.code().code());
        match db.code() {
            code if is_a_rule(code) => Self::Refused(said),
            code if is_going(code) => Self::Away,
            _ => Self::Unusable(said),
        }
    }
}

/// Classes of what is wrong with a row: a data exception, a violated constraint, what a trigger or function says (three of
/// them), a view's check, more than there is room for
/// (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
const RULES: [&str; 7] = ["22", "23", "38", "39", "P0", "44", "54"];

pub(super) fn is_a_rule(state: &SqlState) -> bool {
    *state != SqlState::UNIQUE_VIOLATION && RULES.iter().any(|class| state.code().starts_with(class))
}

/// The server stops, starts, or was left.
fn is_going(state: &SqlState) -> bool {
    state.code().starts_with("08") || state.code().starts_with("57P")
}
