/// What was spent up to now.
mod so_far;
/// What watch, reconcile and the subscribers add to it.
mod subscribers;

use clap::Args;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};
use serde_json::json;
pub use so_far::{Counted, so_far};
use subscribers::{Added, Subscriber};

use crate::show::table;
use crate::till::Format;

/// Measured units and list prices, with their dates.
const SHIPPED: &str = include_str!("cost.toml");

const MILLION: u64 = 1_000_000;

#[derive(Debug, Args)]
#[command(
    after_help = "Units per sale were measured, prices are AWS's list prices on demand; both say when. Free tiers
and discounts are left out. Sales are kept for good, so the two storage lines, which are what a
month's sales cost to keep for a month, grow by as much every month.

Examples:
  kassa cost
  kassa cost --sales-per-month 30000000 --shops 400
  kassa cost --format classic --json"
)]
pub struct CostArgs {
    /// Sales of all shops together
    #[arg(long, default_value_t = MILLION, value_name = "NUMBER")]
    sales_per_month: u64,
    /// Shops, each with a key of its own
    #[arg(long, default_value_t = 2, value_name = "NUMBER")]
    shops: u64,
    /// How tills encrypt: a classic sale asks for its shop's key each time
    #[arg(long, value_enum, default_value = "sealed")]
    format: Format,
    /// Print JSON, with exact decimals as text
    #[arg(long)]
    json: bool,
}

/// What AWS would ask, as text to print.
///
/// # Errors
/// What is wrong with the figures this was built with.
pub fn run(args: &CostArgs) -> Result<String, String> {
    let File { prices, measured } =
        toml::from_str(SHIPPED).map_err(|error| format!("src/cost/cost.toml: {}", error.message()))?;
    let units = match args.format {
        Format::Sealed => &measured.sealed,
        Format::Classic => &measured.classic,
    };
    let bill = Bill::of(units, &prices, args.sales_per_month, args.shops);
    let besides = [&measured.watch, &measured.reconcile].into_iter().chain(&measured.subscribers);
    let added: Vec<Added> = besides.map(|of| Added::of(of, &prices, args.shops)).collect();
    if args.json {
        let origin = json!({"date": measured.date, "how": measured.how});
        let list = json!({"date": prices.date, "region": prices.region});
        return Ok(format!(
            "{}\n",
            json!({"measured": origin, "prices": list, "bill": bill, "subscribers": added})
        ));
    }
    let Prices { date, region, .. } = &prices;
    let Measured { date: when, how, .. } = &measured;
    let added = subscribers::render(&added);
    Ok(format!("{}{added}Prices: {region}, {date}. Units: {when}, {how}.\n", render(&bill)))
}

/// `cost.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prices: Prices,
    measured: Measured,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    date: String,
    how: String,
    sealed: Units,
    classic: Units,
    watch: Subscriber,
    reconcile: Subscriber,
    subscribers: Vec<Subscriber>,
}

/// What a sale uses, on average.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Units {
    pub api_requests: Decimal,
    pub lambda_invocations: Decimal,
    pub lambda_gb_seconds: Decimal,
    pub sns_publishes: Decimal,
    pub sqs_requests: Decimal,
    pub kms_requests: Decimal,
    pub dynamodb_wru: Decimal,
    pub dynamodb_rru: Decimal,
    pub log_bytes: Decimal,
    /// What is sent out of AWS.
    pub sent_bytes: Decimal,
    /// What its events take in the table, for good.
    pub stored_bytes: Decimal,
}

/// List prices on demand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub date: String,
    pub region: String,
    pub api_requests: Price,
    pub lambda_invocations: Price,
    pub lambda_gb_seconds: Price,
    pub sns_publishes: Price,
    pub sqs_requests: Price,
    pub kms_requests: Price,
    pub kms_keys: Price,
    pub dynamodb_wru: Price,
    pub dynamodb_rru: Price,
    pub storage: Price,
    pub recovery: Price,
    pub log_bytes: Price,
    pub sent_bytes: Price,
    pub secrets: Price,
}

/// Dollars for so many units.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub dollars: Decimal,
    pub per: u64,
    pub unit: String,
    /// The page that says so.
    pub source: String,
}

impl Price {
    fn of(&self, units: Decimal) -> Decimal {
        // The division comes last, because it may not come out even.
        units * self.dollars / Decimal::from(self.per)
    }
}

/// What AWS asks for one thing.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub what: &'static str,
    /// None if it does not depend on the number of sales.
    pub units_per_sale: Option<Decimal>,
    pub price: Price,
    /// Dollars a million sales cost once; none if it is paid by the month.
    pub per_million: Option<Decimal>,
    /// Dollars of the first month.
    pub per_month: Decimal,
}

