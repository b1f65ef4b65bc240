use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;

use super::Console;

/// Browsers that are told at once. Each holds a connection, of which tills need some; others look again by themselves.
pub(super) const TOLD: usize = 128;

/// However fast sales come, a browser is told no more often.
const PACE: Duration = Duration::from_millis(400);

/// Tells a browser each time that there is something new (Server-Sent Events, as HTML has them). What it is, it
/// fetches itself.
pub(super) async fn stream(State(console): State<Arc<Console>>) -> Response {
    let Ok(place) = Arc::clone(&console.told).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "15")]).into_response();
    };
    let mut changes = console.sight.feed.changes();
    // Whatever came between the page and this is news as well.
    changes.mark_changed();
    let events = unfold((changes, place), |(mut changes, place)| async {
        changes.changed().await.ok()?;
        let change = *changes.borrow_and_update();
        if change.closed {
            return None;
        }
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            _ = changes.wait_for(|change| change.closed) => return None,
        }
        let number = changes.borrow_and_update().number;
        let event = Event::default().event("changed").data(number.to_string());
        Some((Ok::<_, Infallible>(event), (changes, place)))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
