//! What was counted and measured here, over time: `CloudWatch` for one machine, in memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kassa_bus::metrics::{Namespace, Series, Values};
use serde::{Deserialize, Serialize};

use super::math::search::Search;
use super::math::{Data, Points, Range};
use super::spread::Spread;
use super::{MetricId, Stat};

/// Metrics by the minute for three hours, and by five minutes for fifteen days. (`CloudWatch` keeps minutes for fifteen
/// days.) What would take more room than `ROOM` goes sooner, the oldest first.
pub struct MetricStore {
    /// Whose metrics these are: the namespace of our own.
    stack: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    series: HashMap<MetricId, Tracks>,
    /// Minutes before this one are not known by themselves.
    minutes_from: i64,
    /// Beginnings of the five minutes in which something came since they were asked for.
    changed: BTreeSet<i64>,
}

/// One metric, in the order of time.
#[derive(Default)]
struct Tracks {
    minutes: VecDeque<(i64, Bucket)>,
    fives: VecDeque<(i64, Bucket)>,
}

/// What came within some time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    pub sum: f64,
    pub samples: u32,
    pub least: f64,
    pub most: f64,
    /// Of what was measured. What was counted has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Box<Spread>>,
}

pub const MINUTE: i64 = 60;
pub const FIVE: i64 = 300;
const MINUTES_KEPT: i64 = 3 * 60 * MINUTE;
pub const FIVES_KEPT: i64 = 15 * 24 * 60 * MINUTE;

/// Metrics told apart, at most: what is beyond is not kept, and there is a warning.
const MOST: usize = 10_000;

/// In bytes, about.
const ROOM: usize = 32 << 20;

impl MetricStore {
    #[must_use]
    pub fn new(stack: &str) -> Self {
        Self { stack: stack.to_owned(), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was recorded at that time, under each of its metric's sets of dimensions.
    pub fn record(&self, at: Timestamp, taken: &[Series]) {
        let mut kept = self.kept();
        for series in taken {
            let Some(bucket) = Bucket::of(&series.values) else { continue };
            for set in series.metric.dimensions() {
                let named = |dimension| {
                    let label = series.labels.iter().find(|(of, _)| of == dimension);
                    label.map(|(of, value)| (of.name().to_owned(), value.clone()))
                };
                let Some(dimensions) = set.iter().map(named).collect() else { continue };
                let namespace = match series.metric.namespace() {
                    Namespace::Kassa => self.stack.clone(),
                    Namespace::Aws(namespace) => namespace.to_owned(),
                };
                let id = MetricId { namespace, name: series.metric.name().to_owned(), dimensions };
                kept.put(at.as_second(), id, &bucket);
            }
        }
    }

    /// Keeps what came of one metric at that time.
    pub fn put(&self, at: Timestamp, metric: MetricId, bucket: &Bucket) {
        self.kept().put(at.as_second(), metric, bucket);
    }

    /// Forgets what is too old or too much.
    pub fn prune(&self, now: Timestamp) {
        let mut kept = self.kept();
        let now = now.as_second();
        kept.forget(now - MINUTES_KEPT, now - FIVES_KEPT);
        let mut span = FIVES_KEPT;
        // The last hour is no question of room.
        while kept.room() > ROOM && span > 60 * MINUTE {
            span = span / 10 * 9;
            kept.forget(now - span, now - span);
        }
    }

    /// The beginnings of five minutes in which something came since this was asked.
    #[must_use]
    pub fn changed(&self) -> Vec<i64> {
        std::mem::take(&mut self.kept().changed).into_iter().collect()
    }

    /// What came in the five minutes that begin then.
    #[must_use]
    pub fn five(&self, begin: i64) -> Vec<(MetricId, Bucket)> {
        let kept = self.kept();
        let of = |(id, tracks): (&MetricId, &Tracks)| {
            let at = tracks.fives.binary_search_by_key(&begin, |(at, _)| *at).ok()?;
            Some((id.clone(), tracks.fives[at].1.clone()))
        };
        kept.series.iter().filter_map(of).collect()
    }

    /// Takes back what [`Self::five`] gave, in an earlier process: its minutes are not known by themselves.
    pub fn restore(&self, begin: i64, five: Vec<(MetricId, Bucket)>) {
        let mut kept = self.kept();
        for (id, bucket) in five {
            if let Some(tracks) = kept.tracks(id) {
                merge(&mut tracks.fives, begin, &bucket);
            }
        }
    }

    /// Says that minutes before this one are known by fives only, if at all.
    pub fn begins(&self, at: Timestamp) {
        self.kept().minutes_from = beginning(at.as_second(), MINUTE);
    }
}

/// When the period began in which that is.
#[must_use]
pub fn beginning(at: i64, period: i64) -> i64 {
    at - at.rem_euclid(period)
}

impl Kept {
    fn tracks(&mut self, id: MetricId) -> Option<&mut Tracks> {
        if self.series.len() >= MOST && !self.series.contains_key(&id) {
            tracing::warn!(metric = id.name, "too many metrics are told apart; this one is not kept");
            return None;
        }
        Some(self.series.entry(id).or_default())
    }

    fn put(&mut self, at: i64, id: MetricId, bucket: &Bucket) {
        let five = beginning(at, FIVE);
        let Some(tracks) = self.tracks(id) else { return };
        merge(&mut tracks.minutes, beginning(at, MINUTE), bucket);
        merge(&mut tracks.fives, five, bucket);
        self.changed.insert(five);
    }

    fn forget(&mut self, minutes: i64, fives: i64) {
        for tracks in self.series.values_mut() {
            drop_before(&mut tracks.minutes, minutes);
            drop_before(&mut tracks.fives, fives);
        }
        self.series.retain(|_, tracks| !tracks.fives.is_empty());
        self.minutes_from = self.minutes_from.max(beginning(minutes, MINUTE) + MINUTE);
    }

    fn room(&self) -> usize {
        let of = |track: &VecDeque<(i64, Bucket)>| {
            let spreads = track.iter().filter_map(|(_, bucket)| bucket.spread.as_ref());
            track.capacity() * size_of::<(i64, Bucket)>() + spreads.map(|spread| spread.room()).sum::<usize>()
        };
        self.series.values().map(|tracks| of(&tracks.minutes) + of(&tracks.fives)).sum()
    }
}

/// Places left for what is to come.
const SLACK: usize = 16;

fn drop_before(track: &mut VecDeque<(i64, Bucket)>, before: i64) {
    let old = track.partition_point(|(at, _)| *at < before);
    track.drain(..old);
    if track.capacity() > 2 * track.len() + SLACK {
        track.shrink_to(track.len() + SLACK);
    }
}

/// Most come in order.
fn merge(track: &mut VecDeque<(i64, Bucket)>, at: i64, bucket: &Bucket) {
    match track.back_mut() {
        Some((last, there)) if *last == at => there.merge(bucket),
        Some((last, _)) if *last > at => match track.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(found) => track[found].1.merge(bucket),
            Err(place) => track.insert(place, (at, bucket.clone())),
        },
        _ => track.push_back((at, bucket.clone())),
    }
}

impl Data for MetricStore {
    fn points(&self, metric: &MetricId, stat: Stat, range: Range) -> Points {
        let kept = self.kept();
        let Some(tracks) = kept.series.get(metric) else { return Points::new() };
        let period = i64::from(range.period);
        let point = |begin: i64| {
            // Fives hold what their minutes do, and what an earlier process knew of them.
            let whole_fives = begin % FIVE == 0 && period % FIVE == 0;
            let track = if whole_fives {
                &tracks.fives
            } else if begin >= kept.minutes_from {
                &tracks.minutes
            } else if period >= FIVE {
                &tracks.fives
            } else {
                return None;
            };
            let from = track.partition_point(|(at, _)| *at < begin);
            let within = track.range(from..).take_while(|(at, _)| *at < begin + period);
            let mut whole = Bucket::default();
            within.for_each(|(_, bucket)| whole.merge(bucket));
            Some((begin, whole.stat(stat)?))
        };
        range.times().filter_map(point).collect()
    }

