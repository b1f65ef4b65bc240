//! One suite per port, over each of its adapters: what the port's documentation says an adapter MUST do.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kassa::embedded::FileKeys;
use kassa_bus::keys::{KeyError, ShopKeys};
use kassa_bus::kms::KmsKeys;
use kassa_bus::sns::Sns;
use kassa_bus::wake::{SqsWakes, Wakes};
use kassa_bus::{Message, Publisher, ShopId, Topic};

use crate::common::cloud::Cloud;
use crate::common::world::{encrypting, wrap};

fn shop(id: &str) -> ShopId {
    id.parse().unwrap()
}

/// A ciphertext that no key opens.
fn encrypted_for_nobody(ciphertext: &[u8]) -> Vec<u8> {
    let mut damaged = ciphertext.to_vec();
    damaged[7] ^= 1;
    damaged
}

/// The `ShopKeys` port. `AMIS1` and `AMIS2` have keys, `NOWHERE` has none, `BROKEN`'s cannot be used.
async fn shop_keys(keys: &dyn ShopKeys) {
    let public = keys.public_key(&shop("AMIS1")).await.unwrap();
    let ciphertext = wrap(&encrypting(&public), b"a sale");
    // the shop's key opens what its public key closed
    assert_eq!(keys.decrypt(&shop("AMIS1"), None, &ciphertext).await.unwrap().as_slice(), b"a sale");
    // also by its own name, and no key opens by a name that the shop has none of
    let kid = Some(public.kid());
    assert_eq!(keys.decrypt(&shop("AMIS1"), kid, &ciphertext).await.unwrap().as_slice(), b"a sale");
    for kid in ["A".repeat(43).parse().unwrap(), keys.public_key(&shop("AMIS2")).await.unwrap().kid().clone()]
    {
        let opened = keys.decrypt(&shop("AMIS1"), Some(&kid), &encrypted_for_nobody(&ciphertext)).await;
        assert!(matches!(opened, Err(KeyError::DoesNotOpen)));
    }
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
        assert!(matches!(keys.decrypt(&shop(id), None, wrong).await, Err(KeyError::DoesNotOpen)));
    }
    // no key and a key that cannot be used now are told apart
    assert!(matches!(keys.decrypt(&shop("NOWHERE"), None, &ciphertext).await, Err(KeyError::NoSuchKey)));
    assert!(matches!(keys.public_key(&shop("NOWHERE")).await, Err(KeyError::NoSuchKey)));
    assert!(matches!(keys.decrypt(&shop("BROKEN"), None, &ciphertext).await, Err(KeyError::Unavailable(_))));
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

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_a_wake_up_comes_to_the_queue_after_its_time_and_is_told_from_a_message() {
    let cloud = Cloud::deployed().await;
    let made = "print(json.dumps(aws('sqs').create_queue(QueueName='woken')['QueueUrl']))";
    let queue: String = serde_json::from_value(cloud.boto(made).await).unwrap();
    let wakes = SqsWakes::new(aws_sdk_sqs::Client::new(&cloud.sdk_config().await), queue);
    // given one that is to come in a second and a bit, and one that is to come after as long as can be
    for (about, after) in [("AMIS1", Duration::from_millis(1_001)), ("AMIS2", Duration::from_hours(1))] {
        wakes.wake(about, after).await.unwrap();
    }
    // then it is there after two seconds, and not before
    let received = "
q, begun = aws('sqs'), time.time()
url = q.get_queue_url(QueueName='woken')['QueueUrl']
early = q.receive_message(QueueUrl=url).get('Messages', [])
while True:
    got = q.receive_message(QueueUrl=url, MessageAttributeNames=['All'], WaitTimeSeconds=1).get('Messages', [])
    if got or time.time() - begun > 20:
        break
print(json.dumps([len(early), [[m['Body'], m['MessageAttributes']['wake_up']['StringValue']] for m in got]]))";
    let received = cloud.boto(&format!("import time\n{received}")).await;
    assert_eq!(received, serde_json::json!([0, [["wake-up", "AMIS1"]]]));
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

fn messages(count: usize) -> (Vec<Message>, Vec<String>) {
    let ids: Vec<String> = (0..count).map(|n| format!("{n:04}")).collect();
    let message = |id: &String| Message {
        id: id.clone(),
        attributes: std::collections::HashMap::new(),
        body: format!("\"{id}\"").into(),
        sent: None,
    };
    (ids.iter().map(message).collect(), ids)
}
