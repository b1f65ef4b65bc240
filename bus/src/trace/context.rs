use std::fmt;
use std::str::FromStr;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::Message;

/// Where in a trace something happens: W3C Trace Context's `traceparent`
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
///
/// Displayed as version 00 of the header, whatever version it was read from, as the recommendation asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
}

/// It is not in the header's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case and not all zero"
)]
pub struct NotAContext;

impl TraceContext {
    /// A trace of its own that begins here, to be sampled.
    #[must_use]
    pub fn random() -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace_id: ids.new_trace_id(), span_id: ids.new_span_id(), flags: TraceFlags::SAMPLED }
    }

    /// Of a span, if there is one.
    pub(super) fn of(span: &SpanContext) -> Option<Self> {
        let (trace_id, span_id, flags) = (span.trace_id(), span.span_id(), span.trace_flags());
        span.is_valid().then_some(Self { trace_id, span_id, flags })
    }

    /// 32 digits of hex in logs.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// As somebody else's span.
    fn remote(self, state: TraceState) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, self.flags, true, state)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceContext {
    type Err = NotAContext;

    /// A version from the future is read as far as it is like ours.
    fn from_str(text: &str) -> Result<Self, NotAContext> {
        let mut parts = text.splitn(5, '-');
        let mut next = |digits| parts.next().and_then(|part| hex(part, digits)).ok_or(NotAContext);
        let (version, trace_id, span_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let ends = parts.next().is_none();
        if version == 0xff || (version == 0 && !ends) {
            return Err(NotAContext);
        }
        let span_id = u64::try_from(span_id).map_err(|_| NotAContext)?;
        let flags = TraceFlags::new(u8::try_from(flags).map_err(|_| NotAContext)?);
        let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
        if trace_id == TraceId::INVALID || span_id == SpanId::INVALID {
            return Err(NotAContext);
        }
        Ok(Self { trace_id, span_id, flags })
    }
}

/// So many digits of lower-case hex.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let right =
        text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    right.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Reads the context of something that must be read whatever stands there: one that is not in its form is none.
///
/// # Errors
/// If the JSON is broken.
pub fn if_in_form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TraceContext>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// What a request or a message says of the trace it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub enum Parent {
    /// A span of its sender.
    Span(SpanContext),
    /// X-Ray's header, which may say less than that.
    Xray(Xray),
}

/// X-Ray's header: `Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=<0 or 1>`, of which all but the root
/// may be missing (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xray {
    pub(super) trace_id: TraceId,
    span_id: Option<SpanId>,
    /// Not known where it is left to whoever comes first.
    pub(super) sampled: Option<bool>,
}

impl Parent {
    /// Of a request's headers: `traceparent` with `tracestate`, or else `X-Amzn-Trace-Id`.
    #[must_use]
    pub fn of_headers<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Option<Self> {
        match header("traceparent").and_then(|text| text.parse::<TraceContext>().ok()) {
            Some(context) => Some(Self::Span(context.remote(state(header("tracestate"))))),
            None => Xray::read(header("x-amzn-trace-id")?).map(Self::Xray),
        }
    }

    /// Of a message, as its publisher sent it.
    #[must_use]
    pub fn of_message(message: &Message) -> Option<Self> {
        let said = message.attributes.get("tracestate");
        Some(Self::Span(message.trace()?.remote(state(said.map(String::as_str)))))
    }

    /// The sender's own place in the trace, if it names one: what is carried on by whoever makes no spans.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        TraceContext::of(&self.span()?)
    }

    /// The sender's span, if it names one.
    pub(super) fn span(&self) -> Option<SpanContext> {
        match self {
            Self::Span(span) => Some(span.clone()),
            Self::Xray(xray) => xray.span(),
        }
    }

    /// What a span of ours begins in.
    pub(super) fn above(&self, base: &Context) -> Context {
        let base = match self {
            Self::Span(_) => base,
            Self::Xray(xray) => &base.with_value(*xray),
        };
        match self.span() {
            Some(span) => base.with_remote_span_context(span),
            None => base.clone(),
        }
    }
}

