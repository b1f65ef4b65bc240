//! The row that a shop's other items share: it says which those are, and has a revision that changes with them.
//!
//! Whoever writes what depends on that does so in one transaction with the row, on the condition that its revision is
//! still what it was, and reads anew if it is not. So nothing is added to a row that was moved away, and a declaration
//! comes before or after it.

use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, TransactWriteItem, Update};
use futures::future::try_join_all;
use kassa_bus::shops_table::key;
use kassa_bus::table::{Item, TableError, n, text};
use kassa_bus::{ItemNo, ShopId};

use super::{ReadModel, STEP_ROWS, StepError, Way, adding, refused};
use crate::checkpoint::unchanged;
use crate::hold::Hold;
use crate::own_rows::OwnRows;
use crate::posting::{OTHER, Row, RowKey, Sum, Sums, add};
use crate::row::{ReadRow, from_item};

const REVISION: &str = "revision";

/// While it is there, what was sold of items declared since stands in the shared row, or a rebuild has not written all.
const REBUILD: &str = "rebuild";

/// What the shared row was when it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Revision(Option<AttributeValue>);

impl Revision {
    pub(crate) fn from_item(item: Option<&Item>) -> Self {
        Self(item.and_then(|item| item.get(REVISION)).cloned())
    }

    /// The one after it.
    #[must_use]
    pub fn next(&self) -> Self {
        let number = self.0.as_ref().and_then(|is| is.as_n().ok()).and_then(|is| is.parse::<u64>().ok());
        Self(Some(n(number.unwrap_or(0).wrapping_add(1))))
    }

    /// The condition that it is still so, and the values that takes.
    fn unchanged(&self) -> (String, Item) {
        let was = self.0.clone().map(|is| (REVISION.to_owned(), is)).into_iter().collect();
        let (condition, values) = unchanged(&was, &[REVISION]);
        (condition.replace('#', ""), values)
    }
}

/// Which of a shop's items have rows, as of a revision.
#[derive(Debug, Clone, Default)]
pub struct Sharing {
    pub own: OwnRows,
    pub revision: Revision,
}

/// What a step may write of a shop's undeclared items: only as of this revision, and another follows if some are new.
#[derive(Debug, Clone)]
pub struct Guard {
    pub revision: Revision,
    pub admits: bool,
}

/// The number above which undeclared items share their row.
pub(crate) fn above(other: Option<&Item>) -> Option<ItemNo> {
    text(other?, "above")?.parse().ok()
}

/// Whether only a rebuild makes the shop's rows right.
pub(crate) fn needs_rebuild(other: &Item) -> bool {
    other.contains_key(REBUILD)
}

impl ReadModel {
    /// Which items of a shop have rows. Rows are read in pages, and only their numbers are kept.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn sharing(&self, shop: &ShopId) -> Result<Sharing, TableError> {
        // First: what changes while the rows are read changes it.
        let other = self.other(shop).await?;
        let mut own = OwnRows { above: above(other.as_ref()), ..OwnRows::default() };
        let mut cursor = None;
        loop {
            let (page, next) = self.table.page(shop.as_str(), "s-", cursor).await?;
            for row in &page {
                let Some(Row::Item(item)) = text(row, "record_type").and_then(Row::parse) else { continue };
                if row.contains_key("item_description") {
                    own.declared.insert(item);
                } else {
                    own.undeclared.insert(item);
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(Sharing { own, revision: Revision::from_item(other.as_ref()) });
            }
        }
    }

    pub(crate) async fn other(&self, shop: &ShopId) -> Result<Option<Item>, TableError> {
        self.table.row(shop.as_str(), OTHER).await
    }

    pub(super) fn of_other(&self, shop: &ShopId) -> aws_sdk_dynamodb::types::builders::UpdateBuilder {
        Update::builder().table_name(&*self.table.name).set_key(Some(key(shop.as_str(), OTHER)))
    }

