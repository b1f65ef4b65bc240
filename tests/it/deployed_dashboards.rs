//! Dashboards and alarms as `serverless deploy` puts them on an emulated AWS.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kassa::monitor::alarms::{Alarms, Watch};
use kassa::monitor::dashboard::{BODIES, Content, Dashboard};
use kassa::monitor::placeholders::Placeholders;
use serde_json::{Value, json};

use crate::common::cloud::Cloud;

const STACK: &str = "kassa-local";

/// What stands in a resource of the deployment.
async fn asked(cloud: &Cloud, expression: &str) -> Value {
    cloud.boto(&format!("cw = aws('cloudwatch')\nprint(json.dumps({expression}, default=str))")).await
}

async fn output(cloud: &Cloud, name: &str) -> String {
    let outputs = "describe_stacks(StackName='kassa-local')['Stacks'][0]['Outputs']";
    let find = format!(
        "[o['OutputValue'] for o in aws('cloudformation').{outputs} if o['OutputKey'] == '{name}'][0]"
    );
    asked(cloud, &find).await.as_str().unwrap().to_owned()
}

/// A queue that gets every alert from now on.
async fn listen(cloud: &Cloud) {
    let topic = output(cloud, "AlertsTopic").await;
    let subscribe = format!(
        "q = aws('sqs')
url = q.create_queue(QueueName='ict')['QueueUrl']
arn = q.get_queue_attributes(QueueUrl=url, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
policy = {{'Version': '2012-10-17', 'Statement': [{{'Effect': 'Allow', 'Principal': {{'Service': 'sns.amazonaws.com'}}, 'Action': 'sqs:SendMessage', 'Resource': arn}}]}}
q.set_queue_attributes(QueueUrl=url, Attributes={{'Policy': json.dumps(policy)}})
aws('sns').subscribe(TopicArn='{topic}', Protocol='sqs', Endpoint=arn, Attributes={{'RawMessageDelivery': 'true'}})
print('null')"
    );
    cloud.boto(&subscribe).await;
}

/// What came of an alarm, once something in this state has.
async fn told(cloud: &Cloud, alarm: &str, state: &str) -> Value {
    let receive = "q = aws('sqs')
messages = q.receive_message(QueueUrl=q.get_queue_url(QueueName='ict')['QueueUrl'], MaxNumberOfMessages=10, VisibilityTimeout=0).get('Messages', [])
print(json.dumps([json.loads(m['Body']) for m in messages]))";
    let begun = Instant::now();
    loop {
        let messages = cloud.boto(receive).await;
        let right = |m: &&Value| m["AlarmName"] == format!("{STACK}-{alarm}") && m["NewStateValue"] == state;
        if let Some(message) = messages.as_array().unwrap().iter().find(right) {
            return message.clone();
        }
        assert!(begun.elapsed() < Duration::from_mins(3), "{alarm} is not told to be {state}: {messages}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_are_there_as_they_are_written_and_an_alarm_reaches_whoever_must_know() {
    // given a deployed shop, and ICT
    let cloud = Cloud::deployed().await;
    let (api, topic) = (output(&cloud, "HttpApiId").await, output(&cloud, "AlertsTopic").await);
    let with = Placeholders { stack: STACK, region: "eu-west-1", account: "000000000000", api: &api };

    // then the dashboards are those of the folder, but for alarms that the emulator cannot have
    let Alarms { alarms, .. } = Alarms::of(&with).unwrap();
    let plain: Vec<_> = alarms.iter().filter(|alarm| matches!(alarm.what, Watch::Metric(..))).collect();
    let names: BTreeSet<&str> = plain.iter().map(|alarm| alarm.name.as_str()).collect();
    for (name, file) in BODIES {
        let found = asked(&cloud, &format!("cw.get_dashboard(DashboardName='{STACK}-{name}')")).await;
        let found = Dashboard::read(found["DashboardBody"].as_str().unwrap(), &with).unwrap();
        let mut wanted = Dashboard::read(file, &with).unwrap();
        for widget in &mut wanted.widgets {
            if let Content::Alarms { alarms, .. } = &mut widget.content {
                alarms.retain(|alarm| names.contains(alarm.as_str()));
            }
        }
        wanted.widgets.retain(|w| !matches!(&w.content, Content::Alarms { alarms, .. } if alarms.is_empty()));
        assert_eq!(found, wanted, "{name}");
    }

    // and the alarms say what to run, and tell the topic
    let found =
        asked(&cloud, &format!("cw.describe_alarms(AlarmNamePrefix='{STACK}-')['MetricAlarms']")).await;
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), plain.len());
    for alarm in &plain {
        let of = found.iter().find(|of| of["AlarmName"] == format!("{STACK}-{}", alarm.name)).unwrap();
        assert_eq!(of["AlarmDescription"], alarm.description());
        assert_eq!((&of["AlarmActions"], &of["OKActions"]), (&json!([topic]), &json!([topic])));
        assert_ne!(of["StateValue"], "ALARM", "{}: {}", alarm.name, of["StateReason"]);
    }

    // when sales have been pending for long, ICT is told; and again when it is over
    listen(&cloud).await;
    pending_for(&cloud, 400).await;
    let message = told(&cloud, "sales-stuck", "ALARM").await;
    assert!(message["AlarmDescription"].as_str().unwrap().contains("Run: kassa check"), "{message}");
    let over =
        format!("str(cw.set_alarm_state(AlarmName='{STACK}-sales-stuck', StateValue='OK', StateReason='-'))");
    asked(&cloud, &over).await;
    told(&cloud, "sales-stuck", "OK").await;

    // when the shop is removed, nothing of it is left
    cloud.serverless(&["remove"]).await;
    let left = "[cw.list_dashboards()['DashboardEntries'], cw.describe_alarms()['MetricAlarms']]";
    assert_eq!(asked(&cloud, left).await, json!([[], []]));
}

/// Says for some minutes back, as the function `watch` would, how long the oldest sale has been pending.
async fn pending_for(cloud: &Cloud, seconds: u32) {
    let put = format!(
        "import datetime
now = datetime.datetime.now(datetime.timezone.utc)
data = [dict(MetricName='pending_age', Unit='Seconds', Value={seconds}, Timestamp=now - datetime.timedelta(seconds=s)) for s in (0, 60, 120)]
cw = aws('cloudwatch')
print(json.dumps(str(cw.put_metric_data(Namespace='{STACK}', MetricData=data))))"
    );
    cloud.boto(&put).await;
}