    fn search(&self, search: &Search) -> Vec<MetricId> {
        let kept = self.kept();
        let mut found: Vec<_> = kept.series.keys().filter(|id| search.finds(id)).cloned().collect();
        found.sort_unstable();
        found
    }
}

impl Bucket {
    /// Of what was recorded, if it is anything.
    #[must_use]
    pub fn of(values: &Values) -> Option<Self> {
        match values {
            // The recorder's exact sum ends here: this is to be looked at, not to be added to.
            #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52 in a minute")]
            Values::Sum(sum) => Some(Self::counted(*sum as f64)),
            Values::Each(values) => Self::measured(values),
        }
    }

    /// Of a number that was counted.
    #[must_use]
    pub fn counted(sum: f64) -> Self {
        Self { sum, samples: 1, least: sum, most: sum, spread: None }
    }

    /// Of what was measured, if anything was.
    #[must_use]
    pub fn measured(values: &[f64]) -> Option<Self> {
        let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        (!values.is_empty()).then(|| Self {
            sum: values.iter().sum(),
            samples: u32::try_from(values.len()).unwrap_or(u32::MAX),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            spread: Some(Box::new(Spread::of(&values))),
        })
    }

    pub fn merge(&mut self, other: &Self) {
        if self.samples == 0 {
            self.clone_from(other);
            return;
        }
        self.sum += other.sum;
        self.samples = self.samples.saturating_add(other.samples);
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        if let Some(spread) = &other.spread {
            self.spread.get_or_insert_default().merge(spread);
        }
    }

    /// `None` of nothing.
    #[must_use]
    pub fn stat(&self, stat: Stat) -> Option<f64> {
        if self.samples == 0 {
            return None;
        }
        Some(match stat {
            Stat::Sum => self.sum,
            Stat::Average => self.sum / f64::from(self.samples),
            Stat::Minimum => self.least,
            Stat::Maximum => self.most,
            Stat::SampleCount => self.samples.into(),
            Stat::Percentile(percent) => match &self.spread {
                Some(_) if percent >= 100.0 => self.most,
                Some(spread) => spread.percentile(percent)?.clamp(self.least, self.most),
                // What is counted has no percentiles of its own.
                None => self.sum / f64::from(self.samples),
            },
        })
    }
}

#[cfg(test)]
mod tests;
