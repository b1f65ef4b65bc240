//! `kassa restore --stage`: point-in-time recovery, rehearsed and used, on an emulated AWS. The emulator restores a
//! table as it is now, whatever moment is asked for, at once, and without saying of what it is a copy; what AWS says and
//! how it makes one wait has a stand-in in front of it.

mod aws;

use std::process::Output;

use serde_json::{Value, json};

use self::aws::Aws;
use crate::common::cloud::{self, Cloud, root};
use crate::common::process::accepted;

const EVENTS: &str = "kassa-local-events";
const SHOPS: &str = "kassa-local-shops";
const COPIES: [&str; 2] = ["kassa-local-events-restored", "kassa-local-shops-restored"];

/// A stage that has sold twelve sales, one of which it rejected, and whose tables can be restored.
async fn sold() -> Cloud {
    let cloud = Cloud::deployed().await;
    let sell = async |more: &[&str]| {
        let sell = ["sell", "--shop", "AMIS1", "--stage", "local", "--json", "--count"];
        accepted(&cloud.kassa(&[&sell[..], more].concat()).await);
    };
    sell(&["11"]).await;
    sell(&["1", "--key-of", "AMIS2"]).await;
    let right = |c: &Value| c["recorded"] == 11 && c["rejected"] == 1 && c["mismatches"] == json!([]);
    cloud.until("12 sales", &["check"], right).await;
    cloud
}

/// The emulator forgets what the template says of it.
async fn with_recovery(cloud: &Cloud) {
    let on = "
for table in (EVENTS, SHOPS):
    aws('dynamodb').update_continuous_backups(TableName=table, PointInTimeRecoverySpecification={'PointInTimeRecoveryEnabled': True})
print('null')";
    boto(cloud, on).await;
}

async fn boto(cloud: &Cloud, code: &str) -> Value {
    let names = format!("EVENTS, SHOPS = '{EVENTS}', '{SHOPS}'\n");
    cloud.boto(&(names + code)).await
}

/// Every row of every table, and what the tables are. What the stage writes of itself each minute is left out.
async fn stage(cloud: &Cloud) -> Value {
    let read = r"
db, found = aws('dynamodb'), {}
for table in sorted(db.list_tables()['TableNames']):
    rows = [row for page in db.get_paginator('scan').paginate(TableName=table) for row in page['Items']]
    rows = sorted(json.dumps(row, sort_keys=True) for row in rows if row.get('shop_id', {}).get('S') != '#reconcile')
    about = db.describe_table(TableName=table)['Table']
    about = {name: about.get(name) for name in ('LatestStreamArn', 'KeySchema', 'TableId', 'TableStatus', 'DeletionProtectionEnabled')}
    found[table] = {'rows': rows, 'about': about}
print(json.dumps(found))";
    boto(cloud, read).await
}

