//! One suite per port, over each of its adapters: what the port's documentation says an adapter MUST do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "common/cloud.rs"]
mod cloud;
mod common;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloud::Cloud;
use common::{encrypting, wrap};
use kassa::embedded::FileKeys;
use kassa_bus::local::{DeadLetter, DeadLetters, LocalBus, Redelivery};
use kassa_bus::sns::Sns;
use kassa_bus::{
    Message, Metrics, Publisher, Retry, ShopId, Source, Subscriber, Subscription, Topic, Verdict,
};
use kassa_pipeline::keys::{KeyError, ShopKeys};
use kassa_pipeline::kms::KmsKeys;

fn shop(id: &str) -> ShopId {
    id.parse().unwrap()
}

/// The `ShopKeys` port. `AMIS1` and `AMIS2` have keys, `NOWHERE` has none, `BROKEN`'s cannot be used.
async fn shop_keys(keys: &dyn ShopKeys) {
    let public = keys.public_key(&shop("AMIS1")).await.unwrap();
    let ciphertext = wrap(&encrypting(&public), b"a sale");
    // the shop's key opens what its public key closed
    assert_eq!(keys.decrypt(&shop("AMIS1"), &ciphertext).await.unwrap().as_slice(), b"a sale");
    // another shop's does not, nor does anything open that is damaged or of the wrong length
    let mut damaged = ciphertext.clone();
    damaged[100] ^= 1;
    for (id, wrong) in [
        ("AMIS2", &ciphertext[..]),
        ("AMIS1", &damaged),
        ("AMIS1", &ciphertext[1..]),
        ("AMIS1", b""),
        ("AMIS1", &[0; 300]),
    ] {
        assert!(matches!(keys.decrypt(&shop(id), wrong).await, Err(KeyError::DoesNotOpen)));
    }
    // no key and a key that cannot be used now are told apart
    assert!(matches!(keys.decrypt(&shop("NOWHERE"), &ciphertext).await, Err(KeyError::NoSuchKey)));
    assert!(matches!(keys.public_key(&shop("NOWHERE")).await, Err(KeyError::NoSuchKey)));
    assert!(matches!(keys.decrypt(&shop("BROKEN"), &ciphertext).await, Err(KeyError::Unavailable(_))));
    // a key keeps its name
    assert_eq!(keys.public_key(&shop("AMIS1")).await.unwrap(), public);
    assert_ne!(keys.public_key(&shop("AMIS2")).await.unwrap().kid(), public.kid());
}

