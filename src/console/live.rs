use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream::unfold;

use super::Console;

/// However fast sales come, a browser is told no more often.
const PACE: Duration = Duration::from_millis(400);

/// Tells a browser each time that there is something new (Server-Sent Events, as HTML has them). What it is, it
/// fetches itself.
pub(super) async fn stream(
    State(console): State<Arc<Console>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changes = console.sight.feed.changes();
    // Whatever came between the page and this is news as well.
    changes.mark_changed();
    let events = unfold(changes, |mut changes| async {
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
        Some((Ok(Event::default().event("changed").data(number.to_string())), changes))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
