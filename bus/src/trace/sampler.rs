use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::context::Xray;
use crate::settings::{SettingError, Settings};

/// Which traces are exported: OpenTelemetry's own samplers say so
/// (<https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers>), but what they would drop is recorded, in case
/// it turns out to have an error.
#[derive(Debug, Clone)]
pub(super) struct ErrorsKept {
    /// Whether a trace that began elsewhere is exported if it is exported there.
    parent_based: bool,
    root: Sampler,
}

impl ErrorsKept {
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
        let root = match root {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(self::ratio(ratio.unwrap_or("1"))?),
            _ => {
                let what = "always_on, always_off or traceidratio, alone or after parentbased_";
                return Err(SettingError::Wrong { name: "OTEL_TRACES_SAMPLER", what });
            }
        };
        Ok(Self { parent_based, root })
    }

    /// Without a parent to go by.
    fn samples_root(&self, trace_id: TraceId, kind: &SpanKind) -> bool {
        let said = self.root.should_sample(None, trace_id, "", kind, &[], &[]);
        said.decision == SamplingDecision::RecordAndSample
    }

    /// As its trace's own spans are.
    fn samples_linked(&self, to: &SpanContext, kind: &SpanKind) -> bool {
        if self.parent_based { to.is_sampled() } else { self.samples_root(to.trace_id(), kind) }
    }

    /// What works for others' traces is sampled if one of these is.
    fn samples(&self, above: &Context, trace_id: TraceId, kind: &SpanKind, links: &[Link]) -> bool {
        match self.parent_based.then(|| said(above)).flatten() {
            Some(sampled) => sampled,
            None if links.is_empty() => self.samples_root(trace_id, kind),
            None => links.iter().any(|link| self.samples_linked(&link.span_context, kind)),
        }
    }
}

/// Whether the trace that is continued is exported where it comes from, if that is known.
fn said(above: &Context) -> Option<bool> {
    match above.get::<Xray>() {
        Some(xray) => xray.sampled,
        None => above.has_active_span().then(|| above.span().span_context().is_sampled()),
    }
}

impl ShouldSample for ErrorsKept {
    fn should_sample(
        &self,
        above: Option<&Context>,
        trace_id: TraceId,
        _name: &str,
        kind: &SpanKind,
        _attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let nothing = Context::new();
        let above = above.unwrap_or(&nothing);
        let sampled = self.samples(above, trace_id, kind, links);
        let decision = if sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::RecordOnly };
        let trace_state = above.span().span_context().trace_state().clone();
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

fn ratio(text: &str) -> Result<f64, SettingError> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or(SettingError::Wrong { name: "OTEL_TRACES_SAMPLER_ARG", what: "a ratio from 0 to 1" })
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

    use super::*;

    fn sampler(name: &str, argument: &str) -> Result<ErrorsKept, SettingError> {
        let pairs = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        ErrorsKept::of(&Settings::none().with(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))))
    }

    fn span(trace_id: TraceId, sampled: bool) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(sampled);
        SpanContext::new(trace_id, SpanId::from(1), flags, true, TraceState::NONE)
    }

    fn samples(sampler: &ErrorsKept, trace_id: TraceId, parent: Option<bool>, links: &[Link]) -> bool {
        let above = parent.map(|sampled| Context::new().with_remote_span_context(span(trace_id, sampled)));
        let said = sampler.should_sample(above.as_ref(), trace_id, "", &SpanKind::Internal, &[], links);
        assert_ne!(said.decision, SamplingDecision::Drop, "an error of it could not be kept");
        said.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_ratio_of_traces_is_sampled_and_a_parents_word_counts_where_it_is_asked_for() {
        let share = |name, argument: &str, parent| {
            let sampler = sampler(name, argument).unwrap();
            let taken =
                |_: &usize| samples(&sampler, RandomIdGenerator::default().new_trace_id(), parent, &[]);
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
    fn what_works_for_others_traces_is_sampled_if_one_of_them_is() {
        let (trace, others) = (TraceId::from(1), TraceId::from(2));
        let links = |sampled: &[bool]| -> Vec<Link> {
            sampled.iter().map(|sampled| Link::with_context(span(others, *sampled))).collect()
        };
        let asks = sampler("parentbased_always_off", "").unwrap();
        assert!(samples(&asks, trace, None, &links(&[false, true])));
        assert!(!samples(&asks, trace, None, &links(&[false, false])));
        let on = sampler("always_on", "").unwrap();
        assert!(samples(&on, trace, None, &links(&[false])));
        let off = sampler("always_off", "").unwrap();
        assert!(!samples(&off, trace, None, &links(&[true])));
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
