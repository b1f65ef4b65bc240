use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, Then};
use lambda_runtime::tower::{Layer, Service};
use lambda_runtime::{Error, LambdaInvocation};

use crate::trace::Tracer;

/// Exports an invocation's spans when its answer has been posted and before the next is asked for: the environment
/// is not frozen between the two, and whoever waits for the answer does not wait for the export.
#[derive(Clone)]
pub(super) struct Flushing(pub Tracer);

/// What is left of an invocation's time when an export must be over.
const MARGIN: Duration = Duration::from_millis(250);

impl<S> Layer<S> for Flushing {
    type Service = Flushed<S>;

    fn layer(&self, inner: S) -> Flushed<S> {
        Flushed { inner, tracer: self.0.clone() }
    }
}

pub(super) struct Flushed<S> {
    inner: S,
    tracer: Tracer,
}

/// What is done once the answer was posted, with what came of that.
type Afterwards = Box<dyn FnOnce(Result<(), Error>) -> BoxFuture<'static, Result<(), Error>>>;

impl<S> Service<LambdaInvocation> for Flushed<S>
where
    S: Service<LambdaInvocation, Response = (), Error = Error>,
{
    type Response = ();
    type Error = Error;
    type Future = Then<S::Future, BoxFuture<'static, Result<(), Error>>, Afterwards>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let deadline = invocation.context.deadline();
        let tracer = self.tracer.clone();
        let flush = move |posted| async move {
            let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
            tracer.invocation_ended(left.saturating_sub(MARGIN)).await;
            posted
        };
        self.inner.call(invocation).then(Box::new(|posted| flush(posted).boxed()))
    }
}
