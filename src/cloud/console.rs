use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use kassa_bus::Clock;
use tokio::net::TcpListener;

use super::{Stage, StageError};
use crate::console::{Access, Feed, Sight, router};
use crate::listener;
use crate::monitor::kept::Kept;
use crate::questions::Questions;

/// How long metrics count as known, and alarms.
const METRICS: Duration = Duration::from_mins(1);
const ALARMS: Duration = Duration::from_secs(15);

/// How often the tables are asked for the latest sales, while somebody looks.
const FOLLOW: Duration = Duration::from_secs(5);

/// A deployed shop's console, served here.
pub struct StageConsole {
    /// Where it is, for whoever may look.
    pub address: String,
    feed: Arc<Feed>,
    questions: Arc<Questions>,
    clock: Clock,
    pages: Router,
}

impl StageConsole {
    /// For a console that listens on `address`; `reach` is what commands need to be told to ask the same shop.
    ///
    /// # Errors
    /// [`StageError`].
    pub async fn new(
        stage: &Stage,
        address: SocketAddr,
        clock: Clock,
        reach: String,
    ) -> Result<Self, StageError> {
        let questions = Arc::new(Questions::new(stage.books().await?));
        let (feed, access) = (Arc::<Feed>::default(), Access::on(address));
        let sight = Sight {
            questions: questions.clone(),
            monitor: Arc::new(Kept::new(stage.monitor()?, METRICS, ALARMS)),
            feed: feed.clone(),
            access: access.clone(),
            clock: clock.clone(),
            reach,
        };
        let address = access.address(&format!("http://{address}"));
        Ok(Self { address, feed, questions, clock, pages: router(sight) })
    }

    /// Serves it until then.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let Self { feed, questions, clock, pages, .. } = self;
        tokio::spawn(feed.clone().follow(questions, clock, FOLLOW));
        let closing = async move {
            until.await;
            // Whoever looks would be waited for.
            feed.close();
        };
        listener::serve(listener, None, pages, closing).await;
        Ok(())
    }
}
