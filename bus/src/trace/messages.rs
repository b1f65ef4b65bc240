//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/> and
//! <https://opentelemetry.io/docs/specs/semconv/faas/faas-spans/>.

use std::borrow::Cow;
use std::future::Future;

use opentelemetry::trace::{Link, SpanContext};

use super::context::{Parent, Xray};
use super::scope::{OfMessages, Within, beside, child};
use super::span::{Kind, Span};
use super::tracer::Tracer;
use crate::message::{Message, Topic};
use crate::publish::PublishError;
use crate::subscriber::{Failure, Source, Subscription, Verdict};

/// An invocation of a function.
#[derive(Debug, Clone)]
pub struct Call {
    pub id: String,
    /// Whether it is this environment's first.
    pub cold: bool,
    /// What the X-Ray header says that Lambda invoked the function with.
    pub xray: Option<Xray>,
}

/// Begins the span of what is done by the minute.
pub fn minute(tracer: &Tracer, name: &'static str, call: Option<&Call>) -> Span {
    let span = tracer.start(None, Kind::Internal, name);
    triggered(&span, call, "timer");
    span
}

/// Says what had it happen.
pub(super) fn triggered(span: &Span, call: Option<&Call>, trigger: &'static str) {
    span.attribute("faas.trigger", trigger);
    if let Some(call) = call {
        span.text("faas.invocation_id", &call.id);
        span.attribute("faas.coldstart", call.cold);
    }
}

/// The spans of messages that are published: one each in the trace its sale has, and where it is a batch one that
/// tells of the request.
pub struct Publishing {
    request: Span,
    each: Vec<Span>,
}

impl Publishing {
    /// Has each message carry its span's place, for whoever takes it to continue from. Where this task is within no
    /// span, messages are left as they are.
    pub fn begin(system: &'static str, topic: Topic, messages: &mut [Message]) -> Self {
        if super::current().is_none() {
            return Self { request: Span::default(), each: Vec::new() };
        }
        let name: Cow<'static, str> = format!("publish {}", topic.name()).into();
        let describe = |span: &Span| {
            span.attribute("messaging.system", system);
            span.attribute("messaging.operation.name", "publish");
            span.attribute("messaging.operation.type", "send");
            span.attribute("messaging.destination.name", topic.name());
        };
        let request = match messages.len() {
            0 | 1 => Span::default(),
            many => {
                let request = child(Kind::Client, name.clone());
                describe(&request);
                request.number("messaging.batch.message_count", many);
                request
            }
        };
        let each = messages.iter_mut().map(|message| {
            let span = beside(Parent::of_message(message).as_ref(), Kind::Producer, name.clone());
            describe(&span);
            of_sale(&span, message);
            request.links_to(&span);
            message.attributes.extend(span.carried());
            span
        });
        let each = each.collect();
        Self { request, each }
    }

    /// Ends them with what became of each message.
    pub fn answered(self, answers: &[Result<(), PublishError>]) {
        for (span, answer) in self.each.iter().zip(answers) {
            if let Err(error) = answer {
                span.fail("publish", error.to_string());
            }
        }
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            self.request.fail("publish", error.to_string());
        }
    }
}

/// The spans of a batch that is handled: its own, in a trace of its own with a link to each message's, and each
/// message's, in the trace its sale has with a link to the batch's.
#[derive(Default)]
pub struct Batch {
    own: Span,
    each: Vec<Span>,
}

impl Batch {
    pub fn begin(
        tracer: &Tracer,
        system: &'static str,
        subscription: &Subscription,
        messages: &[Message],
        call: Option<&Call>,
    ) -> Self {
        if !tracer.is_on() {
            return Self::default();
        }
        let place = Place::of(subscription);
        let name: Cow<'static, str> = format!("process {}", place.name).into();
        let begin = |message: &Message| {
            let parent = Parent::of_message(message);
            let span = tracer.start(parent.as_ref(), Kind::Consumer, name.clone());
            place.describe(&span, system, subscription);
            span.text(place.id, message.attributes.get("event").unwrap_or(&message.id));
            of_sale(&span, message);
            (span, parent.and_then(|parent| parent.span()))
        };
        let (each, published): (Vec<Span>, Vec<_>) = messages.iter().map(begin).unzip();
        let links = published.into_iter().flatten().map(Link::with_context).collect();
        let own = tracer.start_for(links, Kind::Consumer, subscription.name);
        place.describe(&own, system, subscription);
        own.number("messaging.batch.message_count", messages.len());
        triggered(&own, call, place.trigger);
        // Where X-Ray is in its own trace, if it keeps that.
        if let Some(span) = call.and_then(|call| call.xray?.span()).filter(SpanContext::is_sampled) {
            own.link(span);
        }
        for span in &each {
            span.links_to(&own);
        }
        Self { own, each }
    }

    /// Has spans that begin in the future's course be below the batch's, or below a message's where
    /// [`of_message`](super::of_message) says so.
    pub fn within<F: Future>(&self, messages: &[Message], future: F) -> Within<F> {
        let spans = messages.iter().zip(&self.each);
        let own = spans.filter_map(|(message, span)| Some((message.id.clone(), span.own()?.clone())));
        self.own.within_batch(OfMessages(own.collect()), future)
    }

    /// Ends them with the messages' verdicts. A pause is not a message's fault.
    pub fn ended(self, verdicts: &[Verdict]) {
        for (span, verdict) in self.each.iter().zip(verdicts) {
            match verdict {
                Err(Failure::Retry(why)) if span.is_on() => span.fail("retry", why.to_string()),
                Err(Failure::Refuse(why)) => span.fail("refuse", why.as_str()),
                _ => {}
            }
        }
        let failed = verdicts.iter().filter(|verdict| verdict.is_err()).count();
        if failed > 0 && self.own.is_on() {
            self.own.fail("messages", format!("{failed} of {} messages failed", verdicts.len()));
        }
    }
}

/// Where messages come from, in the conventions' words.
struct Place {
    name: &'static str,
    /// What a message's own name is called.
    id: &'static str,
    trigger: &'static str,
}

impl Place {
    fn of(subscription: &Subscription) -> Self {
        match subscription.source {
            Source::Topic(topic) => {
                Self { name: topic.name(), id: "messaging.message.id", trigger: "pubsub" }
            }
            Source::EventStream => Self { name: "events", id: "faas.document.name", trigger: "datasource" },
            Source::Minute => Self { name: "minute", id: "messaging.message.id", trigger: "timer" },
        }
    }

    fn describe(&self, span: &Span, system: &'static str, subscription: &Subscription) {
        if subscription.source == Source::EventStream {
            span.attribute("faas.document.collection", self.name);
            span.attribute("faas.document.operation", "insert");
            return;
        }
        span.attribute("messaging.system", system);
        span.attribute("messaging.operation.name", "process");
        span.attribute("messaging.operation.type", "process");
        span.attribute("messaging.destination.name", self.name);
        span.attribute("messaging.consumer.group.name", subscription.name);
    }
}

/// Which sale it is about.
fn of_sale(span: &Span, message: &Message) {
    for (attribute, name) in [("shop_id", "kassa.shop_id"), ("sale_id", "kassa.sale_id")] {
        if let Some(value) = message.attributes.get(attribute) {
            span.text(name, value);
        }
    }
}
