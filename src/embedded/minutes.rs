//! What subscribers do every minute, though no message came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kassa_bus::local::invoked;
use kassa_bus::{Metrics, Subscription, Tracer, trace};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Each subscriber does every minute what it has to.
pub(super) fn tick_every<'a>(
    minute: Duration,
    subscriptions: impl Iterator<Item = &'a Subscription>,
    metrics: &Metrics,
    tracer: &Tracer,
) -> JoinSet<()> {
    let tick = |subscription: &Subscription| {
        let (name, subscriber) = (subscription.name, Arc::clone(&subscription.subscriber));
        let (metrics, tracer) = (metrics.clone(), tracer.clone());
        async move {
            let mut minutes = tokio::time::interval(minute);
            minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                minutes.tick().await;
                let begun = Instant::now();
                let span = trace::minute(&tracer, name, None);
                let outcome = span.within(subscriber.tick()).await;
                let outcome = span.ends("minute", outcome);
                invoked(&metrics, name, begun.elapsed(), outcome.is_ok());
                if let Err(why) = outcome {
                    tracing::error!(subscriber = name, %why, "what is due this minute failed");
                }
            }
        }
    };
    subscriptions.map(tick).collect()
}
