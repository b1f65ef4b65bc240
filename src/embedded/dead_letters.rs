use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use kassa_bus::local::{DeadLetter, DeadLetters};
use kassa_bus::table::{TableError, n, s};
use kassa_bus::{Clock, Retry};

use super::queues::count;

/// Dead letters, in a table of the store.
pub(super) struct LocalDeadLetters {
    pub client: Client,
    pub table: String,
    pub clock: Clock,
}

/// Beyond it nobody asks how many exactly, once a minute.
const ENOUGH: u64 = 10_000;

#[async_trait]
impl DeadLetters for LocalDeadLetters {
    async fn keep(&self, letter: DeadLetter) -> Result<(), Retry> {
        let at = self.clock.now();
        let attributes = serde_json::to_string(&letter.message.attributes)?;
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("queue", s(letter.queue))
            .item("id", s(format!("{at}#{}", letter.message.id)))
            .item("at", s(at.to_string()))
            .item("receives", n(letter.receives))
            .item("why", s(letter.why))
            .item("attributes", s(attributes))
            .item("body", s(letter.message.body.as_str()));
        put.send().await.map_err(TableError::unavailable("keep a dead letter"))?;
        Ok(())
    }

    async fn count(&self, queue: &'static str) -> Result<u64, Retry> {
        Ok(count(&self.client, &self.table, queue, ENOUGH).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kassa_bus::Message;
    use kassa_bus::table::text;

    use super::*;
    use crate::embedded::{Store, Sync};

    #[tokio::test]
    async fn a_dead_letter_is_in_its_table_with_why_it_failed() {
        let store = Store::open(None, Sync::Normal).await.unwrap();
        let table = store.tables.dead_letters.clone();
        let clock = Clock::from_fn(|| "2026-11-22T12:00:00Z".parse().unwrap());
        let letters = LocalDeadLetters { client: store.client.clone(), table: table.clone(), clock };
        let attributes = HashMap::from([("shop_id".to_owned(), "AMIS1".to_owned())]);
        for id in ["one", "two"] {
            let message = Message {
                id: id.into(),
                attributes: attributes.clone(),
                body: format!("body of {id}").into(),
                sent: None,
            };
            let letter = DeadLetter { queue: "decrypt", message, receives: 5, why: "no key".into() };
            letters.keep(letter).await.unwrap();
        }
        let kept = store.client.scan().table_name(table).limit(10).send().await.unwrap();
        let mut bodies: Vec<_> = kept.items().iter().filter_map(|item| text(item, "body")).collect();
        bodies.sort_unstable();
        assert_eq!(bodies, ["body of one", "body of two"]);
        assert_eq!(
            (letters.count("decrypt").await.unwrap(), letters.count("process").await.unwrap()),
            (2, 0)
        );
        let first = &kept.items()[0];
        assert_eq!((text(first, "queue"), text(first, "receives")), (Some("decrypt"), Some("5")));
        assert_eq!(
            (text(first, "why"), text(first, "attributes")),
            (Some("no key"), Some(r#"{"shop_id":"AMIS1"}"#))
        );
    }
}
