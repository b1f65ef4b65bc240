//! Holding the projection: a rebuild's right to write rows, in a row of the shops table, for as long as it renews it.

use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::types::{ConditionCheck, TransactWriteItem};
use jiff::{SignedDuration, Timestamp};
use kassa_bus::shops_table::{ShopsTable, key};
use kassa_bus::table::{Item, TableError, s, text};

use crate::checkpoint::{PROJECTION, unchanged};

/// The right to write rows while projecting is stopped.
pub struct Hold(String);

/// Where it is kept who holds.
#[derive(Clone)]
pub struct Holds {
    pub(crate) table: ShopsTable,
}

const HOLD: &str = "rebuild";
const HOLDS: &str = "holder = :holder";

/// For how long a hold lasts that nobody renews: whoever died with it keeps projecting waiting no longer.
pub const LEASE: SignedDuration = SignedDuration::from_mins(1);

/// How often a hold is renewed.
const RENEWED: Duration = Duration::from_secs(15);

impl Holds {
    /// Stops projecting until [`Holds::release`], or until the lease is over. Whoever held before has lost it: of two
    /// rebuilds at once the first gives up.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn hold(&self) -> Result<Hold, TableError> {
        let hold = Hold(uuid::Uuid::new_v4().to_string());
        let mut row = key(PROJECTION, HOLD);
        row.extend([("holder".to_owned(), s(&hold.0)), ("until".to_owned(), s(lease()))]);
        let put = self.table.client.put_item().table_name(&*self.table.name).set_item(Some(row));
        put.send().await.map(|_| hold).map_err(TableError::unavailable("hold the projection"))
    }

    /// Renews a hold again and again. Ends where it cannot.
    pub async fn renew(&self, hold: &Hold) -> TableError {
        loop {
            tokio::time::sleep(RENEWED).await;
            let update = self.table.client.update_item().table_name(&*self.table.name);
            let update = update
                .set_key(Some(key(PROJECTION, HOLD)))
                .condition_expression(HOLDS)
                .update_expression("SET #until = :until")
                .expression_attribute_names("#until", "until")
                .expression_attribute_values(":holder", s(&hold.0))
                .expression_attribute_values(":until", s(lease()));
            if let Err(error) = update.send().await {
                return TableError::unavailable("renew the hold on the projection")(error);
            }
        }
    }

    /// Lets projecting go on.
    ///
    /// # Errors
    /// [`TableError`], also if another rebuild took the hold over.
    pub async fn release(&self, hold: &Hold) -> Result<(), TableError> {
        let delete = self.table.client.delete_item().table_name(&*self.table.name);
        let delete = delete
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression(HOLDS)
            .expression_attribute_values(":holder", s(&hold.0));
        delete.send().await.map(drop).map_err(TableError::unavailable("release the projection"))
    }

    /// Whether somebody holds, or died with it.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_held(&self) -> Result<bool, TableError> {
        Ok(self.table.row(PROJECTION, HOLD).await?.is_some())
    }

    /// Ends a hold whose lease is over, and says whether none is left. Should its holder live, it finds out before it
    /// writes another row.
    ///
    /// # Errors
    /// [`TableError`].
    pub(crate) async fn end_if_over(&self) -> Result<bool, TableError> {
        let Some(row) = self.table.row(PROJECTION, HOLD).await? else { return Ok(true) };
        if is_valid(&row, Timestamp::now()) {
            return Ok(false);
        }
        tracing::warn!("a rebuild held the read models and died; kassa check says whether rows are right");
        let (condition, values) = unchanged(&row, &["holder", "until"]);
        let delete = self.table.client.delete_item().table_name(&*self.table.name);
        let delete = delete
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression(condition)
            .expression_attribute_names("#holder", "holder")
            .expression_attribute_names("#until", "until")
            .set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()));
        match delete.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(TableError::unavailable("end a hold on the projection")(error)),
            },
        }
    }

    pub(crate) fn unless_held(&self) -> Result<TransactWriteItem, TableError> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression("attribute_not_exists(record_type)")
            .build()
            .map_err(TableError::unavailable("check for a rebuild"))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    pub(crate) fn while_holding(&self, hold: &Hold) -> Result<TransactWriteItem, TableError> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression(HOLDS)
            .expression_attribute_values(":holder", s(&hold.0))
            .build()
            .map_err(TableError::unavailable("check the hold"))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }
}

fn lease() -> String {
    (Timestamp::now() + LEASE).to_string()
}

/// A hold of before there were leases has none, and one from a clock that is far ahead would last too long: neither
/// keeps anybody waiting.
fn is_valid(row: &Item, now: Timestamp) -> bool {
    let until: Option<Timestamp> = text(row, "until").and_then(|until| until.parse().ok());
    until.is_some_and(|until| now < until && until <= now + LEASE * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_as_long_as_its_lease_and_one_without_not_at_all() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let held = |until: &str| is_valid(&Item::from([("until".to_owned(), s(until))]), now);
        assert!(held("2026-11-22T12:00:01Z") && held("2026-11-22T12:02:00Z"));
        assert!(!held("2026-11-22T12:00:00Z") && !held("2026-11-22T12:02:01Z"));
        assert!(!held("tomorrow") && !is_valid(&Item::new(), now));
    }
}
