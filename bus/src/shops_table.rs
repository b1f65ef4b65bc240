use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;

use crate::table::{Item, PAGE, TableError, s};
use crate::trace;

/// The shops table: registry and read models, each in rows of their own, by `shop_id` and `record_type`.
///
/// Reads are consistent.
#[derive(Clone)]
pub struct ShopsTable {
    pub client: Client,
    pub name: Arc<str>,
}

impl ShopsTable {
    #[must_use]
    pub fn new(client: Client, name: impl Into<Arc<str>>) -> Self {
        Self { client, name: name.into() }
    }

    /// One row.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn row(&self, shop: &str, record_type: &str) -> Result<Option<Item>, TableError> {
        let key = key(shop, record_type);
        let get = self.client.get_item().table_name(&*self.name).consistent_read(true).set_key(Some(key));
        let read = trace::table("GetItem", &self.name);
        let row = get.send().await.map_err(TableError::unavailable("read the shops table"));
        Ok(read.ends("table", row)?.item)
    }

    /// All rows of a partition, by record type.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn rows(&self, shop: &str) -> Result<Vec<Item>, TableError> {
        self.query("shop_id = :shop", [(":shop", shop)].into()).await
    }

    /// A partition's rows whose record type begins so.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn rows_like(&self, shop: &str, beginning: &str) -> Result<Vec<Item>, TableError> {
        let condition = "shop_id = :shop AND begins_with(record_type, :beginning)";
        self.query(condition, [(":shop", shop), (":beginning", beginning)].into()).await
    }

    /// A partition's rows from one record type to another, both included.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn rows_between(&self, shop: &str, from: &str, to: &str) -> Result<Vec<Item>, TableError> {
        let condition = "shop_id = :shop AND record_type BETWEEN :from AND :to";
        self.query(condition, [(":shop", shop), (":from", from), (":to", to)].into()).await
    }

    async fn query(&self, condition: &str, values: HashMap<&str, &str>) -> Result<Vec<Item>, TableError> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let (page, next) = self.query_page(condition, &values, cursor).await?;
            rows.extend(page);
            cursor = next;
            if cursor.is_none() {
                return Ok(rows);
            }
        }
    }

    /// A page of a partition's rows whose record type begins so, by record type, and where the next begins.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn page(
        &self,
        shop: &str,
        beginning: &str,
        cursor: Option<Item>,
    ) -> Result<(Vec<Item>, Option<Item>), TableError> {
        // None begins with nothing.
        let (condition, values) = match beginning {
            "" => ("shop_id = :shop", [(":shop", shop)].into()),
            _ => (
                "shop_id = :shop AND begins_with(record_type, :beginning)",
                [(":shop", shop), (":beginning", beginning)].into(),
            ),
        };
        self.query_page(condition, &values, cursor).await
    }

    async fn query_page(
        &self,
        condition: &str,
        values: &HashMap<&str, &str>,
        cursor: Option<Item>,
    ) -> Result<(Vec<Item>, Option<Item>), TableError> {
        let values: Item = values.iter().map(|(name, value)| ((*name).to_owned(), s(*value))).collect();
        let query = self
            .client
            .query()
            .table_name(&*self.name)
            .consistent_read(true)
            .limit(PAGE)
            .set_exclusive_start_key(cursor)
            .key_condition_expression(condition)
            .set_expression_attribute_values(Some(values));
        let page = query.send().await.map_err(TableError::unavailable("read the shops table"))?;
        Ok((page.items.unwrap_or_default(), page.last_evaluated_key))
    }
}

impl ShopsTable {
    /// The last of a partition's rows from one record type to another, both included, the last first.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn last_between(
        &self,
        shop: &str,
        (from, to): (&str, &str),
        limit: i32,
    ) -> Result<Vec<Item>, TableError> {
        let query = self
            .client
            .query()
            .table_name(&*self.name)
            .consistent_read(true)
            .limit(limit)
            .scan_index_forward(false)
            .key_condition_expression("shop_id = :shop AND record_type BETWEEN :from AND :to")
            .expression_attribute_values(":shop", s(shop))
            .expression_attribute_values(":from", s(from))
            .expression_attribute_values(":to", s(to));
        let page = query.send().await.map_err(TableError::unavailable("read the shops table"))?;
        Ok(page.items.unwrap_or_default())
    }
}

impl ShopsTable {
    /// A partition's next rows after one, or the first, whose record type begins so: this many at most, or what a page holds.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn rows_after(
        &self,
        partition: &str,
        beginning: &str,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Vec<Item>, TableError> {
        let query = self
            .client
            .query()
            .table_name(&*self.name)
            .consistent_read(true)
            .limit(limit)
            .set_exclusive_start_key(after.map(|after| key(partition, after)))
            .key_condition_expression("shop_id = :shop AND begins_with(record_type, :beginning)")
            .expression_attribute_values(":shop", s(partition))
            .expression_attribute_values(":beginning", s(beginning));
        let page = query.send().await.map_err(TableError::unavailable("read the shops table"))?;
        Ok(page.items.unwrap_or_default())
    }

    /// Removes a row, if it is there.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn remove(&self, partition: &str, record_type: &str) -> Result<(), TableError> {
        let delete = self.client.delete_item().table_name(&*self.name);
        let removed = delete.set_key(Some(key(partition, record_type))).send().await;
        removed.map(drop).map_err(TableError::unavailable("write the shops table"))
    }

    /// Puts a row if this is true of what is there, and says whether it was.
    ///
    /// # Errors
    /// [`TableError`]; whether it was put is then unknown.
    pub async fn put_if(&self, row: Item, condition: &str, values: Item) -> Result<bool, TableError> {
        let put = self
            .client
            .put_item()
            .table_name(&*self.name)
            .set_item(Some(row))
            .condition_expression(condition)
            .set_expression_attribute_values((!values.is_empty()).then_some(values));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(TableError::unavailable("write the shops table")(error)),
            },
        }
    }
}

/// A row's key.
#[must_use]
pub fn key(shop: &str, record_type: &str) -> Item {
    Item::from([("shop_id".into(), s(shop)), ("record_type".into(), s(record_type))])
}
