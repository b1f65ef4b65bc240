//! A Lambda function around a subscriber: how it starts, what it is invoked with, what it answers.

/// How a function reaches AWS.
mod aws;
/// How a function posts traces.
mod collector;
/// A queue that its own function empties.
mod drain;
/// The end of an invocation, when spans are exported.
mod flush;
/// What a subscriber may ask of its function.
mod host;
/// Records of SQS, SNS and `DynamoDB` streams as messages, and verdicts as answers.
mod records;

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use flush::Flushing;
use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::{Map, Value};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use drain::{Drain, Drained};
pub use host::LambdaHost;
pub use lambda_runtime::Error;
use records::Invocation;

use crate::clock::Clock;
use crate::metrics::{self, Dimension, Metric, Metrics};
use crate::settings::{SettingError, Settings};
use crate::subscriber::{Retry, Subscription, dealt_with, traced};
use crate::telemetry;
use crate::trace::{self, Call, Tracer, Xray};

/// What a function is made of, before its first event.
pub struct Function {
    pub settings: Settings,
    /// What clients are made from. Making them opens no connection.
    pub aws: SdkConfig,
    pub clock: Clock,
    pub metrics: Metrics,
    pub tracer: Tracer,
    /// The metrics' namespace.
    namespace: String,
}

/// What an invocation ends with: its answer, and what its line in the log says.
pub struct Outcome {
    pub answer: Result<Value, Error>,
    pub about: Map<String, Value>,
}

