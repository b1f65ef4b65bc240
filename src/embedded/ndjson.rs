//! Answers of many lines (NDJSON), over the operator's listener.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use futures::Stream;
use serde_json::Value;
use tokio::sync::mpsc;

/// NDJSON, written as it comes about. Whoever reads slowly slows the writer down, not the memory up.
pub(super) fn lines<F: Future<Output = ()> + Send + 'static>(
    write: impl FnOnce(mpsc::Sender<Value>) -> F,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(write(sender));
    let mut response = Response::new(Body::from_stream(stream(receiver)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn stream(receiver: mpsc::Receiver<Value>) -> impl Stream<Item = Result<String, Infallible>> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        Some((Ok(format!("{line}\n")), receiver))
    })
}

/// The same of what changes nothing, which ends where nobody reads it any more.
pub(super) fn lines_while_read<F: Future<Output = ()> + Send + 'static>(
    write: impl FnOnce(mpsc::Sender<Value>) -> F + Send + 'static,
) -> Response<Body> {
    lines(|line| async move {
        let left = line.clone();
        tokio::select! {
            () = write(line) => {}
            () = left.closed() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use tokio::sync::oneshot;

    /// Work that never ends, which says when it is given up.
    async fn endless(line: mpsc::Sender<Value>, _given_up: oneshot::Sender<()>) {
        let _ = line.send(Value::from(1)).await;
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn what_nobody_reads_any_more_is_given_up() {
        let (given_up, seen) = oneshot::channel();
        let answer = lines_while_read(|line| endless(line, given_up));
        let mut body = answer.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "1\n");
        // when its reader leaves
        drop(body);
        // then nobody works for it
        assert!(seen.await.is_err());
    }
}