/// What AWS asks for it all.
#[derive(Debug, Clone, Serialize)]
pub struct Bill {
    pub sales_per_month: u64,
    pub shops: u64,
    pub lines: Vec<Line>,
    pub per_million: Decimal,
    pub per_month: Decimal,
}

impl Bill {
    #[must_use]
    pub fn of(units: &Units, prices: &Prices, sales_per_month: u64, shops: u64) -> Self {
        let sales = Decimal::from(sales_per_month);
        let used = |what, units: Decimal, price: &Price| Line {
            what,
            units_per_sale: Some(units),
            price: price.clone(),
            per_million: Some(price.of(units * Decimal::from(MILLION))),
            per_month: price.of(units * sales),
        };
        let kept = |what, price| Line { per_million: None, ..used(what, units.stored_bytes, price) };
        let keys = Line {
            what: "KMS keys, one a shop",
            units_per_sale: None,
            price: prices.kms_keys.clone(),
            per_million: None,
            per_month: prices.kms_keys.of(shops.into()),
        };
        let lines = vec![
            used("API Gateway requests", units.api_requests, &prices.api_requests),
            used("Lambda invocations", units.lambda_invocations, &prices.lambda_invocations),
            used("Lambda time", units.lambda_gb_seconds, &prices.lambda_gb_seconds),
            used("SNS publishes", units.sns_publishes, &prices.sns_publishes),
            used("SQS requests", units.sqs_requests, &prices.sqs_requests),
            used("KMS requests", units.kms_requests, &prices.kms_requests),
            used("DynamoDB writes", units.dynamodb_wru, &prices.dynamodb_wru),
            used("DynamoDB reads", units.dynamodb_rru, &prices.dynamodb_rru),
            used("Logs", units.log_bytes, &prices.log_bytes),
            kept("DynamoDB storage", &prices.storage),
            kept("DynamoDB recovery", &prices.recovery),
            keys,
        ];
        let per_million = lines.iter().filter_map(|line| line.per_million).sum();
        let per_month = lines.iter().map(|line| line.per_month).sum();
        Self { sales_per_month, shops, lines, per_million, per_month }
    }
}

/// A bill as a table.
#[must_use]
pub fn render(bill: &Bill) -> String {
    let mut rows =
        table(["what", "per sale", "price", "$ per million sales", "$ per month"]).right([1, 3, 4]);
    for Line { what, units_per_sale, price, per_million, per_month } in &bill.lines {
        rows.add_row([
            (*what).to_owned(),
            units_per_sale.map_or(String::new(), |units| units_text(units, price)),
            price_text(price),
            per_million.map_or(String::new(), dollars),
            dollars(*per_month),
        ]);
    }
    let empty = String::new;
    rows.add_row(["total".into(), empty(), empty(), dollars(bill.per_million), dollars(bill.per_month)]);
    let Bill { sales_per_month, shops, .. } = bill;
    format!("{sales_per_month} sales a month, shops: {shops}\n{rows}\n")
}

/// Three decimals, so that what costs less than a cent does not look free.
fn dollars(dollars: Decimal) -> String {
    format!("{:.3}", dollars.round_dp_with_strategy(3, RoundingStrategy::MidpointAwayFromZero))
}

fn units_text(units: Decimal, price: &Price) -> String {
    let units = units.normalize();
    if price.unit.starts_with("byte") { format!("{units} B") } else { units.to_string() }
}

