use std::fmt;

/// Whose metric it is, and with that its namespace in `CloudWatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Namespace {
    /// Ours: `<service>-<stage>`, so that stages in one account stay apart.
    Kassa,
    /// AWS's own, which it publishes by itself. The shop on one machine says the same of itself under the same
    /// names, so that one dashboard and one alarm do for both.
    Aws(&'static str),
}

/// A unit as `CloudWatch` names it
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Milliseconds,
    Seconds,
    /// The shops' money, and whatever else has no unit there.
    None,
}

impl Unit {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Milliseconds => "Milliseconds",
            Self::Seconds => "Seconds",
            Self::None => "None",
        }
    }
}

/// What becomes of several values within one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They are added up.
    Sum,
    /// Each is kept: how long something took, or how much of something there is.
    Value,
}

/// What a metric is told apart by. Few values each: every combination is a metric to pay for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    Shop,
    /// Why a sale was rejected.
    Reason,
    /// Whose a wrong key is: `known`, `unknown` or `untold`.
    Class,
    /// A stage or a subscriber of ours.
    Function,
    /// AWS's: a function, `<service>-<stage>-<name>`.
    FunctionName,
    /// AWS's: a queue, `<service>-<stage>-<name>`.
    QueueName,
    /// AWS's: the API's id.
    ApiId,
    /// AWS's: a table, `<service>-<stage>-<name>`.
    TableName,
    /// AWS's: what is used, where use is counted against a quota.
    Service,
    Resource,
    Type,
    UsageClass,
}

impl Dimension {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shop => "shop_id",
            Self::Reason => "reason",
            Self::Class => "class",
            Self::Function => "function",
            Self::FunctionName => "FunctionName",
            Self::QueueName => "QueueName",
            Self::ApiId => "ApiId",
            Self::TableName => "TableName",
            Self::Service => "Service",
            Self::Resource => "Resource",
            Self::Type => "Type",
            Self::UsageClass => "Class",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! catalogue {
    ($($(#[doc = $meaning:literal])+ $variant:ident => $namespace:expr, $name:literal, $unit:ident, $kind:ident,
        [$([$($dimension:ident),*]),+];)+) => {
        /// Everything Kassa counts and measures, and what AWS counts for it: the one catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Metric { $($(#[doc = $meaning])+ $variant),+ }

        impl Metric {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            #[must_use]
            pub fn namespace(self) -> Namespace {
                match self { $(Self::$variant => $namespace),+ }
            }

            /// The metric's name wherever it is shown.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            #[must_use]
            pub fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit),+ }
            }

            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind),+ }
            }

            /// The sets of dimensions it is published under, each once; an empty set is the metric in all.
            #[must_use]
            pub fn dimensions(self) -> &'static [&'static [Dimension]] {
                match self { $(Self::$variant => &[$(&[$(Dimension::$dimension),*]),+]),+ }
            }

            /// What it says, in one line.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii()),+ }
            }
        }
    };
}

use Namespace::{Aws, Kassa};

