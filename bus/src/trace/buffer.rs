use std::collections::{HashSet, VecDeque};

use super::context::TraceId;
use super::span::Finished;

/// Spans that are over and not yet exported. All of it is bounded: what is too much is let go, and counted.
#[derive(Default)]
pub(super) struct Buffer {
    /// To be exported.
    ready: VecDeque<Finished>,
    /// Of traces that are not sampled, in case one of them turns out to have an error.
    held: VecDeque<Finished>,
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
pub(super) const ENOUGH: usize = 512;

impl Buffer {
    /// Takes a span in, and says whether there are enough to export: once for each so many.
    pub fn push(&mut self, span: Finished) -> bool {
        let trace = span.context.trace_id();
        let sampled = span.context.is_sampled();
        if span.data.failed.is_some() && !sampled {
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
        let of_it = |span: &Finished| span.context.trace_id() == trace;
        if self.held.iter().any(of_it) {
            let (kept, held) = std::mem::take(&mut self.held).into_iter().partition(of_it);
            self.held = held;
            let kept: VecDeque<Finished> = kept;
            for span in kept {
                self.export(span);
            }
        }
    }

    fn export(&mut self, span: Finished) -> bool {
        let room = self.ready.len() < READY;
        if room {
            self.ready.push_back(span);
        } else {
            self.let_go += 1;
        }
        room
    }

    /// The next to be exported.
    pub fn take(&mut self) -> Vec<Finished> {
        let most = self.ready.len().min(ENOUGH);
        self.ready.drain(..most).collect()
    }

    /// Those that could not be exported, for later.
    pub fn put_back(&mut self, spans: Vec<Finished>) {
        for span in spans.into_iter().rev() {
            if self.ready.len() < READY {
                self.ready.push_front(span);
            } else {
                self.let_go += 1;
            }
        }
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
mod tests {
    use std::borrow::Cow;

    use jiff::Timestamp;

    use super::*;
    use crate::trace::span::{Data, Kind};
    use crate::trace::{Parent, TraceContext};

    fn span(of: TraceContext, sampled: bool, failed: bool) -> Finished {
        let data = Data {
            name: Cow::Borrowed("test"),
            kind: Kind::Internal,
            parent: None,
            state: None,
            begun: Timestamp::UNIX_EPOCH,
            attributes: Vec::new(),
            links: Vec::new(),
            more_links: 0,
            failed: failed.then(|| "it had to".to_owned()),
        };
        Finished { context: Parent::from(of).child(sampled), ended: Timestamp::UNIX_EPOCH, data }
    }

    #[test]
    fn a_trace_that_is_not_sampled_is_exported_whole_once_one_of_its_spans_failed() {
        let (good, bad) = (TraceContext::random(), TraceContext::random());
        let mut buffer = Buffer::default();
        for (of, failed) in
            [(good, false), (bad, false), (bad, false), (bad, true), (good, false), (bad, false)]
        {
            buffer.push(span(of, false, failed));
        }
        let taken = buffer.take();
        assert_eq!(taken.len(), 4);
        assert!(taken.iter().all(|span| span.context.trace_id() == bad.trace_id()));
        buffer.forget_held();
        buffer.push(span(good, false, true));
        assert_eq!(buffer.take().len(), 1);
    }

    #[test]
    fn whatever_comes_there_is_an_end_to_what_is_kept() {
        let mut buffer = Buffer::default();
        for n in 0..READY + HELD {
            let enough = n < READY && (n + 1).is_multiple_of(ENOUGH);
            assert_eq!(buffer.push(span(TraceContext::random(), true, false)), enough);
            buffer.push(span(TraceContext::random(), false, false));
        }
        for _ in 0..2 * FAILED {
            buffer.push(span(TraceContext::random(), false, true));
        }
        assert_eq!((buffer.ready.len(), buffer.held.len()), (READY, HELD));
        assert_eq!((buffer.failed.len(), buffer.in_order.len()), (FAILED, FAILED));
        assert_eq!(buffer.let_go(), (HELD + 2 * FAILED) as u64);
        let first = buffer.take();
        let id = first[0].context;
        buffer.put_back(first);
        assert_eq!(buffer.take()[0].context, id);
        assert_eq!(buffer.let_go(), 0);
    }
}