    /// How a step adds to the shared row, and in what other way it says that nothing moved meanwhile.
    pub(super) fn add_to_other(
        &self,
        shop: &ShopId,
        sum: &Sum,
        guard: Option<&Guard>,
    ) -> Result<Vec<Way>, TableError> {
        let guard = guard.cloned().unwrap_or(Guard { revision: Revision::default(), admits: false });
        let (condition, values) = guard.revision.unchanged();
        let next = guard.admits.then(|| guard.revision.next().0).flatten();
        let adds = *sum != Sum::default();
        let wrong = || TableError::unavailable("add to the shared row");
        let without = if let Some(next) = &next {
            let values = values.clone().into_iter().chain([(":next".to_owned(), next.clone())]).collect();
            let update = self.of_other(shop).update_expression("SET revision = :next");
            let update = update.condition_expression(&condition);
            let update = update.set_expression_attribute_values(Some(values)).build().map_err(wrong())?;
            TransactWriteItem::builder().update(update).build()
        } else {
            let check = ConditionCheck::builder()
                .table_name(&*self.table.name)
                .set_key(Some(key(shop.as_str(), OTHER)))
                .condition_expression(&condition)
                .set_expression_attribute_values(Some(values.clone()).filter(|values| !values.is_empty()))
                .build();
            TransactWriteItem::builder().condition_check(check.map_err(wrong())?).build()
        };
        let mut ways = vec![Way { write: without, leaves_out: adds }];
        if let Some((mut expression, mut conditions, mut more)) = adds.then(|| figures(sum)).flatten() {
            conditions.push(condition);
            more.extend(values);
            if let Some(next) = next {
                expression.push_str(" SET revision = :next");
                more.insert(":next".into(), next);
            }
            let update = self.of_other(shop).update_expression(expression);
            let update = update.condition_expression(conditions.join(" AND "));
            let update = update.set_expression_attribute_values(Some(more)).build().map_err(wrong())?;
            ways.push(Way { write: TransactWriteItem::builder().update(update).build(), leaves_out: false });
        }
        Ok(ways)
    }

    /// Moves the rows of undeclared items to the one that items share, which those above this number do from now on.
    /// Answers the revision after that.
    ///
    /// # Errors
    /// [`StepError`]; what was moved by then is in one place and not in the other.
    pub async fn share(
        &self,
        shop: &ShopId,
        before: &Revision,
        above: Option<ItemNo>,
        lost: &[ItemNo],
    ) -> Result<Revision, StepError> {
        let mut revision = before.clone();
        let mut chunks = lost.chunks(STEP_ROWS - 1);
        let mut chunk = chunks.next().unwrap_or_default();
        loop {
            revision = self.share_some(shop, &revision, above, chunk).await?;
            let Some(next) = chunks.next() else { return Ok(revision) };
            chunk = next;
        }
    }

    async fn share_some(
        &self,
        shop: &ShopId,
        revision: &Revision,
        above: Option<ItemNo>,
        lost: &[ItemNo],
    ) -> Result<Revision, StepError> {
        let names: Vec<String> = lost.iter().map(|item| Row::Item(*item).to_string()).collect();
        let rows = try_join_all(names.iter().map(|name| self.table.row(shop.as_str(), name))).await?;
        let mut sums = Sums::new();
        let (mut deletes, other) = (Vec::new(), RowKey { shop_id: shop.clone(), row: Row::Other });
        for row in rows.into_iter().flatten() {
            // One that cannot be read stays, and check names it.
            let Ok(Some(ReadRow::Item(item))) = from_item(shop, &row) else { continue };
            let sum =
                Sum { number: item.gross_number.into(), turnover: item.gross_turnover.into(), last_at: None };
            add(&mut sums, [(other.clone(), sum)]);
            deletes.push(self.delete_undeclared(shop, &row)?);
        }
        let next = revision.next();
        for moving in [true, false] {
            let sum = if moving { sums.get(&other).copied() } else { None }.unwrap_or_default();
            let Some((mut expression, mut conditions, mut values)) = figures(&sum) else { continue };
            let (condition, was) = revision.unchanged();
            conditions.push(condition);
            values.extend(was);
            expression.push_str(" SET revision = :next");
            values.extend(next.0.clone().map(|next| (":next".to_owned(), next)));
            if let Some(above) = above {
                expression.push_str(", above = :above");
                values.insert(":above".into(), n(above));
            }
            let update = self.of_other(shop).update_expression(expression);
            let update = update.condition_expression(conditions.join(" AND "));
            let update = update.set_expression_attribute_values(Some(values)).build();
            let update = update.map_err(TableError::unavailable("share a row"))?;
            let mut writes =
                vec![self.holds.unless_held()?, TransactWriteItem::builder().update(update).build()];
            writes.extend(deletes.iter().filter(|_| moving).cloned());
            let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
            let Err(error) = write.send().await else { return Ok(next) };
            match refused(&error).first() {
                None => return Err(TableError::unavailable("share rows")(error).into()),
                Some(0) if self.holds.end_if_over().await? => return Err(StepError::Stale),
                Some(0) => return Err(StepError::Held),
                Some(1) if Revision::from_item(self.other(shop).await?.as_ref()) == *revision => {
                    tracing::error!(%shop, "{OTHER} cannot be added to; rows that are too many stay");
                }
                Some(_) => return Err(StepError::Stale),
            }
        }
        Err(StepError::Stale)
    }

