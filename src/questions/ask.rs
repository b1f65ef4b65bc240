use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use kassa_bus::SaleId;
use kassa_bus::error::chain;
use kassa_bus::table::Readable;
use kassa_bus::tills::EnrolledTill;
use kassa_pipeline::check::Check;
use kassa_pipeline::rebuild::Rebuilt;
use kassa_pipeline::row::ReadRow;
use kassa_subscribers::bad_key_auditor::Audit;
use kassa_subscribers::warehouse_webhook::WebhookState;
use reqwest::Method;
use serde_json::Value;

use super::audit::AuditFilter;
use super::dead_letters::LetterFilter;
use super::preview::Preview;
use super::reconcile::{ReconcileFilter, Reconciled};
use super::rejected::{RejectedFilter, ShownRejection};
use super::remote::Remote;
use super::tills::{Enrolment, Revocation};
use super::{DayFilter, OutboxFilter, Progress, QuestionError, Questions, SaleHistory, Sent, ShopFilter};
use crate::cloud::{Stage, StageError, StageName};
use crate::dead_letters::{Given, Letter};
use crate::embedded::{DataFolder, FileKeys, OpenError, Store, Sync};
use crate::rotation::{Retirement, Rotated, Rotation, ShownKey};
use crate::status::{Status, StatusError, View, look};

/// A shop that can be asked.
pub enum Ask {
    /// It is open in another process, which answers over loopback.
    Open(Box<Remote>),
    /// It is closed: we have its file, and its lock, to ourselves.
    Closed(Box<Questions>, DataFolder),
    /// It is on AWS.
    Deployed(Box<Questions>, Box<Stage>),
}