#[tokio::test]
async fn file_keys_keep_the_contract_of_shop_keys() {
    let folder = tempfile::tempdir().unwrap();
    let keys = FileKeys::open(folder.path()).unwrap();
    assert!(keys.ensure(&shop("AMIS1")).unwrap() && keys.ensure(&shop("AMIS2")).unwrap());
    assert!(!keys.ensure(&shop("AMIS1")).unwrap(), "a key is made once");
    std::fs::write(folder.path().join("BROKEN.pem"), "not a key").unwrap();
    shop_keys(&keys).await;
    // and again from the files alone
    shop_keys(&FileKeys::open(folder.path()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_kms_keys_keep_the_contract_of_shop_keys() {
    let cloud = Cloud::deployed().await;
    cloud
        .boto("kms = aws('kms'); key = kms.create_key(KeySpec='RSA_2048', KeyUsage='ENCRYPT_DECRYPT')['KeyMetadata']['KeyId']; kms.create_alias(AliasName='alias/kassa-local-BROKEN', TargetKeyId=key); kms.disable_key(KeyId=key); print('null')")
        .await;
    let client = aws_sdk_kms::Client::new(&cloud.sdk_config().await);
    shop_keys(&KmsKeys::new(client.clone(), "kassa-local-")).await;
    // and by another name, which is a parameter
    let renamed = KmsKeys::new(client, "kassa-local-AMIS");
    assert!(renamed.public_key(&shop("1")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_a_publisher_answers_for_each_message_and_loses_none() {
    // given a topic with two queues, and one that is not there
    let cloud = Cloud::deployed().await;
    let made = "
topic, q = aws('sns').create_topic(Name='contract')['TopicArn'], aws('sqs')
for name in ('one', 'two'):
    queue = q.create_queue(QueueName=name)['QueueUrl']
    arn = q.get_queue_attributes(QueueUrl=queue, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
    policy = {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Principal': '*', 'Action': 'sqs:SendMessage', 'Resource': arn}]}
    q.set_queue_attributes(QueueUrl=queue, Attributes={'Policy': json.dumps(policy)})
    aws('sns').subscribe(TopicArn=topic, Protocol='sqs', Endpoint=arn, Attributes={'RawMessageDelivery': 'true'})
print(json.dumps(topic))";
    let topic: String = serde_json::from_value(cloud.boto(made).await).unwrap();
    let topics = [(Topic::ToProcess, topic.clone()), (Topic::ToDecrypt, format!("{topic}-gone"))];
    let sns = Sns::new(aws_sdk_sns::Client::new(&cloud.sdk_config().await), topics.into());
    // when 24 messages are published, of which one is larger than SNS takes
    let (mut all, ids) = messages(24);
    for message in &mut all {
        message.attributes.insert("shop_id".into(), "AMIS1".into());
    }
    all[7].body = "x".repeat(300 * 1024).into();
    let answers = sns.publish(Topic::ToProcess, all).await;
    // then that one is refused and no other
    let refused: Vec<usize> =
        answers.iter().enumerate().filter(|(_, a)| a.is_err()).map(|(n, _)| n).collect();
    assert_eq!(refused, [7]);
    let received = "
def drained(name):
    q, bodies = aws('sqs'), []
    url = q.get_queue_url(QueueName=name)['QueueUrl']
    while True:
        batch = q.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=['All']).get('Messages', [])
        if not batch:
            return sorted(bodies)
        bodies += [[json.loads(m['Body']), m['MessageAttributes']['shop_id']['StringValue']] for m in batch]
print(json.dumps([drained('one'), drained('two')]))";
    let published: Vec<_> = ids.into_iter().filter(|id| id != "0007").map(|id| (id, "AMIS1")).collect();
    assert_eq!(cloud.boto(received).await, serde_json::json!([published, published]));
    // and a topic that is not there, or not this function's, refuses each
    for topic in [Topic::ToDecrypt, Topic::DecryptErrors] {
        assert!(sns.publish(topic, messages(12).0).await.iter().all(Result::is_err));
    }
    assert!(sns.publish(Topic::ToProcess, Vec::new()).await.is_empty());
}

#[tokio::test]
async fn a_key_file_that_others_can_read_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    FileKeys::open(folder.path()).unwrap().ensure(&shop("AMIS1")).unwrap();
    let file = folder.path().join("AMIS1.pem");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = FileKeys::open(folder.path()).unwrap().public_key(&shop("AMIS1")).await.unwrap_err();
    assert!(kassa_bus::error::chain(&refused).contains("chmod 600"));
}

/// A subscriber that notes what it gets, and fails or panics where the test says.
#[derive(Default)]
struct Sink {
    got: Mutex<Vec<(String, usize)>>,
    failures: AtomicU32,
    panic_on: Mutex<Option<String>>,
    stalled: AtomicBool,
}

#[async_trait]
impl Subscriber for Sink {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        while self.stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let poison = self.panic_on.lock().unwrap().clone();
        assert!(!batch.iter().any(|m| Some(&m.id) == poison.as_ref()), "poisoned by the test");
        let one = |message: &Message| {
            if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                return Err(Retry::because("failed by the test"));
            }
            self.got.lock().unwrap().push((message.id.clone(), batch.len()));
            Ok(())
        };
        batch.iter().map(one).collect()
    }
}

impl Sink {
    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.got.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids
    }
}

#[derive(Default)]
struct Letters(Mutex<Vec<DeadLetter>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn keep(&self, letter: DeadLetter) -> Result<(), Retry> {
        self.0.lock().unwrap().push(letter);
        Ok(())
    }
}

struct Rig {
    bus: Arc<LocalBus>,
    sinks: Vec<Arc<Sink>>,
    letters: Arc<Letters>,
}

fn rig(subscribers: usize) -> Rig {
    let bus =
        LocalBus::new(Redelivery { max_receives: 5, backoff: Duration::from_millis(1) }, Metrics::default());
    let sinks: Vec<Arc<Sink>> = (0..subscribers).map(|_| Arc::default()).collect();
    let subscription = |sink: &Arc<Sink>| Subscription {
        name: "sink",
        source: Source::Topic(Topic::ToProcess),
        batch: 10,
        workers: 2,
        subscriber: sink.clone(),
    };
    let letters = Arc::new(Letters::default());
    let dead_letters: Arc<dyn DeadLetters> = letters.clone();
    bus.start(sinks.iter().map(subscription).collect(), &dead_letters);
    Rig { bus, sinks, letters }
}

fn message(id: &str) -> Message {
    Message { id: id.into(), attributes: std::collections::HashMap::new(), body: format!("\"{id}\"").into() }
}

fn messages(count: usize) -> (Vec<Message>, Vec<String>) {
    let ids: Vec<String> = (0..count).map(|n| format!("{n:04}")).collect();
    (ids.iter().map(|id| message(id)).collect(), ids)
}

#[tokio::test]
async fn the_local_bus_delivers_each_message_to_every_subscription_in_batches() {
    let Rig { bus, sinks, .. } = rig(2);
    let (all, ids) = messages(100);
    assert!(bus.publish(Topic::ToProcess, all).await.iter().all(Result::is_ok));
    assert!(bus.publish(Topic::DecryptErrors, vec![message("for nobody")]).await[0].is_ok());
    bus.drained().await;
    for sink in sinks {
        assert_eq!(sink.ids(), ids);
        let largest = sink.got.lock().unwrap().iter().map(|(_, batch)| *batch).max();
        assert_eq!(largest, Some(10));
    }
}

#[tokio::test]
async fn what_fails_comes_again_and_after_five_receives_is_a_dead_letter() {
    let Rig { bus, sinks, letters } = rig(1);
    sinks[0].failures.store(4, Ordering::SeqCst);
    bus.publish(Topic::ToProcess, vec![message("patience")]).await;
    bus.drained().await;
    assert_eq!((sinks[0].ids(), letters.0.lock().unwrap().len()), (vec!["patience".to_owned()], 0));
    sinks[0].failures.store(5, Ordering::SeqCst);
    bus.publish(Topic::ToProcess, vec![message("hopeless")]).await;
    bus.drained().await;
    let letters = letters.0.lock().unwrap();
    assert_eq!((letters.len(), letters[0].receives, letters[0].why.as_str()), (1, 5, "failed by the test"));
    assert_eq!(sinks[0].ids().len(), 1);
}

#[tokio::test]
async fn a_message_that_panics_its_subscriber_takes_no_neighbour_with_it() {
    let Rig { bus, sinks, letters } = rig(1);
    *sinks[0].panic_on.lock().unwrap() = Some("0005".into());
    let (all, mut ids) = messages(10);
    bus.publish(Topic::ToProcess, all).await;
    bus.drained().await;
    ids.remove(5);
    assert_eq!(sinks[0].ids(), ids);
    assert_eq!(letters.0.lock().unwrap()[0].message.id, "0005");
}

#[tokio::test]
async fn a_queue_is_bounded_and_publishers_wait() {
    let Rig { bus, sinks, .. } = rig(1);
    sinks[0].stalled.store(true, Ordering::SeqCst);
    let large = || Message { body: "x".repeat(100 * 1024).into(), ..message("large") };
    let mut published = 0;
    // when the subscriber is stalled, publishing goes on until the queue is full
    while tokio::time::timeout(Duration::from_millis(200), bus.publish(Topic::ToProcess, vec![large()]))
        .await
        .is_ok()
    {
        published += 1;
        assert!(published < 1000, "the queue has no bound");
    }
    assert!(!bus.has_room(Topic::ToProcess), "and the door is told");
    assert!(bus.has_room(Topic::ToDecrypt), "of this topic alone");
    sinks[0].stalled.store(false, Ordering::SeqCst);
    bus.drained().await;
    assert!(bus.has_room(Topic::ToProcess));
    assert_eq!(sinks[0].ids().len(), published);
}