impl Function {
    /// Reads the settings and starts logging: JSON lines on stdout, at the level that `RUST_LOG` says, or else Lambda's
    /// own setting, which can be changed without a deployment
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>).
    ///
    /// # Errors
    /// Names the variable that is missing or wrong.
    pub fn start() -> Result<Self, Error> {
        let settings = Settings::from_env();
        let level = ["RUST_LOG", "AWS_LAMBDA_LOG_LEVEL"].into_iter().find_map(|name| settings.optional(name));
        let level = level.unwrap_or("info");
        let filter = telemetry::filter(level).map_err(|_| SettingError::Wrong {
            name: "RUST_LOG",
            what: "log levels, as info or kassa=debug",
        })?;
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
        tracing_subscriber::registry().with(lines.with_span_list(false).with_filter(filter)).init();
        let aws = aws::config(&settings)?;
        let namespace = settings.text("METRICS_NAMESPACE")?.to_owned();
        let clock = Clock::system();
        let tracer =
            Tracer::new(&settings, resource(&settings, &namespace), clock.clone(), collector::connect)?;
        Ok(Self { settings, aws, clock, metrics: Metrics::default(), tracer, namespace })
    }

    /// Writes an invocation's line: what it says of itself, and what was counted and measured in it.
    fn tell(&self, mut about: Map<String, Value>, took: Duration) {
        if tracing::enabled!(tracing::Level::INFO) {
            about.insert("took_ms".to_owned(), millis(took).into());
        } else {
            about.clear();
        }
        let lines = metrics::lines(&self.namespace, self.clock.now(), self.metrics.take(), &about);
        let mut out = std::io::stdout().lock();
        for line in lines {
            // Nobody could be told that the log cannot be written.
            let _ = writeln!(out, "{line}");
        }
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
            let _ = writeln!(std::io::stderr(), "the function does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers events until Lambda ends the process.
///
/// # Errors
/// If Lambda cannot be reached, which ends the process.
pub async fn serve<F, Fut>(function: &Function, answer: F) -> Result<(), Error>
where
    F: Fn(Value, Call) -> Fut,
    Fut: Future<Output = Outcome>,
{
    let answer = &answer;
    let cold = AtomicBool::new(true);
    let cold = &cold;
    // The event is taken as it is: one that is not in its form must reach whoever can tell.
    // Boxed: the whole of a stage in one future is deeper than the compiler will lay out.
    let invoked = |event: LambdaEvent<Value>| {
        Box::pin(async move {
            let begun = Instant::now();
            let LambdaEvent { payload, context } = event;
            let xray = context.xray_trace_id.filter(|_| function.tracer.is_on());
            let xray = xray.as_deref().and_then(Xray::read);
            let call = Call { id: context.request_id, cold: cold.swap(false, Ordering::Relaxed), xray };
            let Outcome { answer, about } = answer(payload, call).await;
            function.tell(about, begun.elapsed());
            answer
        })
    };
    Runtime::new(service_fn(invoked)).layer(Flushing(function.tracer.clone())).run().await
}

/// Drives a subscriber with what its function is invoked with: batches of a queue, of a stream, or
/// SNS directly; or the minute, upon which what is due by time is done.
///
/// `only_shard` names the stream's shard where the event does not, which is right only if the stream
/// has no more than one.
///
/// # Errors
/// As [`serve`].
pub async fn drive(
    function: &Function,
    subscription: Subscription,
    only_shard: Option<&str>,
) -> Result<(), Error> {
    let subscription = &subscription;
    serve(function, |event, call| async move {
        let mut about = Map::new();
        let answer = if is_the_minute(&event) {
            within_the_minute(function, subscription, &call, tick(subscription)).await
        } else {
            batch(function, subscription, event, only_shard, &call, &mut about).await
        };
        Outcome { answer, about }
    })
    .await
}

/// Drives a subscriber whose queue its own function empties: once a minute, before what is due by time is done. Apart from
/// [`drive`], so that who is pushed to does not carry SQS's client.
///
/// # Errors
/// As [`serve`], and [`SettingError`] if the queue is not given.
pub async fn drain(function: &Function, subscription: Subscription) -> Result<(), Error> {
    let drain = &Drain::new(aws_sdk_sqs::Client::new(&function.aws), &function.settings)?;
    let subscription = &subscription;
    serve(function, |event, call| async move {
        let mut about = Map::new();
        let answer = if is_the_minute(&event) {
            let drained = async {
                let drained = drain.drain(function, subscription).await?;
                about = told(&drained);
                tick(subscription).await
            };
            within_the_minute(function, subscription, &call, drained).await
        } else {
            Err("the queue of this function is emptied once a minute, not pushed".into())
        };
        Outcome { answer, about }
    })
    .await
}

fn is_the_minute(event: &Value) -> bool {
    event["detail-type"] == "Scheduled Event"
}

async fn within_the_minute(
    function: &Function,
    subscription: &Subscription,
    call: &Call,
    done: impl Future<Output = Result<(), Retry>>,
) -> Result<Value, Error> {
    let span = trace::minute(&function.tracer, subscription.name, Some(call));
    let done = span.within(done).await;
    span.ends("minute", done).map(|()| Value::Null).map_err(|why| why.to_string().into())
}

async fn tick(subscription: &Subscription) -> Result<(), Retry> {
    if subscription.every_minute { subscription.subscriber.tick().await } else { Ok(()) }
}

fn told(Drained { messages, failed, paused }: &Drained) -> Map<String, Value> {
    [("messages", (*messages).into()), ("failures", (*failed).into()), ("paused", (*paused).into())]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

async fn batch(
    function: &Function,
    subscription: &Subscription,
    event: Value,
    only_shard: Option<&str>,
    call: &Call,
    about: &mut Map<String, Value>,
) -> Result<Value, Error> {
    let Function { metrics, clock, tracer, .. } = function;
    let invocation = Invocation::read(event, only_shard)?;
    let labels = &[(Dimension::Function, subscription.name)];
    metrics.count_of(Metric::Redelivered, labels, invocation.redelivered());
    let verdicts = traced(tracer, SYSTEM, subscription, invocation.messages(), Some(call)).await;
    dealt_with(metrics, subscription.name, clock.now(), invocation.messages(), &verdicts);
    about.insert("messages".to_owned(), verdicts.len().into());
    match verdicts.iter().filter(|verdict| verdict.is_err()).count() {
        0 => {}
        failed => _ = about.insert("failures".to_owned(), failed.into()),
    }
    invocation.answer(&verdicts)
}

/// What brings messages to a function, in `OpenTelemetry`'s words.
const SYSTEM: &str = "aws_sqs";

/// Who makes a function's spans (<https://opentelemetry.io/docs/specs/semconv/resource/faas/>).
fn resource(settings: &Settings, namespace: &str) -> Vec<(&'static str, String)> {
    let set = |name: &'static str, variable| Some((name, settings.optional(variable)?.to_owned()));
    let known = [
        set("service.name", "AWS_LAMBDA_FUNCTION_NAME"),
        set("faas.name", "AWS_LAMBDA_FUNCTION_NAME"),
        set("faas.version", "AWS_LAMBDA_FUNCTION_VERSION"),
        set("faas.instance", "AWS_LAMBDA_LOG_STREAM_NAME"),
        set("cloud.region", "AWS_REGION"),
        Some(("cloud.provider", "aws".to_owned())),
        Some(("cloud.platform", "aws_lambda".to_owned())),
        Some(("service.namespace", namespace.to_owned())),
    ];
    known.into_iter().flatten().collect()
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