/// Why a shop cannot be asked, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Data(#[from] OpenError),
    #[error("the shop's tables cannot be asked: {0}")]
    Store(String),
    #[error("cannot open the keys in {folder}: {why}")]
    Keys { folder: String, why: std::io::Error },
    #[error("the shop (process {pid}) does not answer at {url}")]
    Unreachable { pid: u32, url: String, source: reqwest::Error },
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Question(#[from] QuestionError),
    #[error(transparent)]
    Status(#[from] StatusError),
}

impl Ask {
    /// Finds out whether the shop in this folder is open, and makes ready to ask it.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn at(data: &Path) -> Result<Self, AskError> {
        match DataFolder::existing(data).await {
            Ok(folder) => {
                let store = Store::open(Some(&folder.database()), Sync::Full).await;
                let store = store.map_err(|e| AskError::Store(chain(&e)))?;
                let questions = Box::new(Questions::new(store.books()));
                if store.rows_are_lost() {
                    questions.rebuild(&|_, _| {}).await?;
                }
                Ok(Self::Closed(questions, folder))
            }
            Err(OpenError::Open { by, .. }) => Ok(Self::Open(Box::new(Remote::of(*by)))),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes ready to ask a deployed stage.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn stage(service: &str, stage: &StageName) -> Result<Self, AskError> {
        let stage = Stage::find(service, stage).await?;
        let questions = Questions::new(stage.books().await?);
        Ok(Self::Deployed(Box::new(questions), Box::new(stage)))
    }

    /// Whether it is all right.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn status(&self, now: Timestamp) -> Result<Status, AskError> {
        let seen = |place, questions, monitor, deployed| View { place, questions, monitor, deployed };
        Ok(match self {
            Self::Open(remote) => Status { place: remote.place(), ..remote.get(&["status"], &()).await? },
            Self::Closed(questions, folder) => {
                let place = folder.path().display().to_string();
                look(&seen(place, questions, None, false), now).await?
            }
            Self::Deployed(questions, stage) => {
                let monitor = stage.monitor()?;
                look(&seen(stage.place(), questions, Some(&*monitor), true), now).await?
            }
        })
    }

    /// # Errors
    /// [`AskError`].
    pub async fn sale(&self, sale_id: &str, shop: Option<String>) -> Result<SaleHistory, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.sale(sale_id, shop.as_deref()).await?)
            }
            Self::Open(remote) => remote.get(&["sales", sale_id], &ShopFilter { shop }).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn stock(&self, shop: Option<String>) -> Result<Readable<ReadRow>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.stock(shop.as_deref()).await?)
            }
            Self::Open(remote) => remote.get(&["stock"], &ShopFilter { shop }).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn outbox(&self, filter: &OutboxFilter) -> Result<Vec<(String, Sent)>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => Ok(questions.outbox(filter).await?),
            Self::Open(remote) => remote.get(&["outbox"], filter).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn audit_keys(&self, filter: &AuditFilter) -> Result<Audit, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.audit_keys(filter).await?)
            }
            Self::Open(remote) => remote.get(&["audit", "keys"], filter).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn tills(&self, shop: Option<String>) -> Result<Readable<EnrolledTill>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.tills(shop.as_deref()).await?)
            }
            Self::Open(remote) => remote.get(&["tills"], &ShopFilter { shop }).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn enrol(&self, enrolment: &Enrolment, now: Timestamp) -> Result<EnrolledTill, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.enrol(enrolment, now).await?)
            }
            Self::Open(remote) => remote.post(&["tills"], enrolment).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn revoke(&self, revocation: &Revocation, now: Timestamp) -> Result<EnrolledTill, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.revoke(revocation, now).await?)
            }
            Self::Open(remote) => remote.post(&["tills", "revoke"], revocation).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn rejected(
        &self,
        filter: &RejectedFilter,
        progress: Progress<'_>,
    ) -> Result<Vec<ShownRejection>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.rejected(filter, progress).await?)
            }
            Self::Open(remote) => remote.long(Method::GET, "rejected", filter, progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn preview(
        &self,
        filter: &RejectedFilter,
        progress: Progress<'_>,
        now: Timestamp,
    ) -> Result<Preview, AskError> {
        match self {
            Self::Closed(questions, folder) => {
                let opener = questions.opener(Arc::new(file_keys(folder)?));
                Ok(questions.preview(filter, &opener, progress, now).await?)
            }
            Self::Deployed(questions, stage) => {
                let opener = questions.opener(stage.keys()?);
                Ok(questions.preview(filter, &opener, progress, now).await?)
            }
            Self::Open(remote) => remote.long(Method::GET, "retry", filter, progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn retry(
        &self,
        filter: &RejectedFilter,
        progress: Progress<'_>,
    ) -> Result<Vec<ShownRejection>, AskError> {
        match self {
            Self::Closed(..) => Err(QuestionError::Closed.into()),
            Self::Deployed(questions, stage) => {
                Ok(questions.retry(filter, &*stage.to_decrypt()?, progress).await?)
            }
            Self::Open(remote) => remote.long(Method::POST, "retry", filter, progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn give_up(
        &self,
        filter: &RejectedFilter,
        now: Timestamp,
        progress: Progress<'_>,
    ) -> Result<Vec<SaleId>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.give_up(filter, now, progress).await?)
            }
            Self::Open(remote) => remote.long(Method::POST, "give-up", filter, progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn dead_letters(&self) -> Result<Vec<Given>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => Ok(questions.dead_letters().await?),
            Self::Open(remote) => remote.get(&["dead-letters"], &()).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn letters(&self, queue: &str) -> Result<Vec<Letter>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => Ok(questions.letters(queue).await?),
            Self::Open(remote) => remote.get(&["dead-letters", queue], &()).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn redrive(&self, filter: &LetterFilter, progress: Progress<'_>) -> Result<u64, AskError> {
        match self {
            Self::Closed(..) => Err(QuestionError::Closed.into()),
            Self::Deployed(questions, _) => Ok(questions.redrive(filter, progress).await?),
            Self::Open(remote) => remote.long(Method::POST, "redrive", filter, progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn drop_letters(
        &self,
        filter: &LetterFilter,
        now: Timestamp,
        progress: Progress<'_>,
    ) -> Result<u64, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.drop_letters(filter, now, progress).await?)
            }
            Self::Open(remote) => remote.long(Method::POST, "drop", filter, progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn reconcile(
        &self,
        filter: &ReconcileFilter,
        progress: Progress<'_>,
    ) -> Result<Reconciled, AskError> {
        match self {
            Self::Closed(questions, _) if filter.dry_run => {
                Ok(questions.reconcile(filter, None, progress).await?)
            }
            Self::Closed(..) => Err(QuestionError::Closed.into()),
            Self::Deployed(questions, stage) => {
                Ok(questions.reconcile(filter, Some(&*stage.to_decrypt()?), progress).await?)
            }
            Self::Open(remote) => remote.long(Method::POST, "reconcile", filter, progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn keys(&self, shop: Option<String>, now: Timestamp) -> Result<Vec<ShownKey>, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.keys(shop.as_deref(), now).await?)
            }
            Self::Open(remote) => remote.get(&["keys"], &ShopFilter { shop }).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn rotate(&self, rotation: &Rotation, now: Timestamp) -> Result<Rotated, AskError> {
        match self {
            Self::Closed(questions, folder) => {
                Ok(questions.rotate(&file_keys(folder)?, rotation, now).await?)
            }
            Self::Deployed(questions, stage) => Ok(questions.rotate(&*stage.keys()?, rotation, now).await?),
            Self::Open(remote) => remote.post(&["keys", "rotate"], rotation).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn retire(&self, retirement: &Retirement, now: Timestamp) -> Result<ShownKey, AskError> {
        match self {
            Self::Closed(questions, folder) => {
                Ok(questions.retire(&file_keys(folder)?, retirement, now).await?)
            }
            Self::Deployed(questions, stage) => {
                Ok(questions.retire(&*stage.keys()?, retirement, now).await?)
            }
            Self::Open(remote) => remote.post(&["keys", "retire"], retirement).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn webhook(&self) -> Result<WebhookState, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => Ok(questions.webhook().await?),
            Self::Open(remote) => remote.get(&["webhook"], &()).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn resume_webhook(&self) -> Result<WebhookState, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.resume_webhook().await?)
            }
            Self::Open(remote) => remote.post(&["webhook", "resume"], &()).await,
        }
    }

    /// Gives each event to `each`, which says whether it wants more.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn events(
        &self,
        filter: &DayFilter,
        mut each: impl FnMut(Value) -> bool,
    ) -> Result<(), AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.events(filter, |event| std::future::ready(each(event))).await?)
            }
            Self::Open(remote) => {
                remote.each(&["events"], filter, |line| each(line).then_some(()).ok_or(())).await
            }
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn check(&self, progress: Progress<'_>) -> Result<Check, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.check(progress).await?)
            }
            Self::Open(remote) => remote.long(Method::GET, "check", &(), progress).await,
        }
    }

    /// # Errors
    /// [`AskError`].
    pub async fn rebuild(&self, progress: Progress<'_>) -> Result<Rebuilt, AskError> {
        match self {
            Self::Closed(questions, _) | Self::Deployed(questions, _) => {
                Ok(questions.rebuild(progress).await?)
            }
            Self::Open(remote) => remote.long(Method::POST, "rebuild", &(), progress).await,
        }
    }
}

fn file_keys(folder: &DataFolder) -> Result<FileKeys, AskError> {
    let keys = folder.keys();
    FileKeys::open(&keys).map_err(|why| AskError::Keys { folder: keys.display().to_string(), why })
}
