use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::http::Request;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;

use super::options::Options;
use crate::error::chain;
use crate::settings::SettingError;

/// Posts spans to whoever collects them: OTLP over HTTP in protobuf
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). With AWS's HTTP client, because every program of ours has it, and
/// not with `opentelemetry-otlp`, whose clients bring another or block, and which gives up what could not be sent.
pub(super) struct Exporter {
    connector: SharedHttpConnector,
    resource: ResourceAttributesWithSchema,
    url: String,
    headers: Vec<(String, String)>,
}

/// What became of an export.
pub(super) enum Sent {
    Taken,
    /// The same would be refused again.
    Refused(String),
    /// It may work later.
    Failed(String),
}

impl Exporter {
    /// Opens no connection.
    ///
    /// # Errors
    /// [`SettingError`] if no request can be made of what was set.
    pub fn new(options: Options) -> Result<Self, SettingError> {
        let Options { url, headers, timeout, resource, .. } = options;
        // The system's roots take milliseconds to read, which only TLS is worth.
        let roots = if url.starts_with("https") { TrustStore::default() } else { TrustStore::empty() };
        let wrong = |what| SettingError::Wrong { name: "OTEL_EXPORTER_OTLP_ENDPOINT", what };
        let tls = TlsContext::builder().with_trust_store(roots).build();
        let tls = tls.map_err(|_| wrong("http, because the system's certificates cannot be read"))?;
        let connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .connector_settings(settings(timeout))
            .build();
        let exporter = Self {
            connector: SharedHttpConnector::new(connector),
            resource: (&resource).into(),
            url,
            headers,
        };
        exporter.request(Bytes::new()).ok_or(wrong("a URL, and the headers ones that HTTP can carry"))?;
        Ok(exporter)
    }

    fn request(&self, body: Bytes) -> Option<Request> {
        let mut request = Request::new(SdkBody::from(body));
        request.set_method("POST").ok()?;
        request.set_uri(self.url.as_str()).ok()?;
        let headers = request.headers_mut();
        headers.try_insert("content-type", "application/x-protobuf").ok()?;
        headers
            .try_insert("user-agent", concat!("OTel-OTLP-Exporter-Kassa/", env!("CARGO_PKG_VERSION")))
            .ok()?;
        for (name, value) in &self.headers {
            headers.try_insert(name.to_ascii_lowercase(), value.clone()).ok()?;
        }
        Some(request)
    }

    /// Spans as they are sent.
    pub fn encode(&self, spans: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    pub async fn send(&self, spans: Bytes) -> Sent {
        let Some(request) = self.request(spans) else {
            return Sent::Refused("it cannot be posted".to_owned());
        };
        let mut response = match self.connector.call(request).await {
            Ok(response) => response,
            Err(error) => return Sent::Failed(chain(&error)),
        };
        let status = response.status().as_u16();
        // Read to its end, the connection serves the next export as well.
        let _ = ByteStream::new(response.take_body()).collect().await;
        match status {
            200..300 => Sent::Taken,
            429 | 502..=504 => Sent::Failed(format!("it answered {status}")),
            _ => Sent::Refused(format!("it answered {status}")),
        }
    }
}

fn settings(timeout: Duration) -> HttpConnectorSettings {
    HttpConnectorSettings::builder().connect_timeout(timeout).read_timeout(timeout).build()
}
