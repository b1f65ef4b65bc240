//! How large things may be: told once, for till, shop, journal and warehouse.
//!
//! What a till sells must fit everywhere it comes through. The event store keeps an envelope in one item of at most
//! 400 KB (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>), which gives
//! `MAX_ENVELOPE`. A topic's message is at most `MAX_MESSAGE`, which opened sales keep to by `MAX_LINES` and
//! `MAX_LINE`, and envelopes by going as their event's key where they are larger than `MAX_INLINE`. How many bytes a
//! request may have follows from the envelope's.

use serde::Serialize;

/// Bytes of an envelope, at most, as a JSON string without its quotes. That of a sealed sale is its compact JWE.
pub const MAX_ENVELOPE: usize = 320 * 1024;

/// Lines of a sale, at most.
pub const MAX_LINES: usize = 2_000;

/// Bytes of a line as it is published, at most, with the comma after it.
pub const MAX_LINE: usize = 120;

/// Bytes of a till's name, at most.
pub const MAX_TILL: usize = 100;

/// Bytes of a message, at most, with its attributes: what SNS takes, in one message as in one batch
/// (<https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html>).
pub const MAX_MESSAGE: usize = 256 * 1024;

/// Bytes of an envelope that goes in a message itself. The rest of the message is far less than what is left.
pub const MAX_INLINE: usize = MAX_MESSAGE - 16 * 1024;

/// Bytes of a request's body with one sale, at most. Beside the envelope there is room for fields that are not ours.
pub const MAX_BODY: usize = MAX_ENVELOPE + 16 * 1024;

/// Sales in one batch, at most.
pub const MAX_BATCH: usize = 100;

/// Bytes of a batch's body, at most: any one sale and some more. In base64 it is far below the 6 MB that Lambda takes.
pub const MAX_BATCH_BODY: usize = 512 * 1024;

const _: () = assert!(MAX_LINES * MAX_LINE + 16 * 1024 <= MAX_MESSAGE, "an opened sale fits a message");
const _: () = assert!(MAX_BODY < MAX_BATCH_BODY, "a batch takes any sale");

/// Bytes of a value as JSON.
#[must_use]
pub fn json_bytes(value: &(impl Serialize + ?Sized)) -> usize {
    let mut counted = Counted(0);
    // Counting cannot fail, nor can the JSON of plain structs with string keys.
    let _ = serde_json::to_writer(&mut counted, value);
    counted.0
}

struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Cuts into batches of so many, at most, that have so many bytes together, at most, in their order. One that is larger
/// by itself is alone.
pub fn batches<T>(all: &[T], most: usize, max_bytes: usize, size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (n, one) in all.iter().enumerate() {
        let more = size(one);
        if n > from && (n - from == most || bytes + more > max_bytes) {
            batches.push(&all[from..n]);
            (from, bytes) = (n, 0);
        }
        bytes += more;
    }
    if from < all.len() {
        batches.push(&all[from..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_is_counted_as_it_is_written() {
        for text in ["", "plain", "\" \\ \n \u{0}", "é"] {
            assert_eq!(json_bytes(text), serde_json::to_string(text).unwrap().len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn batches_keep_the_order_and_the_limits(sizes in prop::collection::vec(1usize..140, 0..40)) {
            let cut = batches(&sizes, 10, 256, |size| *size);
            for batch in &cut {
                prop_assert!(!batch.is_empty() && batch.len() <= 10);
                prop_assert!(batch.iter().sum::<usize>() <= 256);
            }
            prop_assert_eq!(cut.concat(), sizes);
        }

        #[test]
        fn what_is_too_large_by_itself_is_alone(sizes in prop::collection::vec(200usize..600, 0..20)) {
            let cut = batches(&sizes, 10, 256, |size| *size);
            prop_assert!(cut.iter().all(|batch| batch.len() == 1));
            prop_assert_eq!(cut.concat(), sizes);
        }
    }
}
