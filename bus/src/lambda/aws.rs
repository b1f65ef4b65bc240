use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sns::config::retry::RetryConfig;
use aws_sdk_sns::config::timeout::TimeoutConfig;
use aws_sdk_sns::config::{BehaviorVersion, StalledStreamProtectionConfig};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_types::SdkConfig;
use aws_types::region::Region;

use crate::settings::{SettingError, Settings};

/// The roots that AWS's own endpoints are signed under (<https://www.amazontrust.com/repository/>).
/// Reading the system's store instead takes longer than everything else a function does at start.
const ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// No request of ours takes a second; one that does is better tried again than waited for.
const CONNECT: Duration = Duration::from_secs(1);
const ATTEMPT: Duration = Duration::from_secs(3);
const OPERATION: Duration = Duration::from_secs(8);

/// How a function reaches AWS: as the role Lambda gave it, in the region it runs in.
///
/// # Errors
/// [`SettingError`] if Lambda's own variables are not there.
pub(super) fn config(settings: &Settings) -> Result<SdkConfig, SettingError> {
    // Lambda renews credentials by starting a new environment, so these stay as they are.
    let credentials = Credentials::new(
        settings.text("AWS_ACCESS_KEY_ID")?,
        settings.text("AWS_SECRET_ACCESS_KEY")?,
        settings.optional("AWS_SESSION_TOKEN").map(str::to_owned),
        None,
        "Lambda",
    );
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(settings.text("AWS_REGION")?.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts)
        // Its watching of streams costs a task per request, and no answer here is a stream.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(http_client());
    // The emulator's; on AWS there is none.
    config.set_endpoint_url(settings.optional("AWS_ENDPOINT_URL").map(str::to_owned));
    Ok(config.build())
}

/// One connector for all clients: the SDK by itself would make one for each, and read the roots each time.
#[expect(clippy::expect_used, reason = "the roots are in the binary, and a test reads them")]
fn http_client() -> SharedHttpClient {
    let roots = TrustStore::empty().with_pem_certificate(ROOTS);
    let tls = TlsContext::builder().with_trust_store(roots).build().expect("five certificates");
    let connector = Connector::builder()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT).build())
        .build();
    let connector = SharedHttpConnector::new(connector);
    http_client_fn(move |_, _| connector.clone())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_embedded_roots_can_be_read() {
        super::http_client();
    }
}
