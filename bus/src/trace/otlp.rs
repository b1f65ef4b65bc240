//! Spans in the form they are exported in: protobuf, as
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto> has it.
//!
//! The message is small and does not change, and OpenTelemetry's own crates would make each span cost ten times as
//! much and each function an eighth of a megabyte larger. The tests read it with the protocol's own types.

use jiff::Timestamp;

use super::context::TraceContext;
use super::span::{Finished, Value};

/// What makes the spans, encoded: it is the same in each request.
pub(super) struct Maker {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Maker {
    pub fn new(attributes: &[(String, String)]) -> Self {
        let mut resource = Proto::default();
        for (name, value) in attributes {
            resource.attribute(1, name, |any| any.bytes(1, value.as_bytes()));
        }
        let mut scope = Proto::default();
        scope.bytes(1, b"kassa");
        scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
        Self { resource: resource.0, scope: scope.0 }
    }

    /// An `ExportTraceServiceRequest`.
    pub fn request(&self, spans: &[Finished]) -> Vec<u8> {
        let mut request = Proto(Vec::with_capacity(1_024 + 512 * spans.len()));
        request.message(1, |of_resource| {
            of_resource.bytes(1, &self.resource);
            of_resource.message(2, |of_scope| {
                of_scope.bytes(1, &self.scope);
                for span in spans {
                    of_scope.message(2, |proto| self::span(proto, span));
                }
            });
        });
        request.0
    }
}

fn span(proto: &mut Proto, Finished { context, ended, data }: &Finished) {
    proto.place(context);
    proto.bytes(3, data.state.as_deref().unwrap_or_default().as_bytes());
    if let Some(parent) = data.parent {
        proto.bytes(4, &parent.to_be_bytes());
    }
    proto.bytes(5, data.name.as_bytes());
    proto.number(6, data.kind as u64);
    proto.fixed64(7, nanoseconds(data.begun));
    // A clock may have been set back meanwhile.
    proto.fixed64(8, nanoseconds(*ended).max(nanoseconds(data.begun)));
    for (name, value) in &data.attributes {
        proto.attribute(9, name, |any| match value {
            Value::Text(text) => any.bytes(1, text.as_bytes()),
            Value::Flag(flag) => any.number(2, u64::from(*flag)),
            Value::Number(number) => any.number(3, number.cast_unsigned()),
        });
    }
    for link in &data.links {
        proto.message(13, |proto| {
            proto.place(link);
            proto.fixed32(6, link.flags.into());
        });
    }
    if data.more_links > 0 {
        proto.number(14, data.more_links);
    }
    if let Some(why) = &data.failed {
        proto.message(15, |status| {
            status.bytes(2, why.as_bytes());
            status.number(3, 2);
        });
    }
    proto.fixed32(16, context.flags.into());
}

fn nanoseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or(0)
}

/// Protobuf being written (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, number: u64) {
        let (bytes, length) = varint(number);
        self.0.extend_from_slice(&bytes[..length]);
    }

    fn tag(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn number(&mut self, field: u32, number: u64) {
        self.tag(field, 0);
        self.varint(number);
    }

    fn fixed64(&mut self, field: u32, number: u64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed32(&mut self, field: u32, number: u32) {
        self.tag(field, 5);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Written first and then moved over to make room for its length, which is rarely more than a byte or two.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        let begin = self.0.len();
        write(self);
        let (bytes, length) = varint((self.0.len() - begin) as u64);
        self.0.splice(begin..begin, bytes[..length].iter().copied());
    }

    fn attribute(&mut self, field: u32, name: &str, value: impl FnOnce(&mut Self)) {
        self.message(field, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.message(2, value);
        });
    }

    /// Trace and span, which have the same numbers wherever they stand.
    fn place(&mut self, context: &TraceContext) {
        self.bytes(1, &context.trace_id.0.get().to_be_bytes());
        self.bytes(2, &context.span_id.get().to_be_bytes());
    }
}

/// Seven bits a byte, the lowest first, and a one before each that is not the last.
fn varint(mut number: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        bytes[length] = if number == 0 { low } else { low | 0x80 };
        length += 1;
        if number == 0 {
            return (bytes, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_encodings_guide_has_them() {
        for (number, bytes) in
            [(0, &[0][..]), (1, &[1]), (127, &[0x7f]), (150, &[0x96, 1]), (300, &[0xac, 2])]
        {
            let (written, length) = varint(number);
            assert_eq!(&written[..length], bytes);
        }
        assert_eq!(varint(u64::MAX).1, 10);
    }

    #[test]
    fn a_message_within_a_message_has_its_length_before_it() {
        let mut proto = Proto::default();
        proto.message(3, |inner| inner.number(1, 150));
        assert_eq!(proto.0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let mut proto = Proto::default();
        proto.message(1, |inner| inner.bytes(1, &[b'x'; 200]));
        assert_eq!(proto.0[..6], [0x0a, 0xcb, 0x01, 0x0a, 0xc8, 0x01]);
        assert_eq!(proto.0.len(), 6 + 200);
    }
}
