//! The warehouse of all rounds, and the road to it, on which deliveries meet faults.

use jiff::Timestamp;
use tokio_postgres::Client;

use crate::common::postgres::Postgres;
use crate::common::road::{Receiving, Road};
use crate::common::warehouse::{delivery, sales};

pub struct Depot {
    receiver: Receiving,
    pub road: Road,
    pub client: Client,
    postgres: Postgres,
}

impl Depot {
    pub async fn opens() -> Self {
        let postgres = Postgres::start();
        let receiver = Receiving::start(&postgres.url());
        let road = Road::to(&receiver.url).await;
        let client = postgres.client().await;
        // It makes its tables when it first takes something.
        let first = delivery(&reqwest::Client::new(), &receiver.url, &sales(0..1), Timestamp::now());
        assert!(first.send().await.unwrap().status().is_success());
        let depot = Self { receiver, road, client, postgres };
        depot.empties().await;
        depot
    }

    pub async fn empties(&self) {
        self.client.batch_execute("truncate fact_sale_line").await.unwrap();
    }

    /// `kill -9`, and started again.
    pub fn is_killed(&mut self) {
        self.receiver.kill();
        self.receiver = tokio::task::block_in_place(|| Receiving::start(&self.postgres.url()));
        self.road.leads_to(&self.receiver.url);
    }
}
