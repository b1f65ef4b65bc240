use std::sync::Arc;

use aws_sdk_dynamodb::Client;

use crate::table::{Item, PAGE, TableError, s};

/// The shops table: registry and read models, each in rows of their own, by `shop_id` and `record_type`.
///
/// Reads are consistent.
#[derive(Clone)]
pub(crate) struct ShopsTable {
    pub client: Client,
    pub name: Arc<str>,
}

impl ShopsTable {
    pub fn new(client: Client, name: impl Into<Arc<str>>) -> Self {
        Self { client, name: name.into() }
    }

    pub async fn row(&self, shop: &str, record_type: &str) -> Result<Option<Item>, TableError> {
        let key = key(shop, record_type);
        let get = self.client.get_item().table_name(&*self.name).consistent_read(true).set_key(Some(key));
        Ok(get.send().await.map_err(TableError::unavailable("read the shops table"))?.item)
    }

    /// All rows of a partition, by record type.
    pub async fn rows(&self, shop: &str) -> Result<Vec<Item>, TableError> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&*self.name)
                .consistent_read(true)
                .limit(PAGE)
                .set_exclusive_start_key(cursor)
                .key_condition_expression("shop_id = :shop")
                .expression_attribute_values(":shop", s(shop));
            let page = query.send().await.map_err(TableError::unavailable("read the shops table"))?;
            rows.extend(page.items.unwrap_or_default());
            cursor = page.last_evaluated_key;
            if cursor.is_none() {
                return Ok(rows);
            }
        }
    }
}

pub(crate) fn key(shop: &str, record_type: &str) -> Item {
    Item::from([("shop_id".into(), s(shop)), ("record_type".into(), s(record_type))])
}