    /// Writes the shared row while held, as of its revision, which changes with it; not if it is another.
    pub(super) async fn write_other(
        &self,
        hold: &Hold,
        shop: &ShopId,
        revision: &Revision,
        expression: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<Result<(), usize>, TableError> {
        let (condition, mut all) = revision.unchanged();
        all.extend(revision.next().0.map(|next| (":next".to_owned(), next)));
        all.extend(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let mut update = self.of_other(shop).update_expression(expression).condition_expression(condition);
        if expression.contains("#rebuild") {
            update = update.expression_attribute_names("#rebuild", REBUILD);
        }
        let update = update.set_expression_attribute_values(Some(all)).build();
        let update = update.map_err(TableError::unavailable("write the shared row"))?;
        let writes =
            vec![self.holds.while_holding(hold)?, TransactWriteItem::builder().update(update).build()];
        let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
        let Err(error) = write.send().await else { return Ok(Ok(())) };
        match refused(&error).first() {
            Some(place) => Ok(Err(*place)),
            None => Err(TableError::unavailable("write the shared row")(error)),
        }
    }

    /// Deletes a row as it was read, if nobody declared its item.
    fn delete_undeclared(&self, shop: &ShopId, row: &Item) -> Result<TransactWriteItem, TableError> {
        let was = |name: &str| Some((format!(":{name}"), row.get(name)?.clone()));
        let delete = Delete::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(shop.as_str(), text(row, "record_type").unwrap_or_default())))
            .condition_expression(
                "attribute_not_exists(item_description) AND gross_number = :gross_number AND \
                 gross_turnover = :gross_turnover",
            )
            .set_expression_attribute_values(Some(
                ["gross_number", "gross_turnover"].into_iter().filter_map(was).collect(),
            ));
        let delete = delete.build().map_err(TableError::unavailable("move a row"))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// What a declaration of a new item writes beside its row: another revision, and, if the item shared a row until now,
    /// that a rebuild is needed.
    pub(super) fn declares(
        &self,
        shop: &ShopId,
        revision: &Revision,
        shared: bool,
    ) -> Result<TransactWriteItem, TableError> {
        let (condition, mut values) = revision.unchanged();
        values.extend(revision.next().0.map(|next| (":next".to_owned(), next)));
        let mut expression = "SET revision = :next".to_owned();
        if shared {
            expression.push_str(", #rebuild = :rebuild");
            values.insert(":rebuild".into(), AttributeValue::Bool(true));
        }
        let mut update = self.of_other(shop).update_expression(expression).condition_expression(condition);
        if shared {
            update = update.expression_attribute_names("#rebuild", REBUILD);
        }
        let update = update.set_expression_attribute_values(Some(values)).build();
        let update = update.map_err(TableError::unavailable("declare an item"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// The expression, conditions and values that add to the shared row.
fn figures(sum: &Sum) -> Option<(String, Vec<String>, Item)> {
    Some(adding([
        ("gross_number", sum.number.amount()?),
        ("gross_turnover", sum.turnover.amount()?),
        ("stock", (-sum.number).amount()?),
    ]))
}
