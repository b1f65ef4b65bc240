use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kassa_bus::table::Readable;
use kassa_subscribers::decrypt_error_alerter::Incident;

use super::attention::needs;
use super::figures::{Answers, Figures};
use super::spent::spent;
use super::standing::{DAYS, standing};
use super::{Alarm, Health, OpenIncident, Standing, Status};
use crate::monitor::alarms::{Alarms, RUNBOOK};
use crate::monitor::placeholders::Placeholders;
use crate::monitor::{AlarmStatus, Monitor, MonitorError};
use crate::questions::{QuestionError, Questions};

/// What is looked at, and by whose eyes.
pub struct View<'a> {
    /// How answers call the place.
    pub place: String,
    pub questions: &'a Questions,
    /// None of a closed shop.
    pub monitor: Option<&'a dyn Monitor>,
    /// Whether it is on AWS.
    pub deployed: bool,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Question(#[from] QuestionError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error("what this was built with cannot be read: {0}")]
    Shipped(String),
}

/// How long after a minute's end `CloudWatch` has its numbers: those of functions are in their logs first.
const LATE: SignedDuration = SignedDuration::from_mins(2);

/// Shops that are looked at at once.
const SIDE_BY_SIDE: usize = 16;

/// Looks at a shop. Reads a bounded number of rows, however many sales there were.
///
/// # Errors
/// [`StatusError`].
pub async fn look(view: &View<'_>, now: Timestamp) -> Result<Status, StatusError> {
    let health = Box::pin(async {
        match view.monitor {
            Some(monitor) => health(view, monitor, now).await.map(Some),
            None => Ok(None),
        }
    });
    let shops = Box::pin(shops(view.questions, now));
    let rejected = async { Ok(view.questions.attention().await?) };
    let (health, shops, incidents, rejected) =
        futures::try_join!(health, shops, incidents(view.questions), rejected)?;
    let (Readable { rows: shops, mut unreadable }, incidents) = (shops, incidents);
    unreadable.extend(incidents.unreadable);
    unreadable.extend(view.questions.unreadable_checkpoints().await?);
    Ok(Status {
        place: view.place.clone(),
        reach: String::new(),
        at: now,
        open: health.is_some(),
        attention: needs(&rejected, health.as_ref(), now),
        health,
        cost: Box::pin(spent(view, &shops, now)).await?,
        shops,
        incidents: incidents.rows,
        unreadable,
    })
}

async fn health(view: &View<'_>, monitor: &dyn Monitor, now: Timestamp) -> Result<Health, StatusError> {
    let told_until = if view.deployed { now - LATE } else { now };
    let figures = Figures::of(monitor.stack(), monitor.api(), &view.questions.subscribers());
    let (from, to) = Figures::range(now, told_until);
    let (lines, standing) = futures::try_join!(monitor.data(figures.queries(), from, to), monitor.alarms())?;
    let answers = Answers::new(&figures, lines, now, told_until);
    let shipped = Alarms::of(&Placeholders::of(monitor.stack(), monitor.api()));
    let shipped = shipped.map_err(StatusError::Shipped)?;
    let (alarms, not_deployed) = alarms(&shipped, standing);
    Ok(Health {
        hops: answers.hops(),
        subscribers: answers.subscribers(),
        pending: answers.pending(),
        pending_seconds: answers.pending_seconds(),
        recorded: answers.recorded(),
        alarms,
        not_deployed,
    })
}

/// Alarms with what is to be done about each, and those that are not there.
fn alarms(shipped: &Alarms, standing: Vec<AlarmStatus>) -> (Vec<Alarm>, Vec<String>) {
    let mut standing: HashMap<String, AlarmStatus> =
        standing.into_iter().map(|status| (status.name.clone(), status)).collect();
    let plain = shipped.alarms.iter().map(|a| (&a.name, a.severity, &a.title, &a.meaning, &a.run));
    let composite = shipped.composites.iter().map(|a| (&a.name, a.severity, &a.title, &a.meaning, &a.run));
    let (mut alarms, mut not_deployed) = (Vec::new(), Vec::new());
    for (name, severity, title, meaning, run) in composite.chain(plain) {
        let Some(AlarmStatus { name, state, since, why, .. }) = standing.remove(name) else {
            not_deployed.push(name.clone());
            continue;
        };
        let (title, meaning) = (title.clone(), meaning.clone());
        let run = Some(run.clone()).filter(|run| !run.starts_with("kassa status"));
        let runbook = format!("{RUNBOOK}#{name}");
        alarms.push(Alarm { name, severity, title, state, since, why, meaning, run, runbook });
    }
    (alarms, not_deployed)
}

async fn shops(questions: &Questions, now: Timestamp) -> Result<Readable<Standing>, StatusError> {
    let Readable { rows, mut unreadable } = questions.registered().await?;
    let looks = rows.into_iter().map(|shop| async move {
        let days = questions.last_days(&shop.shop_id, DAYS).await?;
        Ok::<_, QuestionError>((standing(&shop, &days.rows, now), days.unreadable))
    });
    let looks: Vec<_> = stream::iter(looks).buffered(SIDE_BY_SIDE).try_collect().await?;
    let (rows, days): (Vec<_>, Vec<_>) = looks.into_iter().unzip();
    unreadable.extend(days.into_iter().flatten());
    Ok(Readable { rows, unreadable })
}

async fn incidents(questions: &Questions) -> Result<Readable<OpenIncident>, StatusError> {
    let all = match questions.incidents().await {
        // The alerter may be switched off one day.
        Err(QuestionError::NoDocuments(_)) => return Ok(Readable::default()),
        all => all?,
    };
    let open = all.rows.into_iter().filter(Incident::is_open).map(|incident| OpenIncident {
        shop_id: incident.shop_id,
        reason: incident.reason.as_str().to_owned(),
        since: incident.failures.first,
        sales: incident.failures.count,
    });
    Ok(Readable { rows: open.collect(), unreadable: all.unreadable })
}
