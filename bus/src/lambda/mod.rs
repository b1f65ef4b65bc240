//! A Lambda function around a subscriber: how it starts, what it is invoked with, what it answers.

/// How a function reaches AWS.
mod aws;
/// A queue that its own function empties.
mod drain;
/// What a subscriber may ask of its function.
mod host;
/// Records of SQS, SNS and `DynamoDB` streams as messages, and verdicts as answers.
mod records;

use std::future::Future;
use std::process::ExitCode;
use std::time::Instant;

use aws_types::SdkConfig;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use drain::{Drain, Drained};
pub use host::LambdaHost;
pub use lambda_runtime::Error;
use records::Invocation;

use crate::settings::{SettingError, Settings};
use crate::subscriber::{Intake, Retry, Subscription, isolated};
use crate::telemetry;

/// What a function is made of, before its first event.
pub struct Function {
    pub settings: Settings,
    /// What clients are made from. Making them opens no connection.
    pub aws: SdkConfig,
}

impl Function {
    /// Reads the settings and starts logging: JSON lines on stdout, at the level `RUST_LOG` says.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong.
    pub fn start() -> Result<Self, Error> {
        let settings = Settings::from_env();
        let level = settings.optional("RUST_LOG").unwrap_or("info");
        let filter = telemetry::filter(level).map_err(|_| SettingError::Wrong {
            name: "RUST_LOG",
            what: "log levels, as info or kassa=debug",
        })?;
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
        tracing_subscriber::registry().with(lines.with_span_list(false).with_filter(filter)).init();
        let aws = aws::config(&settings)?;
        Ok(Self { settings, aws })
    }

    /// Which of its room's functions this is: the handler's name in `deploy.yml`.
    ///
    /// # Errors
    /// [`SettingError`], which cannot be on Lambda.
    pub fn handler(&self) -> Result<&str, SettingError> {
        self.settings.text("_HANDLER")
    }
}

/// What a bootstrap ends with: a function that does not start says why.
#[must_use]
pub fn exit(outcome: Result<(), Error>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the function does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers events until Lambda ends the process.
///
/// # Errors
/// If Lambda cannot be reached, which ends the process.
pub async fn serve<F, Fut>(answer: F) -> Result<(), Error>
where
    F: Fn(Value) -> Fut,
    Fut: Future<Output = Result<Value, Error>>,
{
    // The event is taken as it is: one that is not in its form must reach whoever can tell.
    // Boxed: the whole of a stage in one future is deeper than the compiler will lay out.
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| Box::pin(answer(event.payload)))).await
}

/// Drives a subscriber with what its function is invoked with: batches of a queue, of a stream, or
/// SNS directly; or the minute, upon which a drained queue is emptied and what is due by time is done.
///
/// `only_shard` names the stream's shard where the event does not, which is right only if the stream
/// has no more than one.
///
/// # Errors
/// As [`serve`], and [`SettingError`] if a drained subscriber's queue is not given.
pub async fn drive(
    function: &Function,
    subscription: Subscription,
    only_shard: Option<&str>,
) -> Result<(), Error> {
    let subscription = &subscription;
    let drain = match subscription.intake {
        Intake::Pushed => None,
        Intake::Drained => {
            let client = aws_sdk_sqs::Client::new(&function.aws);
            Some(Drain::new(client, &function.settings)?)
        }
    };
    let drain = &drain;
    serve(|event| async move {
        let begun = Instant::now();
        if event["detail-type"] == "Scheduled Event" {
            return minute(subscription, drain.as_ref(), begun).await;
        }
        let name = subscription.name;
        let invocation = Invocation::read(event, only_shard)?;
        let verdicts = isolated(&*subscription.subscriber, invocation.messages()).await;
        for (message, verdict) in invocation.messages().iter().zip(&verdicts) {
            if let Err(why) = verdict {
                tracing::warn!(subscriber = name, id = message.id, %why, "delivery failed");
            }
        }
        let failed = verdicts.iter().filter(|verdict| verdict.is_err()).count();
        let took_ms = millis(begun);
        tracing::info!(subscriber = name, messages = verdicts.len(), failed, took_ms, "batch");
        invocation.answer(&verdicts)
    })
    .await
}

async fn minute(subscription: &Subscription, drain: Option<&Drain>, begun: Instant) -> Result<Value, Error> {
    let failed = |why: Retry| Error::from(why.to_string());
    if let Some(drain) = drain {
        let drained = drain.drain(subscription).await.map_err(failed)?;
        if drained.messages > 0 {
            let Drained { messages, failed, paused } = drained;
            let took_ms = millis(begun);
            tracing::info!(subscriber = subscription.name, messages, failed, paused, took_ms, "drained");
        }
    }
    if subscription.every_minute {
        subscription.subscriber.tick().await.map_err(failed)?;
    }
    Ok(Value::Null)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
