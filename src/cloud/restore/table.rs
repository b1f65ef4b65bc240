//! Tables and their copies in `DynamoDB`. Whatever is done again here changes nothing.
//!
//! A restored table has its rows, keys, encryption and billing of the source; stream, tags and the rest it has not
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/PointInTimeRecovery.Tutorial.html>).

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::primitives::DateTime;
use aws_sdk_dynamodb::types::{
    PointInTimeRecoveryStatus, StreamSpecification, StreamViewType, TableDescription, TableStatus, Tag,
};
use jiff::Timestamp;
use kassa_bus::table::TableError;

use super::moment::{Standing, Window};
use super::{RestoreError, SUFFIX};
use crate::cloud::StageError;

/// What was just asked for may not show at first, as a description is read from wherever it is: a minute of pauses.
const SHOWS: u32 = 15;

/// Between looks at what AWS is doing: soon, and then more seldom, as it may take hours.
struct Pauses(Duration);

impl Pauses {
    const LONGEST: Duration = Duration::from_secs(5);

    fn new() -> Self {
        Self(Duration::from_millis(250))
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = Self::LONGEST.min(self.0 * 2);
    }
}

/// Which table a copy is of, as of when, and whether it is to stay.
const FROM: &str = "kassa:restored-from";
const AT: &str = "kassa:restored-at";
const KEPT: &str = "kassa:kept";

/// The tables of an account and region.
#[derive(Clone)]
pub(super) struct Tables {
    pub client: Client,
}

/// A copy that is ready.
pub(super) struct Copy {
    pub name: String,
    arn: String,
    stream: Option<String>,
}

pub(super) fn copy_of(table: &str) -> String {
    format!("{table}{SUFFIX}")
}

impl Tables {
    async fn describe(&self, table: &str) -> Result<Option<TableDescription>, TableError> {
        match self.client.describe_table().table_name(table).send().await {
            Ok(described) => Ok(described.table),
            Err(SdkError::ServiceError(error)) if error.err().is_resource_not_found_exception() => Ok(None),
            Err(error) => Err(TableError::unavailable("describe a table")(error)),
        }
    }

    /// What has the copy's name. One that is on its way out is waited for.
    pub(super) async fn standing(&self, table: &str) -> Result<Standing, RestoreError> {
        let source = self.describe(table).await?.and_then(|table| table.table_arn);
        let source = source.ok_or_else(|| RestoreError::Gone(table.to_owned()))?;
        let Some(copy) = self.not_going(&copy_of(table)).await? else { return Ok(Standing::Nothing) };
        let arn = copy.table_arn.unwrap_or_default();
        let tags = self.tags(&arn).await?;
        let tag = |name: &str| tags.iter().find(|tag| tag.key() == name).map(Tag::value);
        let kept = tag(KEPT) == Some("true");
        // AWS says itself what it restored. The tags say it where that is missing, as on an emulator.
        let restored = copy.restore_summary.filter(|it| it.source_table_arn() == Some(source.as_str()));
        let of = match restored {
            Some(restored) => Timestamp::from_second(restored.restore_date_time.secs()).ok(),
            None if tag(FROM) == Some(&source) => tag(AT).and_then(|at| at.parse().ok()),
            None => None,
        };
        Ok(of.map_or(Standing::Foreign, |of| Standing::Copy { of, kept }))
    }

    async fn not_going(&self, copy: &str) -> Result<Option<TableDescription>, TableError> {
        let mut pauses = Pauses::new();
        loop {
            match self.describe(copy).await? {
                Some(going) if going.table_status == Some(TableStatus::Deleting) => {
                    pauses.pause().await;
                }
                other => return Ok(other),
            }
        }
    }

    /// Tags of a table that is being made cannot always be had; it has none yet.
    async fn tags(&self, arn: &str) -> Result<Vec<Tag>, TableError> {
        let mut tags = Vec::new();
        let mut next = None;
        loop {
            let page =
                self.client.list_tags_of_resource().resource_arn(arn).set_next_token(next).send().await;
            let page = match page {
                Ok(page) => page,
                Err(SdkError::ServiceError(error)) if error.err().is_resource_not_found_exception() => {
                    return Ok(tags);
                }
                Err(error) => return Err(TableError::unavailable("read a copy's tags")(error)),
            };
            tags.extend(page.tags.unwrap_or_default());
            next = page.next_token;
            if next.is_none() {
                return Ok(tags);
            }
        }
    }

