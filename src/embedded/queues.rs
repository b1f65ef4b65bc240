use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{Delete, Put, Select, TransactWriteItem};
use jiff::{SignedDuration, Timestamp};
use kassa_bus::limits::batches;
use kassa_bus::local::{LONGEST_WAIT, Queued, Queues};
use kassa_bus::table::{Item, TableError, n, s, text};
use kassa_bus::{Clock, Message, Retry};
use uuid::Uuid;

/// The durable queues of one machine, in a table of the store: a partition each, in the order the messages
/// are due.
pub(super) struct LocalQueues {
    pub client: Client,
    pub table: String,
    pub clock: Clock,
}

/// What one transaction writes, at most: rows, and bytes of messages. It takes 4 MB with what stands beside them.
const WRITES: usize = 100;
const BYTES: usize = 3 * 1024 * 1024;

impl LocalQueues {
    async fn write(&self, writes: Vec<TransactWriteItem>) -> Result<(), TableError> {
        for some in writes.chunks(WRITES) {
            let write = self.client.transact_write_items().set_transact_items(Some(some.to_vec()));
            write.send().await.map_err(TableError::unavailable("write a queue"))?;
        }
        Ok(())
    }

    /// The first messages whose place fulfils a condition.
    async fn read(
        &self,
        queue: &str,
        condition: &str,
        place: String,
        most: usize,
    ) -> Result<Vec<Queued>, Retry> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .limit(i32::try_from(most)?)
            .key_condition_expression(format!("queue = :queue AND {condition}"))
            .expression_attribute_values(":queue", s(queue))
            .expression_attribute_values(":place", s(place));
        let page = query.send().await.map_err(TableError::unavailable("read a queue"))?;
        let mut read = Vec::with_capacity(page.items().len());
        for item in page.items() {
            match queued(item) {
                Ok(message) => read.push(message),
                Err(why) => self.set_aside(queue, item, &why).await?,
            }
        }
        Ok(read)
    }

    /// A row that cannot be read keeps no other waiting: it is named, and kept where no queue is.
    async fn set_aside(&self, queue: &str, item: &Item, why: &Retry) -> Result<(), TableError> {
        let place = text(item, "place").unwrap_or_default();
        tracing::error!(queue, place, %why, "a message cannot be read, and is set aside in the table of queues");
        let mut aside = item.clone();
        aside.insert("queue".into(), s(format!("#unreadable {queue}")));
        let put = Put::builder().table_name(&self.table).set_item(Some(aside)).build();
        let delete = Delete::builder().table_name(&self.table).set_key(Some(key(queue, place))).build();
        let failed = TableError::unavailable("set a message aside");
        let (put, delete) = put.and_then(|put| Ok((put, delete?))).map_err(failed)?;
        self.write(vec![
            TransactWriteItem::builder().put(put).build(),
            TransactWriteItem::builder().delete(delete).build(),
        ])
        .await
    }

    fn added(
        &self,
        queue: &str,
        message: &Message,
        due: Timestamp,
        receives: u32,
    ) -> Result<TransactWriteItem, Retry> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(key(queue, &format!("{}#{}", beginning(due), Uuid::now_v7()))))
            .item("id", s(&message.id))
            .item("sent", s(message.sent.unwrap_or(due).to_string()))
            .item("receives", n(receives))
            .item("attributes", s(serde_json::to_string(&message.attributes)?))
            .item("body", s(message.body.as_str()));
        Ok(TransactWriteItem::builder().put(put.build()?).build())
    }

    fn removed(&self, queue: &str, queued: &Queued) -> Result<TransactWriteItem, Retry> {
        let delete = Delete::builder().table_name(&self.table).set_key(Some(key(queue, &queued.place)));
        Ok(TransactWriteItem::builder().delete(delete.build()?).build())
    }
}

#[async_trait]
impl Queues for LocalQueues {
    async fn put(&self, queue: &'static str, messages: &[Message], wait: Duration) -> Result<(), Retry> {
        let due = self.clock.now() + SignedDuration::try_from(wait)?;
        for some in batches(messages, WRITES, BYTES, Message::size) {
            let writes = some.iter().map(|message| self.added(queue, message, due, 0));
            self.write(writes.collect::<Result<_, _>>()?).await?;
        }
        Ok(())
    }

    async fn due(&self, queue: &'static str, most: usize) -> Result<Vec<Queued>, Retry> {
        let now = self.clock.now();
        // What is due this very millisecond is due.
        let upto = beginning(now + SignedDuration::from_millis(1));
        let mut due = self.read(queue, "place < :place", upto, most).await?;
        if due.len() < most {
            let beyond = beginning(now + SignedDuration::try_from(LONGEST_WAIT)?);
            due.extend(self.read(queue, "place > :place", beyond, most - due.len()).await?);
        }
        Ok(due)
    }

    async fn done(&self, queue: &'static str, dealt_with: &[Queued]) -> Result<(), Retry> {
        let writes = dealt_with.iter().map(|queued| self.removed(queue, queued));
        Ok(self.write(writes.collect::<Result<_, _>>()?).await?)
    }

    async fn later(&self, queue: &'static str, failed: Queued, wait: Duration) -> Result<(), Retry> {
        let due = self.clock.now() + SignedDuration::try_from(wait)?;
        let writes =
            [self.removed(queue, &failed)?, self.added(queue, &failed.message, due, failed.receives + 1)?];
        Ok(self.write(writes.into()).await?)
    }

    async fn count(&self, queue: &'static str) -> Result<u64, Retry> {
        Ok(count(&self.client, &self.table, queue, u64::MAX).await?)
    }

    async fn oldest(&self, queue: &'static str) -> Result<Option<Timestamp>, Retry> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .limit(1)
            .key_condition_expression("queue = :queue")
            .expression_attribute_values(":queue", s(queue));
        let page = query.send().await.map_err(TableError::unavailable("read a queue"))?;
        Ok(page.items().first().and_then(|item| text(item, "sent")?.parse().ok()))
    }
}

/// How many rows a queue has in a table of queues or of dead letters. More than so many are not all counted.
pub(super) async fn count(client: &Client, table: &str, queue: &str, most: u64) -> Result<u64, TableError> {
    let mut count = 0;
    let mut cursor = None;
    loop {
        let query = client
            .query()
            .table_name(table)
            .select(Select::Count)
            .set_exclusive_start_key(cursor)
            .key_condition_expression("queue = :queue")
            .expression_attribute_values(":queue", s(queue));
        let page = query.send().await.map_err(TableError::unavailable("count a queue"))?;
        count += u64::try_from(page.count()).unwrap_or_default();
        cursor = page.last_evaluated_key;
        if cursor.is_none() || count >= most {
            return Ok(count);
        }
    }
}

/// How the places of what is due at that time begin.
fn beginning(due: Timestamp) -> String {
    format!("{:020}", due.as_millisecond().max(0))
}

fn key(queue: &str, place: &str) -> Item {
    Item::from([("queue".into(), s(queue)), ("place".into(), s(place))])
}

fn queued(item: &Item) -> Result<Queued, Retry> {
    let wrong = |attribute| TableError::Attribute { row: "of a queue".into(), attribute };
    let required = |attribute| text(item, attribute).ok_or_else(|| wrong(attribute));
    Ok(Queued {
        place: required("place")?.to_owned(),
        message: Message {
            id: required("id")?.to_owned(),
            attributes: serde_json::from_str(required("attributes")?)?,
            body: required("body")?.to_owned().into(),
            sent: text(item, "sent").and_then(|at| at.parse().ok()),
        },
        receives: required("receives")?.parse()?,
    })
}