impl Xray {
    #[must_use]
    pub fn read(header: &str) -> Option<Self> {
        let field = |wanted: &str| {
            let fields = header.split(';').filter_map(|field| field.trim().split_once('='));
            fields.into_iter().find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value))
        };
        let (time, rest) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
        let trace_id = TraceId::from(hex(time, 8)? << 96 | hex(rest, 24)?);
        let span_id = field("Parent").and_then(|id| Some(SpanId::from(u64::try_from(hex(id, 16)?).ok()?)));
        let sampled = match field("Sampled") {
            Some("1") => Some(true),
            Some("0") => Some(false),
            _ => None,
        };
        let span_id = span_id.filter(|id| *id != SpanId::INVALID);
        (trace_id != TraceId::INVALID).then_some(Self { trace_id, span_id, sampled })
    }

    /// The span that it names, if it does.
    pub(super) fn span(&self) -> Option<SpanContext> {
        let flags = TraceFlags::default().with_sampled(self.sampled == Some(true));
        Some(SpanContext::new(self.trace_id, self.span_id?, flags, true, TraceState::NONE))
    }
}

/// Others' vendors' own, handed on as it came. Longer ones need not be
/// (<https://www.w3.org/TR/trace-context/#tracestate-limits>).
fn state(text: Option<&str>) -> TraceState {
    text.filter(|text| text.len() <= 512).and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_w3c_says() {
        let context: TraceContext = EXAMPLE.parse().unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        // A later version may have more, and is sent on as ours.
        for later in [EXAMPLE.replacen("00", "cc", 1), EXAMPLE.replacen("00", "01", 1) + "-what-they-added"] {
            assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), EXAMPLE);
        }
        for wrong in [
            "",
            "00",
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replacen("00", "ff", 1),
            &EXAMPLE.replace('-', "_"),
            &format!("{EXAMPLE}-more"),
            &format!("{EXAMPLE}0"),
            &format!("01{}0", &EXAMPLE[2..]),
            &EXAMPLE[..54],
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-1",
        ] {
            assert_eq!(wrong.parse::<TraceContext>(), Err(NotAContext), "{wrong}");
        }
    }

    #[test]
    fn x_rays_header_is_read_with_and_without_its_parts() {
        let root = "Root=1-5759e988-bd862e3fe1be46a994272793";
        let all = Xray::read(&format!("{root};Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:b:0")).unwrap();
        let context = Parent::Xray(all).context().unwrap().to_string();
        assert_eq!(context, "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01");
        let bare = Xray::read(root).unwrap();
        assert_eq!(bare, Xray { trace_id: all.trace_id, span_id: None, sampled: None });
        assert_eq!(Parent::Xray(bare).context(), None);
        assert_eq!(Xray::read(&format!("Self=1; {root}; Sampled=0")).unwrap().sampled, Some(false));
        for wrong in [
            "",
            "Root=",
            "Root=1-5759e988",
            "Root=1-00000000-000000000000000000000000",
            "Root=2-5759e988-bd862e3fe1be46a994272793",
            "Parent=53995c3f42cd8ad8",
        ] {
            assert_eq!(Xray::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn traceparent_wins_over_x_ray_and_alone_brings_its_state() {
        let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let headers = |traceparent: &'static str| {
            move |name: &str| match name {
                "traceparent" => Some(traceparent),
                "tracestate" => Some("vendor=1"),
                "x-amzn-trace-id" => Some(xray),
                _ => None,
            }
        };
        let ours = Parent::of_headers(headers(EXAMPLE)).unwrap();
        assert_eq!(ours.context().unwrap().to_string(), EXAMPLE);
        assert!(matches!(ours, Parent::Span(span) if span.trace_state().header() == "vendor=1"));
        let theirs = Parent::of_headers(headers("rubbish")).unwrap();
        assert_eq!(theirs, Parent::Xray(Xray::read(xray).unwrap()));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(trace_id in 1u128.., span_id in 1u64.., flags: u8) {
            let context = TraceContext {
                trace_id: TraceId::from(trace_id),
                span_id: SpanId::from(span_id),
                flags: TraceFlags::new(flags),
            };
            let text = context.to_string();
            prop_assert_eq!(text.len(), 55);
            prop_assert_eq!(text.parse(), Ok(context));
            let span = Parent::Span(context.remote(TraceState::NONE));
            prop_assert_eq!(span.context(), Some(context));
        }

        #[test]
        fn nothing_is_read_that_would_not_be_written(text in "0[01]-[0-9a-fA-F]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{2}(-.{0,3})?|\\PC{0,60}") {
            if let Ok(context) = text.parse::<TraceContext>() {
                prop_assert_eq!(&context.to_string()[2..], &text[2..55]);
            }
            let _ = Xray::read(&text);
        }
    }
}