    /// From when to when the table can be had.
    pub(super) async fn window(&self, table: &str) -> Result<Window, RestoreError> {
        let asked = self.client.describe_continuous_backups().table_name(table).send().await;
        let told = asked.map_err(TableError::unavailable("ask for point-in-time recovery"))?;
        let recovery =
            told.continuous_backups_description.and_then(|told| told.point_in_time_recovery_description);
        let on = recovery
            .filter(|it| it.point_in_time_recovery_status == Some(PointInTimeRecoveryStatus::Enabled));
        let off = || RestoreError::RecoveryOff(table.to_owned());
        let on = on.ok_or_else(off)?;
        let time = |at: Option<DateTime>| at.and_then(|at| Timestamp::from_second(at.secs()).ok());
        let [earliest, latest] = [on.earliest_restorable_date_time, on.latest_restorable_date_time].map(time);
        Ok(Window { earliest: earliest.ok_or_else(off)?, latest: latest.ok_or_else(off)? })
    }

    /// Asks for a copy, and does not wait for it.
    pub(super) async fn restore(&self, table: &str, at: Timestamp) -> Result<(), TableError> {
        let restore = self.client.restore_table_to_point_in_time().source_table_name(table);
        let restore =
            restore.target_table_name(copy_of(table)).restore_date_time(DateTime::from_secs(at.as_second()));
        restore.send().await.map(drop).map_err(TableError::unavailable("restore a table"))
    }

    /// Waits for a copy, and marks it as one.
    pub(super) async fn ready(&self, table: &str, at: Timestamp, keep: bool) -> Result<Copy, RestoreError> {
        let source = self.describe(table).await?.and_then(|table| table.table_arn);
        let source = source.ok_or_else(|| RestoreError::Gone(table.to_owned()))?;
        let copy = self.active(&copy_of(table)).await?;
        let at = at.to_string();
        let mut tags = vec![(FROM, source.as_str()), (AT, &at)];
        if keep {
            tags.push((KEPT, "true"));
        }
        let tags = tags.into_iter().map(|(name, value)| Tag::builder().key(name).value(value).build());
        let tags = tags.collect::<Result<Vec<_>, _>>().map_err(TableError::unavailable("mark a copy"))?;
        let marked = self.client.tag_resource().resource_arn(&copy.arn).set_tags(Some(tags)).send().await;
        marked.map_err(TableError::unavailable("mark a copy"))?;
        Ok(copy)
    }

    async fn active(&self, copy: &str) -> Result<Copy, RestoreError> {
        let (mut missed, mut pauses) = (0, Pauses::new());
        loop {
            match self.describe(copy).await? {
                Some(table) => match table.table_status {
                    Some(TableStatus::Active) => return Ok(ready(copy, table)),
                    Some(TableStatus::Creating | TableStatus::Updating) | None => {}
                    Some(state) => {
                        let state = state.as_str().to_owned();
                        return Err(RestoreError::Failed { copy: copy.to_owned(), state });
                    }
                },
                None if missed == SHOWS => return Err(RestoreError::CopyGone(copy.to_owned())),
                None => missed += 1,
            }
            pauses.pause().await;
        }
    }

    /// The copy's own stream, which it gets if it has none.
    pub(super) async fn stream(&self, copy: &Copy) -> Result<String, RestoreError> {
        if let Some(stream) = &copy.stream {
            return Ok(stream.clone());
        }
        let stream =
            StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewImage);
        let stream = stream.build().map_err(TableError::unavailable("give the copy a stream"))?;
        let given =
            self.client.update_table().table_name(&copy.name).stream_specification(stream).send().await;
        given.map_err(TableError::unavailable("give the copy a stream"))?;
        let mut pauses = Pauses::new();
        for _ in 0..SHOWS {
            if let Some(stream) = self.active(&copy.name).await?.stream {
                return Ok(stream);
            }
            pauses.pause().await;
        }
        Err(StageError::NoStream(copy.name.clone()).into())
    }

    /// Removes a copy, if it is there, and waits until it is gone. Only ever asked of what [`Tables::standing`] found
    /// to be one.
    pub(super) async fn remove(&self, table: &str) -> Result<(), RestoreError> {
        let copy = copy_of(table);
        if self.not_going(&copy).await?.is_some() {
            self.active(&copy).await.map(drop).or_else(|error| match error {
                RestoreError::Failed { .. } => Ok(()),
                other => Err(other),
            })?;
            let removed = self.client.delete_table().table_name(&copy).send().await;
            removed.map_err(TableError::unavailable("remove a copy"))?;
            let mut pauses = Pauses::new();
            while self.describe(&copy).await?.is_some() {
                pauses.pause().await;
            }
        }
        Ok(())
    }
}

fn ready(copy: &str, table: TableDescription) -> Copy {
    let on = table.stream_specification.is_some_and(|stream| stream.stream_enabled);
    Copy {
        name: copy.to_owned(),
        arn: table.table_arn.unwrap_or_default(),
        stream: table.latest_stream_arn.filter(|_| on),
    }
}
