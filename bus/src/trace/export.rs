use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;

use super::options::Options;
use crate::error::chain;
use crate::settings::SettingError;

/// An HTTP client for exports. Each program gives the one that it has anyway: a function AWS's, the command its own.
#[async_trait]
pub trait Collector: Send + Sync {
    /// Posts, reads the answer to its end, so that the connection serves the next export as well, and gives its status.
    /// Follows no redirect.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn post(&self, request: Request<Bytes>) -> Result<u16, Box<dyn Error + Send + Sync>>;
}

/// Makes the client for this URL, whose requests take so long at most. Opens no connection.
pub type Connect = fn(&str, Duration) -> Result<Arc<dyn Collector>, SettingError>;

/// Posts spans to whoever collects them: OTLP over HTTP in protobuf
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). Not with `opentelemetry-otlp`, whose clients bring another HTTP
/// stack or block, and which gives up what could not be sent.
pub(super) struct Exporter {
    collector: Arc<dyn Collector>,
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
    pub fn new(options: Options, connect: Connect) -> Result<Self, SettingError> {
        let Options { url, headers, timeout, resource, .. } = options;
        let collector = connect(&url, timeout)?;
        let exporter = Self { collector, resource: (&resource).into(), url, headers };
        exporter.request(Bytes::new()).ok_or(SettingError::Wrong {
            name: "OTEL_EXPORTER_OTLP_ENDPOINT",
            what: "a URL, and the headers ones that HTTP can carry",
        })?;
        Ok(exporter)
    }

    fn request(&self, body: Bytes) -> Option<Request<Bytes>> {
        let mut request = Request::post(self.url.as_str()).body(body).ok()?;
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/x-protobuf"));
        let agent = concat!("OTel-OTLP-Exporter-Kassa/", env!("CARGO_PKG_VERSION"));
        headers.insert("user-agent", HeaderValue::from_static(agent));
        for (name, value) in &self.headers {
            headers.insert(name.parse::<HeaderName>().ok()?, value.parse().ok()?);
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
        match self.collector.post(request).await {
            Ok(200..300) => Sent::Taken,
            Ok(status @ (429 | 502..=504)) => Sent::Failed(format!("it answered {status}")),
            Ok(status) => Sent::Refused(format!("it answered {status}")),
            Err(error) => Sent::Failed(chain(&*error)),
        }
    }
}