async fn tables(cloud: &Cloud) -> Vec<String> {
    stage(cloud).await.as_object().unwrap().keys().cloned().collect()
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn restore(cloud: &Cloud, more: &[&str]) -> (Option<i32>, String, String) {
    told(&cloud.kassa(&[&["restore", "--stage", "local"], more].concat()).await)
}

/// Its answer in JSON, and whether it found all well.
async fn restored(cloud: &Cloud, more: &[&str]) -> (bool, Value) {
    let (code, out, err) = restore(cloud, &[more, &["--json"]].concat()).await;
    let answer = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{more:?}: {out}{err}"));
    (code == Some(0), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_restores_rebuilds_and_checks_copies_and_leaves_the_stage_as_it_was() {
    let cloud = sold().await;

    // Where nothing can be restored, that is said before anything is made.
    let before = stage(&cloud).await;
    let (code, _, err) = restore(&cloud, &[]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("point-in-time recovery of the table kassa-local-events is off"), "{err}");
    assert!(err.contains("aws dynamodb update-continuous-backups --table-name kassa-local-events"), "{err}");
    with_recovery(&cloud).await;
    // A moment that AWS has not is refused with those it has.
    let (code, _, err) = restore(&cloud, &["--at", "2020-11-22T12:00:00Z"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("kassa-local-events can be had as it was from 20"), "{err}");
    assert!(err.contains("not at 2020-11-22T12:00:00Z"), "{err}");
    assert_eq!(stage(&cloud).await, before);

    // A rehearsal finds what kassa check finds of the stage, from the events alone, in a stream of its own.
    let (well, answer) = restored(&cloud, &[]).await;
    assert!(well, "{answer}");
    let check = &answer["check"];
    assert_eq!(*check, cloud.ask(&["check"]).await);
    assert_eq!(
        (&check["accepted"], &check["recorded"], &check["rejected"]),
        (&json!(12), &json!(11), &json!(1))
    );
    assert_eq!((&answer["rebuilt"]["sales"], &answer["shards"]), (&json!(11), &json!(1)));
    assert_eq!((&answer["positions"], &answer["tables"]), (&json!(1), &json!(COPIES)));
    let compared = &answer["compared"];
    assert_eq!(compared["stage_events"], compared["copy_events"]);
    assert_eq!((&compared["lost_events"], &compared["lost"]), (&json!(0), &json!([])));
    // Its copies are gone, and the stage's tables are byte for byte what they were.
    assert_eq!((&answer["kept"], &answer["put_back"]), (&json!(false), &Value::Null));
    assert_eq!(stage(&cloud).await, before);

    // In words as well.
    let (code, out, err) = restore(&cloud, &[]).await;
    assert_eq!(code, Some(0), "{err}");
    for said in [
        "kassa-local as it was at 20",
        "1 shards; 1 positions cleared",
        "12 accepted = 11 recorded + 1 rejected + 0 pending",
        "The stage lacks nothing of the copy",
        "The copies were removed.",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    assert_eq!(stage(&cloud).await, before);
    // Nothing was written but to copies that are gone, and sales go on.
    cloud::succeeded(
        "sell",
        &cloud.kassa(&["sell", "--shop", "AMIS1", "--count", "1", "--stage", "local"]).await,
    );
    cloud.until("one more", &["check"], |c| c["recorded"] == 12 && c["mismatches"] == json!([])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stage_lost_is_put_back_from_a_copy_that_was_kept_and_nothing_else_is_touched() {
    let cloud = sold().await;
    with_recovery(&cloud).await;
    let (operator, rehearser) = (Operator::new(&cloud, true).await, Operator::new(&cloud, false).await);
    let as_operator = async |args: &[&str]| operator.restores(&cloud, args).await;
    let whole = stage(&cloud).await;
    // Given a copy that was kept: with the rights that the runbook gives, and no more.
    let (code, out, err) = as_operator(&["--keep", "--json"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let kept: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(kept["kept"], json!(true));
    let at = kept["at"].as_str().unwrap().to_owned();
    // Another moment is not mixed with it.
    let (code, _, err) = as_operator(&["--at", "2026-01-01T00:00:00Z"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("ask for `--at {at}`")) && err.contains("--discard"), "{err}");

    // when the stage loses sales, whole and in part, what it knows of a shop, and a declared item, and sells on
    let lose = r"
db = aws('dynamodb')
events = [row for page in db.get_paginator('scan').paginate(TableName=EVENTS) for row in page['Items']]
recorded = sorted(row['event']['S'] for row in events if row['kind']['S'] == 'recorded')
gone = [row for row in events if row['event']['S'].split('#')[0] in [event.split('#')[0] for event in recorded[:3]]]
gone += [row for row in events if row['event']['S'] == recorded[3]]
for row in gone:
    db.delete_item(TableName=EVENTS, Key={key: row[key] for key in ('stream', 'event')})
for key in (('AMIS2', 'info'), ('#shops', 'AMIS2'), ('AMIS2', 's-00098')):
    db.delete_item(TableName=SHOPS, Key={'shop_id': {'S': key[0]}, 'record_type': {'S': key[1]}})
print(json.dumps(len(gone)))";
    assert_eq!(boto(&cloud, lose).await, 7);
    cloud::succeeded(
        "sell",
        &cloud.kassa(&["sell", "--shop", "AMIS1", "--count", "2", "--stage", "local"]).await,
    );
    cloud.until("two more", &["check"], |c| c["recorded"] == 9).await;
    // then a look at the copy names it, and changes nothing,
    let damaged = stage(&cloud).await;
    let (code, out, _) = as_operator(&["--at", &at, "--json"]).await;
    let answer: Value = serde_json::from_str(&out).unwrap();
    let compared = &answer["compared"];
    assert_eq!(
        (code, &compared["lost_events"], &compared["lost_shop_rows"]),
        (Some(1), &json!(7), &json!(3))
    );
    assert!(out.contains("AMIS2 info") && out.contains("#recorded"), "{out}");
    assert_eq!(answer["kept"], json!(true), "a copy that was kept stays");
    let of_stage = |all: &Value| json!([all[EVENTS], all[SHOPS]]);
    // which who may only rehearse cannot do,
    let (code, _, err) = rehearser.restores(&cloud, &["--at", &at, "--put-back"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("put a row back") && err.contains("dynamodb:PutItem"), "{err}");
    assert_eq!(of_stage(&stage(&cloud).await), of_stage(&damaged));
    // and putting back brings all of it back beside what was sold since.
    let (code, out, err) = as_operator(&["--at", &at, "--put-back", "--json"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let put = &answer["put_back"];
    assert_eq!((&put["events"], &put["shop_rows"]), (&json!(7), &json!(3)));
    let right = |c: &Value| c["recorded"] == 13 && c["rejected"] == 1 && c["mismatches"] == json!([]);
    cloud.until("all of it", &["check"], right).await;
    let now = stage(&cloud).await;
    let rows = |all: &Value, table: &str| all[table]["rows"].as_array().unwrap().clone();
    for row in rows(&whole, EVENTS) {
        assert!(rows(&now, EVENTS).contains(&row), "an event is not what it was: {row}");
    }
    for row in rows(&whole, SHOPS).iter().filter(|row| row.to_string().contains("AMIS2")) {
        assert!(rows(&now, SHOPS).contains(row), "a row is not what it was: {row}");
    }
    assert_eq!(now[EVENTS]["about"], whole[EVENTS]["about"]);

    // An event that somebody changed is named and left alone.
    let change = r"
row = aws('dynamodb').scan(TableName=EVENTS, Limit=1)['Items'][0]
row['trace'] = {'S': '00-11111111111111111111111111111111-2222222222222222-01'}
aws('dynamodb').put_item(TableName=EVENTS, Item=row)
print(json.dumps(row['event']['S']))";
    let changed = boto(&cloud, change).await;
    let tampered = stage(&cloud).await;
    let (well, answer) = restored(&cloud, &[]).await;
    assert_eq!((well, &answer["compared"]["changed_events"]), (false, &json!(1)));
    assert!(answer["compared"]["changed"][0].as_str().unwrap().ends_with(changed.as_str().unwrap()));
    assert_eq!(stage(&cloud).await[EVENTS], tampered[EVENTS]);

    // The operator may do that, and nothing else to the stage.
    let denied = format!(
        r"
db = boto3.Session(aws_access_key_id='{}', aws_secret_access_key='{}', region_name='eu-west-1').client('dynamodb', endpoint_url=aws('dynamodb').meta.endpoint_url)
told, key = [], {{name: row[name] for row in aws('dynamodb').scan(TableName=EVENTS, Limit=1)['Items'] for name in ('stream', 'event')}}
for call in (
    lambda: db.delete_table(TableName=EVENTS),
    lambda: db.delete_table(TableName=SHOPS),
    lambda: db.update_table(TableName=SHOPS, DeletionProtectionEnabled=False),
    lambda: db.update_time_to_live(TableName=EVENTS, TimeToLiveSpecification={{'Enabled': True, 'AttributeName': 'at'}}),
    lambda: db.delete_item(TableName=EVENTS, Key=key),
):
    try:
        told.append(str(call()))
    except db.exceptions.ClientError as error:
        told.append(error.response['Error']['Code'])
print(json.dumps(told))",
        operator.key, operator.secret
    );
    assert_eq!(boto(&cloud, &denied).await, json!(vec!["AccessDeniedException"; 5]));
    let (code, out, err) = as_operator(&["--discard"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, format!("Removed: {}\n", COPIES.join(", ")));
    assert_eq!(stage(&cloud).await[EVENTS], tampered[EVENTS]);
    assert!(tables(&cloud).await.iter().all(|table| !table.ends_with("-restored")));
    assert_eq!(restore(&cloud, &["--discard"]).await.1, "kassa-local has no copies.\n");
}

/// Somebody who may do in the stage `local` what docs/runbook.md says.
struct Operator {
    key: String,
    secret: String,
}

impl Operator {
    /// With all of the policy, or without what is for putting back.
    async fn new(cloud: &Cloud, may_put_back: bool) -> Self {
        let runbook = std::fs::read_to_string(root().join("docs/runbook.md")).unwrap();
        let policy = runbook.split("```json\n").nth(1).and_then(|text| text.split("```").next()).unwrap();
        let mut policy: Value = serde_json::from_str(&policy.replace("kassa-prod", "kassa-local")).unwrap();
        let statements = policy["Statement"].as_array_mut().unwrap();
        let of_put_back = |statement: &Value| statement["Sid"].as_str().unwrap().starts_with("PutBack");
        assert_eq!(statements.iter().filter(|statement| of_put_back(statement)).count(), 2);
        statements.retain(|statement| may_put_back || !of_put_back(statement));
        // The emulator does not see which table these are about; those the policy has to have, it has.
        let blind = [
            "RestoreTableToPointInTime",
            "TagResource",
            "ListTagsOfResource",
            "DescribeStream",
            "GetShardIterator",
            "GetRecords",
        ]
        .map(|action| format!("dynamodb:{action}"));
        assert!(blind.iter().all(|action| json!(statements).to_string().contains(action)));
        statements.push(json!({"Effect": "Allow", "Action": blind, "Resource": "*"}));
        let code = format!(
            r"
iam, name = aws('iam'), 'operator-{may_put_back}'
iam.create_user(UserName=name)
iam.put_user_policy(UserName=name, PolicyName='restore', PolicyDocument={})
key = iam.create_access_key(UserName=name)['AccessKey']
print(json.dumps([key['AccessKeyId'], key['SecretAccessKey']]))",
            json!(policy.to_string())
        );
        let (key, secret) = serde_json::from_value(boto(cloud, &code).await).unwrap();
        Self { key, secret }
    }

    async fn restores(&self, cloud: &Cloud, more: &[&str]) -> (Option<i32>, String, String) {
        let mut command = cloud.command(env!("CARGO_BIN_EXE_kassa").as_ref());
        command.args([&["restore", "--stage", "local"], more].concat());
        command.env("AWS_ACCESS_KEY_ID", &self.key).env("AWS_SECRET_ACCESS_KEY", &self.secret);
        told(&cloud.run(command).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_that_was_cut_off_goes_on_and_what_is_not_its_own_is_left_alone() {
    let cloud = sold().await;
    with_recovery(&cloud).await;
    let before = stage(&cloud).await;
    // Given a table that has a copy's name and is none,
    let make = "
aws('dynamodb').create_table(TableName=SHOPS + '-restored', BillingMode='PAY_PER_REQUEST', KeySchema=[{'AttributeName': 'a', 'KeyType': 'HASH'}], AttributeDefinitions=[{'AttributeName': 'a', 'AttributeType': 'S'}])
aws('dynamodb').put_item(TableName=SHOPS + '-restored', Item={'a': {'S': 'somebody needs this'}})
print('null')";
    boto(&cloud, make).await;
    // then nothing is restored or removed, and it is named.
    for args in [&[][..], &["--keep"], &["--put-back"], &["--discard"]] {
        let (code, _, err) = restore(&cloud, args).await;
        assert_eq!(code, Some(1));
        let named =
            "there is a table kassa-local-shops-restored that was not restored from kassa-local-shops";
        assert!(err.contains(named), "{args:?}: {err}");
    }
    let theirs = stage(&cloud).await;
    assert_eq!(theirs["kassa-local-shops-restored"]["rows"].as_array().unwrap().len(), 1);
    assert_eq!(theirs.as_object().unwrap().len(), before.as_object().unwrap().len() + 1);
    boto(&cloud, "aws('dynamodb').delete_table(TableName=SHOPS + '-restored'); print('null')").await;

    // Given AWS, which says what it restored, and lets one wait; and one that fails at each of these,
    let aws = Aws::before(&cloud).await;
    let failing = [
        ("RestoreTableToPointInTime", 1),
        ("RestoreTableToPointInTime", 2),
        ("TagResource", 1),
        ("UpdateTable", 1),
        ("DeleteItem", 1),
        ("TransactWriteItems", 1),
        ("BatchGetItem", 1),
        ("DeleteTable", 1),
        ("DeleteTable", 2),
    ];
    for (operation, nth) in failing {
        aws.fails(Some((operation, nth)));
        let (code, out, err) = aws.restore(&cloud, &["--json"]).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{operation} {nth}: {err}");
        assert!(err.contains("the same command goes on with it"), "{operation}: {err}");
        // then the stage is as it was,
        let now = stage(&cloud).await;
        assert_eq!((&now[EVENTS], &now[SHOPS]), (&before[EVENTS], &before[SHOPS]), "{operation} {nth}");
    }
    // and in the end the same command comes to its end.
    aws.fails(None);
    let (code, out, err) = aws.restore(&cloud, &["--json"]).await;
    assert_eq!(code, Some(0), "{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["check"]["recorded"], &answer["kept"]), (&json!(11), &json!(false)));
    assert!(aws.waited() > 0, "nothing was waited for");
    assert_eq!(stage(&cloud).await, before);

    // What was made and not looked at yet can be removed.
    aws.fails(Some(("TagResource", 2)));
    assert_eq!(aws.restore(&cloud, &[]).await.0, Some(1));
    assert_eq!(tables(&cloud).await.len(), before.as_object().unwrap().len() + 2);
    aws.fails(None);
    let (code, out, err) = aws.restore(&cloud, &["--discard"]).await;
    assert_eq!((code, out), (Some(0), format!("Removed: {}\n", COPIES.join(", "))), "{err}");
    assert_eq!(stage(&cloud).await, before);
}
