use super::context::TraceId;
use crate::settings::{SettingError, Settings};

/// Which traces are exported that have no error (<https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sampler {
    /// Whether a trace that began elsewhere is exported if it is exported there.
    parent_based: bool,
    /// Of a trace that began here: whether half of its id's lower half is below this. Other implementations decide so,
    /// too, and by the same ratio come to the same traces.
    below: u64,
}

const ALL: u64 = 1 << 63;

impl Sampler {
    /// # Errors
    /// [`SettingError`] if there is no such sampler or its argument is no ratio.
    pub fn of(settings: &Settings) -> Result<Self, SettingError> {
        let ratio = settings.optional("OTEL_TRACES_SAMPLER_ARG");
        // OpenTelemetry has no use for a ratio alone; we know what is meant by it.
        let default = if ratio.is_some() { "parentbased_traceidratio" } else { "parentbased_always_on" };
        let said = settings.optional("OTEL_TRACES_SAMPLER").unwrap_or(default);
        let (parent_based, root) = match said.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, said),
        };
        let below = match root {
            "always_on" => ALL,
            "always_off" => 0,
            "traceidratio" => below(ratio.unwrap_or("1"))?,
            _ => {
                let what = "always_on, always_off or traceidratio, alone or after parentbased_";
                return Err(SettingError::Wrong { name: "OTEL_TRACES_SAMPLER", what });
            }
        };
        Ok(Self { parent_based, below })
    }

    pub fn samples(self, trace_id: TraceId, parent: Option<bool>) -> bool {
        if let (true, Some(sampled)) = (self.parent_based, parent) {
            return sampled;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what counts")]
        let half = trace_id.0.get() as u64 >> 1;
        half < self.below
    }
}

fn below(ratio: &str) -> Result<u64, SettingError> {
    let ratio = ratio.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    let wrong = SettingError::Wrong { name: "OTEL_TRACES_SAMPLER_ARG", what: "a ratio from 0 to 1" };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 0 to 2^63"
    )]
    ratio.map(|ratio| (ratio * ALL as f64) as u64).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceContext;

    fn sampler(name: &str, argument: &str) -> Result<Sampler, SettingError> {
        let pairs = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        Sampler::of(&Settings::none().with(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))))
    }

    #[test]
    fn a_ratio_of_traces_is_sampled_and_a_parents_word_counts_where_it_is_asked_for() {
        let share = |name, argument: &str, parent| {
            let sampler = sampler(name, argument).unwrap();
            let taken = |_: &usize| sampler.samples(TraceContext::random().trace_id(), parent);
            (0..10_000).filter(taken).count()
        };
        assert_eq!(share("", "", None), 10_000);
        assert_eq!(share("always_off", "", Some(true)), 0);
        assert_eq!(share("parentbased_always_off", "", Some(true)), 10_000);
        assert_eq!(share("parentbased_traceidratio", "1", Some(false)), 0);
        assert_eq!(share("traceidratio", "0", None), 0);
        assert_eq!((share("", "0", None), share("", "0", Some(true))), (0, 10_000));
        assert_eq!(share("traceidratio", "1", Some(false)), 10_000);
        assert!((2_200..2_800).contains(&share("parentbased_traceidratio", "0.25", None)));
    }

    #[test]
    fn what_is_no_sampler_is_named() {
        for (name, argument) in [
            ("jaeger", ""),
            ("parentbased_", ""),
            ("traceidratio", "2"),
            ("traceidratio", "NaN"),
            ("traceidratio", "half"),
        ] {
            assert!(sampler(name, argument).is_err(), "{name} {argument}");
        }
    }
}
