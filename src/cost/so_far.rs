use rust_decimal::Decimal;

use super::{Bill, File, SHIPPED, Units};

/// What was used in some time, where it was counted: by AWS, or, requests to KMS, by ourselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub api_requests: Option<Decimal>,
    pub lambda_invocations: Option<Decimal>,
    pub lambda_gb_seconds: Option<Decimal>,
    pub kms_requests: Option<Decimal>,
    pub dynamodb_wru: Option<Decimal>,
    pub dynamodb_rru: Option<Decimal>,
}

/// Dollars for so many sales: what AWS has counted by what it counted, the rest by what a sealed sale uses as it was
/// measured. Without anything counted it is what `kassa cost` says of so many sales, and what subscribers use each
/// month whether or not anything comes.
///
/// `share` is how much of a month has passed, for what is paid by the month.
///
/// # Errors
/// What is wrong with the figures this was built with.
pub fn so_far(sales: u64, counted: &Counted, shops: u64, share: Decimal) -> Result<Decimal, String> {
    let File { prices, measured } =
        toml::from_str(SHIPPED).map_err(|error| format!("src/cost/cost.toml: {}", error.message()))?;
    let sold = Decimal::from(sales);
    let used = |of: fn(&Units) -> Decimal| {
        let each: Decimal = of(&measured.sealed) * sold;
        let besides: Decimal = measured.subscribers.iter().map(|s| of(&s.a_month)).sum::<Decimal>() * share;
        each + besides
    };
    let units = Units {
        api_requests: counted.api_requests.unwrap_or_else(|| used(|u| u.api_requests)),
        lambda_invocations: counted.lambda_invocations.unwrap_or_else(|| used(|u| u.lambda_invocations)),
        lambda_gb_seconds: counted.lambda_gb_seconds.unwrap_or_else(|| used(|u| u.lambda_gb_seconds)),
        dynamodb_wru: counted.dynamodb_wru.unwrap_or_else(|| used(|u| u.dynamodb_wru)),
        dynamodb_rru: counted.dynamodb_rru.unwrap_or_else(|| used(|u| u.dynamodb_rru)),
        sns_publishes: used(|u| u.sns_publishes),
        sqs_requests: used(|u| u.sqs_requests),
        kms_requests: counted.kms_requests.unwrap_or_else(|| used(|u| u.kms_requests)),
        log_bytes: used(|u| u.log_bytes),
        sent_bytes: used(|u| u.sent_bytes),
        stored_bytes: used(|u| u.stored_bytes),
    };
    let secrets: u64 = measured.subscribers.iter().map(|s| s.secrets).sum();
    // A bill of one sale that used all of it.
    let once = Bill::of(&units, &prices, 1, 0).per_month + prices.sent_bytes.of(units.sent_bytes);
    let a_month = prices.kms_keys.of(shops.into()) + prices.secrets.of(secrets.into());
    Ok((once + a_month * share).round_dp(6))
}

#[cfg(test)]
mod tests {
    use super::super::tests::decimal;
    use super::*;

    #[test]
    fn without_anything_counted_it_is_what_kassa_cost_says_of_so_many_sales() {
        let File { prices, measured } = toml::from_str(SHIPPED).unwrap();
        let said = Bill::of(&measured.sealed, &prices, 1_000_000, 0).per_month;
        let so_far = so_far(1_000_000, &Counted::default(), 0, Decimal::ZERO).unwrap();
        assert_eq!(so_far, said.round_dp(6));
    }

    #[test]
    fn a_shops_key_costs_its_share_of_a_dollar_a_month() {
        let half = decimal("0.5");
        let with = |shops| so_far(0, &Counted::default(), shops, half).unwrap();
        assert_eq!(with(40) - with(0), decimal("20"));
    }

    #[test]
    fn what_aws_has_counted_takes_the_place_of_what_was_measured() {
        let counted = Counted { dynamodb_wru: Some(decimal("2000000")), ..Counted::default() };
        let none = Counted { dynamodb_wru: Some(Decimal::ZERO), ..Counted::default() };
        let with = |counted| so_far(1_000, counted, 2, Decimal::ONE).unwrap();
        assert_eq!(with(&counted) - with(&none), decimal("1.25"));
    }
}
