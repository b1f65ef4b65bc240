use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use jiff::Timestamp;
use kassa_bus::local::{DeadLetter, DeadLetters, LocalBus};
use kassa_bus::table::{Item, TableError, n, s, text};
use kassa_bus::{Clock, Message, Retry};
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::process::Process;

use super::queues::count;
use crate::dead_letters::{DeadLetterOffice, Given, Held, Letter};

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

/// The dead letters of one machine.
pub struct LocalOffice {
    pub(super) client: Client,
    pub(super) table: String,
    /// Who takes them back, where the shop is open.
    pub(super) bus: Option<Arc<LocalBus>>,
}

#[async_trait]
impl DeadLetterOffice for LocalOffice {
    async fn queues(&self) -> Result<Vec<Given>, Retry> {
        let plugged = kassa_subscribers::all().into_iter().map(|entry| entry.name);
        let mut queues = Vec::new();
        for queue in [Decrypt::NAME, Process::NAME].into_iter().chain(plugged) {
            let letters = count(&self.client, &self.table, queue, ENOUGH).await?;
            let first = self.read(queue, 1).await?;
            let since = first.first().map(|held| held.letter.at);
            queues.push(Given { queue: queue.to_owned(), letters, since });
        }
        Ok(queues)
    }

    async fn read(&self, queue: &str, most: usize) -> Result<Vec<Held>, Retry> {
        let mut held = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.client.query().table_name(&self.table).set_exclusive_start_key(cursor);
            let page = page
                .consistent_read(true)
                .limit(i32::try_from(most - held.len())?)
                .key_condition_expression("queue = :queue")
                .expression_attribute_values(":queue", s(queue));
            let page = page.send().await.map_err(TableError::unavailable("read the dead letters"))?;
            for item in page.items() {
                match self::held(item) {
                    Ok(letter) => held.push(letter),
                    Err(why) => tracing::error!(queue, %why, "a dead letter cannot be read, and is left"),
                }
            }
            cursor = page.last_evaluated_key;
            if cursor.is_none() || held.len() >= most {
                return Ok(held);
            }
        }
    }

    async fn redrive(&self, queue: &str, told: &(dyn Fn(u64, u64) + Sync)) -> Result<u64, Retry> {
        let bus = self.bus.as_ref().ok_or("the shop is closed; open it with kassa up");
        let bus = bus.map_err(std::io::Error::other)?;
        // What fails once more comes back behind these.
        let all = count(&self.client, &self.table, queue, u64::MAX).await?;
        let mut sent = 0;
        while sent < all {
            let most = usize::try_from(all - sent)?.min(100);
            let some = self.read(queue, most).await?;
            if some.is_empty() {
                break;
            }
            for held in some {
                bus.redeliver(queue, held.message.clone()).await?;
                // Between the two, a crash sends it twice, which is once.
                self.discard(queue, &held).await?;
                sent += 1;
                told(sent, all);
            }
        }
        Ok(sent)
    }

    async fn discard(&self, queue: &str, held: &Held) -> Result<(), Retry> {
        let delete = self.client.delete_item().table_name(&self.table);
        let delete = delete.key("queue", s(queue)).key("id", s(&held.handle));
        delete.send().await.map_err(TableError::unavailable("put a dead letter away"))?;
        Ok(())
    }
}

fn held(item: &Item) -> Result<Held, Retry> {
    let wrong = |attribute| TableError::Attribute { row: "of the dead letters".into(), attribute };
    let required = |attribute| text(item, attribute).ok_or_else(|| wrong(attribute));
    let place = required("id")?;
    let at: Timestamp = required("at")?.parse()?;
    // The time before it is for the order.
    let id = place.split_once('#').map_or(place, |(_, id)| id);
    let message = Message {
        id: id.to_owned(),
        attributes: serde_json::from_str(required("attributes")?)?,
        body: required("body")?.to_owned().into(),
        sent: None,
    };
    let why = text(item, "why").map(str::to_owned);
    let letter = Letter::of(place, &message, at, required("receives")?.parse()?, why);
    Ok(Held { letter, message, handle: place.to_owned() })
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
