//! A Lambda function around a subscriber: how it starts, what it is invoked with, what it answers.

/// How a function reaches AWS.
mod aws;
/// Records of SQS, SNS and `DynamoDB` streams as messages, and verdicts as answers.
mod records;
/// A function's settings.
mod settings;

use std::future::Future;
use std::time::Instant;

use aws_types::SdkConfig;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use lambda_runtime::Error;
use records::Invocation;
pub use settings::{SettingError, Settings};

use crate::subscriber::{Subscription, isolated};
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
/// SNS directly.
///
/// `only_shard` names the stream's shard where the event does not, which is right only if the stream
/// has no more than one.
///
/// # Errors
/// As [`serve`].
pub async fn drive(subscription: Subscription, only_shard: Option<&str>) -> Result<(), Error> {
    let Subscription { name, subscriber, .. } = &subscription;
    serve(|event| async move {
        let begun = Instant::now();
        let invocation = Invocation::read(event, only_shard)?;
        let verdicts = isolated(&**subscriber, invocation.messages()).await;
        for (message, verdict) in invocation.messages().iter().zip(&verdicts) {
            if let Err(why) = verdict {
                tracing::warn!(subscriber = name, id = message.id, %why, "delivery failed");
            }
        }
        let failed = verdicts.iter().filter(|verdict| verdict.is_err()).count();
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(subscriber = name, messages = verdicts.len(), failed, took_ms, "batch");
        invocation.answer(&verdicts)
    })
    .await
}
