//! How traces leave this machine: with the HTTP client of tills and webhook.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kassa_bus::SettingError;
use kassa_bus::trace::Collector;
use reqwest::redirect::Policy;
use reqwest::{Client, Request};

struct HttpCollector(Client);

/// Opens no connection.
///
/// # Errors
/// [`SettingError`] if the system has no certificates to trust.
pub fn connect(_: &str, timeout: Duration) -> Result<Arc<dyn Collector>, SettingError> {
    // Headers may hold the collector's key, which is nobody else's.
    let client = Client::builder().timeout(timeout).redirect(Policy::none()).no_proxy().build();
    let client = client.map_err(|_| SettingError::Wrong {
        name: "OTEL_EXPORTER_OTLP_ENDPOINT",
        what: "http, because the system's certificates cannot be read",
    })?;
    Ok(Arc::new(HttpCollector(client)))
}

#[async_trait]
impl Collector for HttpCollector {
    async fn post(&self, request: http::Request<Bytes>) -> Result<u16, Box<dyn Error + Send + Sync>> {
        let answer = self.0.execute(Request::try_from(request)?).await?;
        let status = answer.status().as_u16();
        answer.bytes().await?;
        Ok(status)
    }
}
