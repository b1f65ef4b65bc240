use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_secretsmanager::error::SdkError;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;

use super::Function;
use crate::attention::Attention;
use crate::clock::Clock;
use crate::documents::Documents;
use crate::host::Host;
use crate::keys::ShopKeys;
use crate::kms::KmsKeys;
use crate::metrics::Metrics;
use crate::notify::{Notifier, SmsSender, SnsNotifier};
use crate::registry::Registry;
use crate::secrets::{SecretText, Secrets};
use crate::settings::{SettingError, Settings};
use crate::subscriber::Retry;
use crate::wake::{SqsWakes, Wakes};

/// A function as a subscriber sees it: everything is where `deploy.yml` says.
pub struct LambdaHost(pub Function);

impl LambdaHost {
    fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.0.aws)
    }
}

impl Host for LambdaHost {
    fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    fn metrics(&self) -> Metrics {
        self.0.metrics.clone()
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn documents(&self, _: &'static str) -> Result<Documents, SettingError> {
        // A function has one subscriber, and its table.
        Ok(Documents::new(self.dynamodb(), self.settings().table("TABLE")?, self.clock()))
    }

    fn registry(&self) -> Result<Registry, SettingError> {
        Ok(Registry::new(self.dynamodb(), self.settings().table("SHOPS_TABLE")?))
    }

    fn attention(&self) -> Result<Attention, SettingError> {
        Ok(Attention::new(self.dynamodb(), self.settings().table("SHOPS_TABLE")?))
    }

    fn keys(&self) -> Result<Arc<dyn ShopKeys>, SettingError> {
        let client = aws_sdk_kms::Client::new(&self.0.aws);
        Ok(Arc::new(KmsKeys::new(client, self.settings().key_prefix("KEY_PREFIX")?)))
    }

    fn notifier(&self) -> Result<Arc<dyn Notifier>, SettingError> {
        let client = aws_sdk_sns::Client::new(&self.0.aws);
        // Not all who tell ICT text managers.
        let or = |name, default: &str| self.settings().optional(name).unwrap_or(default).to_owned();
        let sms = SmsSender { id: or("SMS_SENDER", "Kassa"), max_price: or("SMS_MAX_PRICE", "0.50") };
        Ok(Arc::new(SnsNotifier::new(client, self.settings().topic("ALERTS_TOPIC")?, sms)))
    }

    fn wakes(&self, _: &'static str) -> Result<Arc<dyn Wakes>, SettingError> {
        let client = aws_sdk_sqs::Client::new(&self.0.aws);
        Ok(Arc::new(SqsWakes::new(client, self.settings().text("QUEUE_URL")?)))
    }

    fn secrets(&self) -> Result<Arc<dyn Secrets>, SettingError> {
        let client = aws_sdk_secretsmanager::Client::new(&self.0.aws);
        Ok(Arc::new(SecretsManager { client, settings: self.settings().clone() }))
    }
}

/// Secrets Manager: the setting holds the secret's ARN, and the version before the current one stays live
/// until the next rotation
/// (<https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html>).
struct SecretsManager {
    client: aws_sdk_secretsmanager::Client,
    settings: Settings,
}

#[async_trait]
impl Secrets for SecretsManager {
    async fn live(&self, setting: &'static str) -> Result<Vec<SecretText>, Retry> {
        let arn = self.settings.text(setting)?;
        let mut live = Vec::new();
        for version in ["AWSCURRENT", "AWSPREVIOUS"] {
            match self.client.get_secret_value().secret_id(arn).version_stage(version).send().await {
                Ok(secret) => live.extend(secret.secret_string.map(SecretText::new)),
                // One that was never rotated has no version before the current one.
                Err(error) if version == "AWSPREVIOUS" && is_not_there(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(live)
    }
}

fn is_not_there(error: &SdkError<GetSecretValueError>) -> bool {
    error.as_service_error().is_some_and(GetSecretValueError::is_resource_not_found_exception)
}
