use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::error::BuildError;
use aws_sdk_sns::types::MessageAttributeValue;
use serde_json::json;

use super::{Alert, Notice, Notifier, Sms};
use crate::subscriber::Retry;

/// How text messages are sent (<https://docs.aws.amazon.com/sns/latest/dg/sms_publish-to-phone.html>).
#[derive(Debug, Clone)]
pub struct SmsSender {
    /// What a phone shows as the sender: 1 to 11 letters and digits.
    pub id: String,
    /// Dollars a message may cost, at most.
    pub max_price: String,
}

/// Phones directly, everybody else by the topic `alerts`.
pub struct SnsNotifier {
    client: Client,
    alerts: String,
    sms: SmsSender,
}

impl SnsNotifier {
    /// `alerts` is the topic's ARN.
    #[must_use]
    pub fn new(client: Client, alerts: impl Into<String>, sms: SmsSender) -> Self {
        Self { client, alerts: alerts.into(), sms }
    }

    async fn text(&self, sms: &Sms) -> Result<(), Retry> {
        let request = self
            .client
            .publish()
            .phone_number(&sms.to)
            .message(&sms.text)
            .message_attributes("AWS.SNS.SMS.SenderID", attribute("String", &self.sms.id)?)
            // Sent even to those who want no advertisements, and at once.
            .message_attributes("AWS.SNS.SMS.SMSType", attribute("String", "Transactional")?)
            .message_attributes("AWS.SNS.SMS.MaxPrice", attribute("Number", &self.sms.max_price)?);
        request.send().await?;
        Ok(())
    }

    async fn alert(&self, alert: &Alert) -> Result<(), Retry> {
        // http subscriptions take what https ones take.
        let mut texts = json!(alert.texts);
        texts["http"] = texts["https"].clone();
        let mut request = self
            .client
            .publish()
            .topic_arn(&self.alerts)
            .subject(&alert.subject)
            .message(texts.to_string())
            .message_structure("json")
            .message_attributes("reason", attribute("String", &alert.reason)?)
            .message_attributes("severity", attribute("String", alert.severity.as_str())?);
        if let Some(shop) = &alert.shop_id {
            request = request.message_attributes("shop_id", attribute("String", shop.as_str())?);
        }
        request.send().await?;
        Ok(())
    }
}

fn attribute(kind: &str, value: &str) -> Result<MessageAttributeValue, BuildError> {
    MessageAttributeValue::builder().data_type(kind).string_value(value).build()
}

#[async_trait]
impl Notifier for SnsNotifier {
    async fn send(&self, notice: &Notice) -> Result<(), Retry> {
        match notice {
            Notice::Sms(sms) => self.text(sms).await,
            Notice::Alert(alert) => self.alert(alert).await,
        }
    }
}
