use std::path::Path;
use std::time::Instant;

use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use jiff::Timestamp;
use kassa::embedded::{Store, Sync};
use kassa_bus::amount::Amount;
use kassa_bus::message::Envelope;
use kassa_bus::{Line, SaleId, ShopId, Totals};
use kassa_pipeline::event::{Accepted, Event, Fact, Recorded};
use kassa_pipeline::event_store::to_item;

use crate::Outcome;

/// The two events a sealed sale of a few lines leaves, at their usual sizes.
pub fn events_of_a_sale(shop: &ShopId) -> [Event; 2] {
    let at = Timestamp::now();
    let sale_id = SaleId::new(at);
    let lines: Vec<Line> = (1..)
        .zip(["98", "12345", "90001"])
        .map(|(n, item)| Line {
            item_no: item.parse().expect("digits"),
            gross_number: Amount::from(n),
            gross_turnover: Amount::from(7 * n),
        })
        .collect();
    let envelope = Envelope::Sealed { sealed: "x".repeat(1000) };
    let event = |fact| Event { shop_id: shop.clone(), sale_id: sale_id.clone(), at, trace: None, fact };
    let recorded = Recorded {
        totals: Totals::of(&lines).expect("small lines"),
        lines,
        business_date: sale_id.utc_date(),
        till: Some("till-1".into()),
        seq: Some(1),
        sold_at: Some(at),
        decrypted_at: Some(at),
        opened_with: None,
        attempt: None,
        key: "A".repeat(43).parse().ok(),
        signed_by: None,
        content: "c".repeat(43),
        envelope: "e".repeat(43),
    };
    [
        event(Fact::Accepted(Accepted { envelope, source: "127.0.0.1".into() })),
        event(Fact::Recorded(recorded)),
    ]
}

/// Durable conditional puts a second of these items, 25 to a transaction, through the SDK: the table's
/// best, with nothing else going on.
pub async fn conditional_puts(folder: &Path, seconds: f64) -> Outcome<f64> {
    let store = Store::open(Some(&folder.join("limit.db")), Sync::Full).await?;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let shop: ShopId = "AMIS1".parse().expect("a shop id");
                let mut puts = 0;
                while begun.elapsed().as_secs_f64() < seconds {
                    let events = (0..13).flat_map(|_| events_of_a_sale(&shop)).take(25);
                    let items = events.map(|event| {
                        let put = Put::builder()
                            .table_name(&store.tables.events)
                            .set_item(Some(to_item(event.to_stored())))
                            .condition_expression("attribute_not_exists(#event)")
                            .expression_attribute_names("#event", "event");
                        TransactWriteItem::builder().put(put.build().expect("table and item")).build()
                    });
                    let write = store.client.transact_write_items().set_transact_items(Some(items.collect()));
                    write.send().await.expect("a fresh key each");
                    puts += 25;
                }
                puts
            })
        })
        .collect();
    let mut puts = 0;
    for task in tasks {
        puts += task.await?;
    }
    Ok(f64::from(puts) / begun.elapsed().as_secs_f64())
}

/// RSA-2048-OAEP decrypts a second on this many threads.
pub fn rsa_decrypts(threads: usize, seconds: f64) -> Outcome<f64> {
    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048)?;
    let public = OaepPublicEncryptingKey::new(private.public_key())?;
    let mut ciphertext = vec![0; public.ciphertext_size()];
    public.encrypt(&OAEP_SHA256_MGF1SHA256, &[7; 150], &mut ciphertext, None)?;
    let private = OaepPrivateDecryptingKey::new(private)?;
    let begun = Instant::now();
    let decrypts: u32 = std::thread::scope(|scope| {
        let work = || {
            let mut plaintext = vec![0; private.min_output_size()];
            let mut decrypts = 0;
            while begun.elapsed().as_secs_f64() < seconds {
                private
                    .decrypt(&OAEP_SHA256_MGF1SHA256, &ciphertext, &mut plaintext, None)
                    .expect("our own ciphertext");
                decrypts += 1;
            }
            decrypts
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    Ok(f64::from(decrypts) / begun.elapsed().as_secs_f64())
}
