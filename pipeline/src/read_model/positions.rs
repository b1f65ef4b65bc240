//! How far the read models have come in each shard, and whether that is known.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{TransactWriteItem, Update};
use kassa_bus::ShopId;
use kassa_bus::shops_table::key;
use kassa_bus::table::{TableError, n, s, text};

use super::{ReadModel, shared};
use crate::checkpoint::{self, Checkpoint, PROJECTION};
use crate::posting::Position;

impl ReadModel {
    /// How far a shard of the event stream has come.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn checkpoint(&self, shard: &str) -> Result<Checkpoint, TableError> {
        let row = self.table.row(PROJECTION, &checkpoint::row_of(shard)).await?;
        Ok(row.as_ref().and_then(Checkpoint::from_item).map(|(_, checkpoint)| checkpoint).unwrap_or_default())
    }

    /// How far each shard has come that has come anywhere.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn checkpoints(&self) -> Result<BTreeMap<String, Checkpoint>, TableError> {
        Ok(self.table.rows(PROJECTION).await?.iter().filter_map(Checkpoint::from_item).collect())
    }

    /// Forgets how far each shard has come, and that a rebuild was going on: in a table that was restored beside another
    /// stream, they are of shards that there are none of. Says how many rows that were.
    ///
    /// # Errors
    /// [`TableError`]; some may be forgotten.
    pub async fn forget_positions(&self) -> Result<usize, TableError> {
        let rows = self.table.rows(PROJECTION).await?;
        for row in &rows {
            let row = key(PROJECTION, text(row, "record_type").unwrap_or_default());
            let delete = self.table.client.delete_item().table_name(&*self.table.name).set_key(Some(row));
            delete.send().await.map_err(TableError::unavailable("forget a position"))?;
        }
        Ok(rows.len())
    }

    /// Whether a rebuild began and did not end, a checkpoint cannot be read, or one of these shops' items was declared that
    /// shared a row until then, so that only a rebuild makes it right.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn needs_rebuild(&self, shops: &[ShopId]) -> Result<bool, TableError> {
        let unreadable = |checkpoint: &Checkpoint| checkpoint.position().is_err();
        if self.holds.is_held().await? || self.checkpoints().await?.values().any(unreadable) {
            return Ok(true);
        }
        for shop in shops {
            if self.other(shop).await?.as_ref().is_some_and(shared::needs_rebuild) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn move_checkpoint(
        &self,
        shard: &str,
        from: &Checkpoint,
        to: &Position,
    ) -> Result<TransactWriteItem, TableError> {
        let (condition, values) = from.unchanged();
        let mut update = Update::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, &checkpoint::row_of(shard))))
            .set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()))
            .condition_expression(condition)
            .expression_attribute_names("#sequence", "sequence")
            .expression_attribute_names("#partial", "partial");
        update = match to.partial {
            None => update.update_expression("SET #sequence = :sequence REMOVE #partial"),
            Some(posting) => update
                .update_expression("SET #sequence = :sequence, #partial = :partial")
                .expression_attribute_values(":partial", n(posting)),
        };
        update = update.expression_attribute_values(":sequence", s(&to.sequence.0));
        let update = update.build().map_err(TableError::unavailable("move the checkpoint"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}