fn price_text(Price { dollars, per, unit, .. }: &Price) -> String {
    const GIGABYTE: u64 = 1 << 30;
    match (*per, unit.split_once("byte")) {
        (1, _) => format!("${dollars} a {unit}"),
        (GIGABYTE, Some(("", rest))) => format!("${dollars} a GB{rest}"),
        (MILLION, _) => format!("${dollars} a million {unit}s"),
        _ => format!("${dollars} per {per} {unit}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    pub fn prices() -> Prices {
        let mut file: toml::Table = SHIPPED.parse().unwrap();
        file.remove("prices").unwrap().try_into().unwrap()
    }

    /// One of everything, and a gigabyte of all that is counted in bytes for each million sales.
    pub fn one_of_each() -> Units {
        let (one, gigabyte) = (Decimal::ONE, decimal("1073.741824"));
        Units {
            api_requests: one,
            lambda_invocations: one,
            lambda_gb_seconds: one,
            sns_publishes: one,
            sqs_requests: one,
            kms_requests: one,
            dynamodb_wru: one,
            dynamodb_rru: one,
            log_bytes: gigabyte,
            sent_bytes: gigabyte,
            stored_bytes: gigabyte,
        }
    }

    fn per_million(bill: &Bill, what: &str) -> Decimal {
        bill.lines.iter().find(|line| line.what == what).unwrap().per_million.unwrap()
    }

    fn per_month(bill: &Bill, what: &str) -> Decimal {
        bill.lines.iter().find(|line| line.what == what).unwrap().per_month
    }

    #[test]
    fn a_million_of_each_costs_its_list_price() {
        let bill = Bill::of(&one_of_each(), &prices(), MILLION, 0);
        for (what, dollars) in [
            ("API Gateway requests", "1.00"),
            ("Lambda invocations", "0.20"),
            ("Lambda time", "13.3334"),
            ("SNS publishes", "0.50"),
            ("SQS requests", "0.40"),
            ("KMS requests", "3.00"),
            ("DynamoDB writes", "0.625"),
            ("DynamoDB reads", "0.125"),
            ("Logs", "0.50"),
        ] {
            assert_eq!(per_million(&bill, what), decimal(dollars), "{what}");
            assert_eq!(per_month(&bill, what), decimal(dollars), "{what}");
        }
        assert_eq!(per_month(&bill, "DynamoDB storage"), decimal("0.25"));
        assert_eq!(per_month(&bill, "DynamoDB recovery"), decimal("0.20"));
        assert_eq!(bill.per_million, decimal("19.6834"));
        assert_eq!(bill.per_month, decimal("20.1334"));
    }

    #[test]
    fn thirty_million_sales_cost_thirty_times_as_much_and_keys_what_the_shops_are() {
        let (one, thirty) = (
            Bill::of(&one_of_each(), &prices(), MILLION, 0),
            Bill::of(&one_of_each(), &prices(), 30 * MILLION, 7),
        );
        assert_eq!(thirty.per_million, one.per_million);
        assert_eq!(per_month(&thirty, "KMS keys, one a shop"), decimal("7"));
        assert_eq!(thirty.per_month, one.per_month * decimal("30") + decimal("7"));
    }

    #[test]
    fn a_part_of_a_unit_is_not_rounded() {
        // One request to KMS for a thousand sales: 1,000 requests a million, at 3 cents for 10,000.
        let units = Units { kms_requests: decimal("0.001"), ..one_of_each() };
        assert_eq!(per_million(&Bill::of(&units, &prices(), 1, 1), "KMS requests"), decimal("0.003"));
    }

    #[test]
    fn half_of_the_last_shown_decimal_is_rounded_up() {
        assert_eq!(dollars(decimal("0.0625")), "0.063");
        assert_eq!(dollars(decimal("7")), "7.000");
    }

    #[test]
    fn without_shops_or_sales_there_is_nothing_to_pay() {
        let bill = Bill::of(&one_of_each(), &prices(), 0, 0);
        assert_eq!(bill.per_month, Decimal::ZERO);
        assert_eq!(bill.per_million, decimal("19.6834"));
    }

    #[test]
    fn more_sales_than_there_can_be_do_not_overflow() {
        assert!(Bill::of(&one_of_each(), &prices(), u64::MAX, u64::MAX).per_month > Decimal::ZERO);
    }

    #[test]
    fn totals_are_the_sums_of_their_columns() {
        let bill = Bill::of(&one_of_each(), &prices(), 1_234_567, 89);
        let mut sums = (Decimal::ZERO, Decimal::ZERO);
        for line in &bill.lines {
            sums = (sums.0 + line.per_million.unwrap_or_default(), sums.1 + line.per_month);
        }
        assert_eq!(sums, (bill.per_million, bill.per_month));
    }

    #[test]
    fn the_table_shows_units_prices_and_totals() {
        let text = render(&Bill::of(&one_of_each(), &prices(), 2 * MILLION, 3));
        for shown in
            ["2000000 sales a month, shops: 3", "$0.50 a GB", "$0.03 per 10000 requests", "$1.00 a key-month"]
        {
            assert!(text.contains(shown), "{shown} in\n{text}");
        }
        let total = text.lines().last().unwrap();
        assert!(total.contains("19.683") && total.contains("43.267"), "{total}");
    }

    #[test]
    fn the_shipped_figures_can_be_read_and_a_classic_sale_pays_for_its_key() {
        let File { prices, measured } = toml::from_str(SHIPPED).unwrap();
        let [sealed, classic] =
            [measured.sealed, measured.classic].map(|units| Bill::of(&units, &prices, MILLION, 2));
        // Sealed sales of a till's session share one request, classic ones have one each.
        assert!(per_million(&sealed, "KMS requests") < decimal("0.1"));
        assert!(per_million(&classic, "KMS requests") >= decimal("3"));
        assert!(sealed.per_million < classic.per_million);
    }

    #[test]
    fn json_holds_exact_decimals_as_text() {
        let bill = json!(Bill::of(&one_of_each(), &prices(), MILLION, 2));
        assert_eq!(bill["lines"][2]["price"]["dollars"], "0.0000133334");
        assert_eq!(bill["lines"].as_array().unwrap().last().unwrap()["per_month"], "2.00");
    }
}
