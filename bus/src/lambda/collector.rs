use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use http::Request;

use crate::settings::SettingError;
use crate::trace::Collector;

/// AWS's HTTP client, which a function has anyway, with the system's roots: whoever collects traces may be anybody.
struct SdkCollector(Connector);

/// # Errors
/// [`SettingError`] if the system has no certificates to trust.
pub(super) fn connect(url: &str, timeout: Duration) -> Result<Arc<dyn Collector>, SettingError> {
    // The system's roots take milliseconds to read, which only TLS is worth.
    let roots = if url.starts_with("https") { TrustStore::default() } else { TrustStore::empty() };
    let tls = TlsContext::builder().with_trust_store(roots).build().map_err(|_| SettingError::Wrong {
        name: "OTEL_EXPORTER_OTLP_ENDPOINT",
        what: "http, because the system's certificates cannot be read",
    })?;
    let settings = HttpConnectorSettings::builder().connect_timeout(timeout).read_timeout(timeout).build();
    let connector = Connector::builder()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .connector_settings(settings)
        .build();
    Ok(Arc::new(SdkCollector(connector)))
}

#[async_trait]
impl Collector for SdkCollector {
    async fn post(&self, request: Request<Bytes>) -> Result<u16, Box<dyn Error + Send + Sync>> {
        let mut response = self.0.call(request.map(SdkBody::from).try_into()?).await?;
        ByteStream::new(response.take_body()).collect().await?;
        Ok(response.status().as_u16())
    }
}