catalogue! {
    /// Envelopes accepted for the first time.
    Accepted => Kassa, "accepted", Count, Sum, [[]];
    /// Requests refused: malformed, unknown shop, too large, too many.
    Refused => Kassa, "refused", Count, Sum, [[]];
    /// Repeats that changed nothing, at any stage.
    Duplicates => Kassa, "duplicates", Count, Sum, [[]];
    /// Sales recorded.
    Recorded => Kassa, "recorded", Count, Sum, [[], [Shop]];
    /// Sales rejected.
    Rejected => Kassa, "rejected", Count, Sum, [[], [Shop], [Reason]];
    /// Lines of recorded sales.
    Lines => Kassa, "lines", Count, Sum, [[], [Shop]];
    /// Recorded sales that were refunds.
    Refunds => Kassa, "refunds", Count, Sum, [[], [Shop]];
    /// From a sale's acceptance to its being recorded.
    Latency => Kassa, "latency", Milliseconds, Value, [[]];
    /// From a message's publication to its having been dealt with, by whoever dealt with it. The projection's is
    /// `projection_lag`.
    HopLatency => Kassa, "hop_latency", Milliseconds, Value, [[Function]];
    /// How far stock and turnover were behind what is recorded, when a batch was added to them.
    ProjectionLag => Kassa, "projection_lag", Milliseconds, Value, [[]];
    /// Recorded sales that reached the read models.
    Projected => Kassa, "projected", Count, Sum, [[]];
    /// Sales that a minute after their acceptance are neither recorded nor rejected.
    Pending => Kassa, "pending", Count, Value, [[]];
    /// How long the oldest pending sale has waited.
    PendingAge => Kassa, "pending_age", Seconds, Value, [[]];
    /// Envelopes that came to no end and were sent on their way again.
    Republished => Kassa, "republished", Count, Sum, [[], [Shop]];
    /// Sales that came to no end however often they were sent on their way again.
    GivenUp => Kassa, "given_up", Count, Value, [[]];
    /// Sales that a shop would have had since its last one while open, at the rate of the same weekday last week.
    OverdueSales => Kassa, "overdue_sales", Count, Value, [[], [Shop]];
    /// A shop's sales of its day so far.
    SalesToday => Kassa, "sales_today", Count, Value, [[Shop]];
    /// A shop's sales of the same weekday last week, the whole day.
    SalesLastWeek => Kassa, "sales_last_week", Count, Value, [[Shop]];
    /// A shop's turnover of its day so far. Nothing smaller is told as a metric: what one invocation recorded may be one
    /// sale, and metrics are lines in a log.
    TurnoverToday => Kassa, "turnover_today", None, Value, [[Shop]];
    /// A shop's turnover of the same weekday last week, the whole day.
    TurnoverLastWeek => Kassa, "turnover_last_week", None, Value, [[Shop]];
    /// Recorded lines of an item nobody declared.
    UnknownItems => Kassa, "unknown_items", Count, Sum, [[]];
    /// Recorded sales that no till signed, of shops that want these counted.
    UnsignedSales => Kassa, "unsigned_sales", Count, Sum, [[], [Shop]];
    /// Sales whose own time is more than a day ahead or a year behind the clock.
    SuspiciousClocks => Kassa, "suspicious_clocks", Count, Sum, [[], [Shop]];
    /// Recorded sales that are not booked on the day they say, because it is more than 48 hours ahead, or before 1970.
    Misdated => Kassa, "misdated", Count, Sum, [[], [Shop]];
    /// Sales for which a shop's private key was asked: for a till session's content key, or for a classic sale.
    KeyUnwraps => Kassa, "key_unwraps", Count, Sum, [[]];
    /// Content keys found in the cache.
    KeyCacheHits => Kassa, "key_cache_hits", Count, Sum, [[]];
    /// Messages that were not dealt with, and come again.
    Failed => Kassa, "failed", Count, Sum, [[Function]];
    /// Messages taken that had been taken before.
    Redelivered => Kassa, "redelivered", Count, Sum, [[Function]];
    /// Messages put to the dead letters by whoever took them.
    DeadLetters => Kassa, "dead_letters", Count, Sum, [[Function]];
    /// Events that no code here can read, left out of the read models.
    UnreadableEvents => Kassa, "unreadable_events", Count, Sum, [[]];
    /// Additions to rows of stock and turnover that the rows could not take, because they hold no numbers, or too large
    /// ones.
    SkippedPostings => Kassa, "skipped_postings", Count, Sum, [[]];
    /// Rows of the shops table that could not be read, as watch met them.
    UnreadableRows => Kassa, "unreadable_rows", Count, Value, [[]];
    /// Sales that came with a wrong key: another shop's or a retired one (known), one nobody here has (unknown), or
    /// one that could not be told (untold).
    WrongKeys => Kassa, "wrong_keys", Count, Sum, [[Class], [Shop, Class]];
    /// Incidents of which people were told.
    IncidentsOpened => Kassa, "incidents_opened", Count, Sum, [[]];
    /// Incidents that are over.
    IncidentsClosed => Kassa, "incidents_closed", Count, Sum, [[]];
    /// Incidents that are open.
    IncidentsOpen => Kassa, "incidents_open", Count, Value, [[]];
    /// Text messages sent.
    SmsSent => Kassa, "sms_sent", Count, Sum, [[], [Shop]];
    /// Text messages not sent because the shop's were used up.
    SmsOverBudget => Kassa, "sms_over_budget", Count, Sum, [[], [Shop]];
    /// Alerts published.
    AlertsSent => Kassa, "alerts_sent", Count, Sum, [[]];
    /// Sales the warehouse took.
    WebhookDelivered => Kassa, "webhook_delivered", Count, Sum, [[]];
    /// Deliveries the warehouse did not take, and may take later.
    WebhookFailed => Kassa, "webhook_failed", Count, Sum, [[]];
    /// Sales the warehouse refused.
    WebhookRefused => Kassa, "webhook_refused", Count, Sum, [[]];
    /// How long the oldest sale of a delivery has waited for the warehouse.
    WebhookAge => Kassa, "webhook_age", Seconds, Value, [[]];

    /// Calls of a function.
    Invocations => Aws("AWS/Lambda"), "Invocations", Count, Sum, [[FunctionName]];
    /// Calls that ended in an error.
    Errors => Aws("AWS/Lambda"), "Errors", Count, Sum, [[FunctionName]];
    /// Calls that were not let in.
    Throttles => Aws("AWS/Lambda"), "Throttles", Count, Sum, [[FunctionName]];
    /// How long a call took.
    Duration => Aws("AWS/Lambda"), "Duration", Milliseconds, Value, [[FunctionName]];
    /// Calls in progress at once.
    ConcurrentExecutions => Aws("AWS/Lambda"), "ConcurrentExecutions", Count, Value, [[FunctionName]];
    /// How old the last record of a stream's batch is.
    IteratorAge => Aws("AWS/Lambda"), "IteratorAge", Milliseconds, Value, [[FunctionName]];
    /// Messages waiting in a queue.
    QueueDepth => Aws("AWS/SQS"), "ApproximateNumberOfMessagesVisible", Count, Value, [[QueueName]];
    /// How long the oldest message of a queue has waited.
    OldestMessage => Aws("AWS/SQS"), "ApproximateAgeOfOldestMessage", Seconds, Value, [[QueueName]];
    /// Requests.
    Requests => Aws("AWS/ApiGateway"), "Count", Count, Sum, [[ApiId]];
    /// Requests answered with 400 to 499.
    ClientErrors => Aws("AWS/ApiGateway"), "4xx", Count, Sum, [[ApiId]];
    /// Requests answered with 500 to 599.
    ServerErrors => Aws("AWS/ApiGateway"), "5xx", Count, Sum, [[ApiId]];
    /// How long a request took to answer.
    AnswerLatency => Aws("AWS/ApiGateway"), "Latency", Milliseconds, Value, [[ApiId]];
    /// Write capacity a table used.
    WriteUnits => Aws("AWS/DynamoDB"), "ConsumedWriteCapacityUnits", Count, Sum, [[TableName]];
    /// Read capacity a table used.
    ReadUnits => Aws("AWS/DynamoDB"), "ConsumedReadCapacityUnits", Count, Sum, [[TableName]];
    /// Writes that a table did not let in.
    WriteThrottles => Aws("AWS/DynamoDB"), "WriteThrottleEvents", Count, Sum, [[TableName]];
    /// Calls counted against a quota of the account.
    QuotaCalls => Aws("AWS/Usage"), "CallCount", None, Sum, [[Service, Resource, Type, UsageClass]];
    /// What text messages have cost this month, in dollars.
    SmsSpent => Aws("AWS/SNS"), "SMSMonthToDateSpentUSD", None, Value, [[]];
}

impl Metric {
    /// Those that our own code says, here and on AWS.
    pub fn ours() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|metric| metric.namespace() == Kassa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_in_their_namespace_and_a_set_of_dimensions_is_named_once() {
        for (at, metric) in Metric::ALL.iter().enumerate() {
            let same =
                |other: &Metric| (other.namespace(), other.name()) == (metric.namespace(), metric.name());
            assert!(!Metric::ALL[at + 1..].iter().any(same), "{metric:?}");
            // They stand side by side in a line.
            let dimensions = Metric::ALL.iter().flat_map(|metric| metric.dimensions()).copied().flatten();
            assert!(!dimensions.into_iter().any(|dimension| dimension.name() == metric.name()), "{metric:?}");
            let sets = metric.dimensions();
            assert!(sets.iter().enumerate().all(|(n, set)| !sets[n + 1..].contains(set)), "{metric:?}");
        }
    }
}
