use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{MILLION, Prices, Units, dollars};
use crate::show::table;

/// What a subscriber, or who watches, uses beside what a sale uses on its way.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscriber {
    pub name: String,
    /// What `for_each` is for: every sale, or those of a kind.
    pub each: String,
    pub for_each: Units,
    /// Whether anything comes or not.
    pub a_month: Units,
    /// As much again for each shop.
    #[serde(default)]
    pub a_shop_month: Units,
    /// Secrets kept for it.
    pub secrets: u64,
}

/// What AWS asks for it.
#[derive(Debug, Clone, Serialize)]
pub struct Added {
    pub subscriber: String,
    pub each: String,
    /// Dollars for a million of these.
    pub per_million: Decimal,
    /// Dollars a month besides.
    pub per_month: Decimal,
}

impl Added {
    #[must_use]
    pub fn of(subscriber: &Subscriber, prices: &Prices, shops: u64) -> Self {
        let Subscriber { name, each, for_each, a_month, a_shop_month, secrets } = subscriber;
        let each_shop = price(a_shop_month, prices) * Decimal::from(shops);
        Self {
            subscriber: name.clone(),
            each: each.clone(),
            per_million: price(for_each, prices) * Decimal::from(MILLION),
            per_month: price(a_month, prices) + each_shop + prices.secrets.of((*secrets).into()),
        }
    }
}

/// Dollars for these units, once.
fn price(units: &Units, prices: &Prices) -> Decimal {
    [
        (&prices.lambda_invocations, units.lambda_invocations),
        (&prices.lambda_gb_seconds, units.lambda_gb_seconds),
        (&prices.sns_publishes, units.sns_publishes),
        (&prices.sqs_requests, units.sqs_requests),
        (&prices.kms_requests, units.kms_requests),
        (&prices.dynamodb_wru, units.dynamodb_wru),
        (&prices.dynamodb_rru, units.dynamodb_rru),
        (&prices.log_bytes, units.log_bytes),
        (&prices.sent_bytes, units.sent_bytes),
    ]
    .into_iter()
    .map(|(price, units)| price.of(units))
    .sum()
}

/// All of them as a table.
#[must_use]
pub fn render(added: &[Added]) -> String {
    let mut rows =
        table(["function", "adds for each", "$ per million of these", "$ per month besides"]).right([2, 3]);
    for Added { subscriber, each, per_million, per_month } in added {
        rows.add_row([subscriber.clone(), each.clone(), dollars(*per_million), dollars(*per_month)]);
    }
    format!("{rows}\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{decimal, one_of_each, prices};
    use super::*;

    #[test]
    fn a_subscriber_costs_what_it_uses_and_its_secrets() {
        let subscriber = Subscriber {
            name: "one".into(),
            each: "sale".into(),
            for_each: one_of_each(),
            a_month: Units { lambda_invocations: decimal("43200"), ..Units::default() },
            a_shop_month: Units { dynamodb_rru: decimal("8000000"), ..Units::default() },
            secrets: 2,
        };
        let added = Added::of(&subscriber, &prices(), 3);
        // As a sale's, without the request at the door, and with a gigabyte sent.
        assert_eq!(added.per_million, decimal("18.7734"));
        assert_eq!(added.per_month, decimal("3.80864"));
    }

    #[test]
    fn each_subscriber_has_its_figures() {
        let file: super::super::File = toml::from_str(super::super::SHIPPED).unwrap();
        let measured: Vec<_> = file.measured.subscribers.iter().map(|s| s.name.as_str()).collect();
        let all: Vec<_> = kassa_subscribers::all().iter().map(|entry| entry.name).collect();
        assert_eq!(measured, all);
    }
}
