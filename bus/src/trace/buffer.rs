use std::collections::{HashSet, VecDeque};

use opentelemetry::trace::{Status, TraceId};
use opentelemetry_sdk::trace::SpanData;

/// Spans that are over and not yet exported. All of it is bounded: what is too much is let go, and counted.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// To be exported.
    ready: VecDeque<SpanData>,
    /// Of traces that are not sampled, in case one of them turns out to have an error.
    held: VecDeque<SpanData>,
    failed: HashSet<TraceId>,
    /// The same in the order they failed, so that the oldest can be forgotten.
    in_order: VecDeque<TraceId>,
    let_go: u64,
}

/// A span is some 600 bytes.
const READY: usize = 8_192;
const HELD: usize = 4_096;
const FAILED: usize = 1_024;

/// With so many there is no waiting for more.
const ENOUGH: usize = 512;

impl Buffer {
    /// Takes a span in, and says whether there are enough to export: once for each so many.
    pub fn push(&mut self, span: SpanData) -> bool {
        let trace = span.span_context.trace_id();
        let sampled = span.span_context.is_sampled();
        if matches!(span.status, Status::Error { .. }) && !sampled {
            self.keep(trace);
        }
        if sampled || self.failed.contains(&trace) {
            return self.export(span) && self.ready.len().is_multiple_of(ENOUGH);
        }
        if self.held.len() == HELD {
            self.held.pop_front();
        }
        self.held.push_back(span);
        false
    }

    /// A trace with an error: what was held of it, and what is still to come of it, is exported.
    fn keep(&mut self, trace: TraceId) {
        if !self.failed.insert(trace) {
            return;
        }
        self.in_order.push_back(trace);
        if self.in_order.len() > FAILED
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.failed.remove(&oldest);
        }
        let of_it = |span: &SpanData| span.span_context.trace_id() == trace;
        if self.held.iter().any(of_it) {
            let (kept, held) = std::mem::take(&mut self.held).into_iter().partition(of_it);
            self.held = held;
            let kept: VecDeque<SpanData> = kept;
            for span in kept {
                self.export(span);
            }
        }
    }

    fn export(&mut self, span: SpanData) -> bool {
        let room = self.ready.len() < READY;
        if room {
            self.ready.push_back(span);
        } else {
            self.let_go += 1;
        }
        room
    }

    /// The next to be exported.
    pub fn take(&mut self) -> Vec<SpanData> {
        let most = self.ready.len().min(ENOUGH);
        self.ready.drain(..most).collect()
    }

    /// Nothing more will come of the traces there are.
    pub fn forget_held(&mut self) {
        self.held.clear();
    }

    /// How many spans were let go since this was asked last.
    pub fn let_go(&mut self) -> u64 {
        std::mem::take(&mut self.let_go)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    pub fn span(trace: u128, sampled: bool, failed: bool) -> SpanData {
        let flags = TraceFlags::default().with_sampled(sampled);
        let of = (TraceId::from(trace), SpanId::from(1), flags);
        SpanData {
            span_context: SpanContext::new(of.0, of.1, of.2, false, TraceState::NONE),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed("test"),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed { Status::error("it had to") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    #[test]
    fn a_trace_that_is_not_sampled_is_exported_whole_once_one_of_its_spans_failed() {
        let (good, bad) = (1, 2);
        let mut buffer = Buffer::default();
        for (of, failed) in
            [(good, false), (bad, false), (bad, false), (bad, true), (good, false), (bad, false)]
        {
            buffer.push(span(of, false, failed));
        }
        let taken = buffer.take();
        assert_eq!(taken.len(), 4);
        assert!(taken.iter().all(|span| span.span_context.trace_id() == TraceId::from(bad)));
        buffer.forget_held();
        buffer.push(span(good, false, true));
        assert_eq!(buffer.take().len(), 1);
    }

    #[test]
    fn whatever_comes_there_is_an_end_to_what_is_kept() {
        let mut buffer = Buffer::default();
        let mut traces = 1..;
        let mut next = || traces.next().unwrap_or(1);
        for n in 0..READY + HELD {
            let enough = n < READY && (n + 1).is_multiple_of(ENOUGH);
            assert_eq!(buffer.push(span(next(), true, false)), enough);
            buffer.push(span(next(), false, false));
        }
        for _ in 0..2 * FAILED {
            buffer.push(span(next(), false, true));
        }
        assert_eq!((buffer.ready.len(), buffer.held.len()), (READY, HELD));
        assert_eq!((buffer.failed.len(), buffer.in_order.len()), (FAILED, FAILED));
        assert_eq!(buffer.let_go(), (HELD + 2 * FAILED) as u64);
        let first = buffer.take();
        assert_eq!((first.len(), first[0].span_context.trace_id()), (ENOUGH, TraceId::from(1)));
        assert_eq!(buffer.let_go(), 0);
    }
}
