'use strict';

// Writes out the blocks of deploy.yml.

const KEYS = 'topic filter batch window everyMinute drained memory environment allow resources when'.split(' ');

const SECONDS = ['subscriberTimeout', 'subscriberVisibility'];

async function subscribers({ resolveVariable }) {
  const blocks = await resolveVariable('file(subscribers/deploy.yml)');
  const owner = await Promise.all(['self:service', 'sls:stage', 'self:provider.region'].map(resolveVariable));
  const [timeout, visibility] = await Promise.all(SECONDS.map((name) => seconds(name, resolveVariable)));
  for (const [name, block] of Object.entries(blocks)) check(name, block, [...owner, name].join('-'));
  return Object.entries(blocks)
    .filter(([, block]) => block.when !== '')
    .map(([name, block]) => {
      const id = name.split('-').map(capital).join('');
      return { id, name, block, ...(block.drained ? drained(id) : pushed(id, block, timeout, visibility)) };
    });
}

// None where nothing is said.
async function seconds(name, resolveVariable) {
  const said = String(await resolveVariable(`param:${name}`));
  if (!/^[0-9]*$/.test(said)) throw new Error(`param ${name} is ${said}; it must be a number of seconds`);
  return Number(said);
}

function check(name, block, role) {
  const wrong = (what) => new Error(`subscribers/deploy.yml: ${name} ${what}`);
  if (!/^[a-z]+(-[a-z0-9]+)*$/.test(name)) throw wrong('must be words of small letters and digits, joined by -');
  const unknown = Object.keys(block).filter((key) => !KEYS.includes(key));
  if (unknown.length) throw wrong(`says ${unknown.join(', ')}; what it may say is ${KEYS.join(', ')}`);
  if (!block.topic) throw wrong('says no topic');
  // Of all it is called, the role's name comes to its limit first.
  if (role.length > 64) throw wrong(`is too long a name: its role's, ${role}, may have 64 characters`);
}

// Lambda brings the messages. They are tried again after 6 times the timeout and the window, as for the pipeline.
function pushed(id, { batch = 10, window = 5 }, timeout, visibility) {
  const sqs = { arn: arn(`${id}Queue`), batchSize: batch, maximumBatchingWindow: window };
  return {
    brought: [{ sqs: { ...sqs, functionResponseType: 'ReportBatchItemFailures' } }],
    timeout,
    visibility: visibility || 6 * timeout + window,
    receives: 5,
    environment: {},
    take: [allow(['sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes'], arn(`${id}Queue`))],
  };
}

// The function takes the messages itself. A receive is not a failure there: it puts back what cannot go now, and what
// never can it sends to the dead letters.
function drained(id) {
  const timeout = 55; // it is done before the next minute's
  return {
    brought: [],
    timeout,
    visibility: timeout + 5,
    receives: 1000, // the most there can be; with no limit at all SQS would not put dead letters back
    environment: {
      QUEUE_URL: ref(`${id}Queue`),
      DEAD_LETTERS_URL: ref(`${id}DeadLetters`),
      SCHEDULE_INTERVAL: '${param:scheduleInterval, null}', // an emulator's, where that is not a minute
    },
    take: [
      allow('${param:drain}', arn(`${id}Queue`)),
      allow('sqs:SendMessage', arn(`${id}DeadLetters`)),
    ],
  };
}

function lambda({ id, name, block, brought, timeout, environment }) {
  const scheduled = block.everyMinute || block.drained;
  return {
    handler: name,
    package: { artifact: '.serverless/subscribers.zip' },
    role: `${id}Role`,
    timeout,
    memorySize: block.memory ?? 128,
    environment: { STAGE: '${sls:stage}', TABLE: ref(`${id}Table`), ...environment, ...block.environment },
    events: [...brought, ...(scheduled ? [{ schedule: 'rate(1 minute)' }] : [])],
    // A minute that failed is left to the next.
    ...(scheduled && { maximumRetryAttempts: 0, maximumEventAge: 60 }),
  };
}

function template(subscriber) {
  const { id, name, block } = subscriber;
  const framework = capital(name.replaceAll('-', 'Dash')); // what the framework makes of a function's name
  const logging = { LogFormat: 'JSON', SystemLogLevel: 'WARN', ApplicationLogLevel: '${param:logLevel}' };
  const resources = {
    Role: role(subscriber, framework),
    Queue: queue(name, {
      VisibilityTimeout: subscriber.visibility,
      RedrivePolicy: { deadLetterTargetArn: arn(`${id}DeadLetters`), maxReceiveCount: subscriber.receives },
    }),
    DeadLetters: queue(`${name}-dead-letters`),
    QueuePolicy: queuePolicy(`${id}Queue`, [filledBy(block.topic, `${id}Queue`)]),
    DeadLettersPolicy: queuePolicy(`${id}DeadLetters`, []),
    Subscription: subscription(id, block),
    Table: table(name),
  };
  return {
    extensions: { [`${framework}LambdaFunction`]: { Properties: { LoggingConfig: logging } } },
    Resources: Object.fromEntries(Object.entries(resources).map(([kind, resource]) => [id + kind, resource])),
    Outputs: { [`${id}Table`]: { Value: ref(`${id}Table`) } },
  };
}

function role({ id, name, block, take }, framework) {
  const statements = [
    ...take,
    // What Documents does; its transactions are of puts.
    allow(['GetItem', 'BatchGetItem', 'Query', 'PutItem'].map((a) => `dynamodb:${a}`), arn(`${id}Table`)),
    allow(['logs:CreateLogStream', 'logs:PutLogEvents'], arn(`${framework}LogGroup`)),
    ...(block.allow ?? []),
  ];
  const lambda = { Effect: 'Allow', Principal: { Service: 'lambda.amazonaws.com' }, Action: 'sts:AssumeRole' };
  return {
    Type: 'AWS::IAM::Role',
    Properties: {
      RoleName: `\${self:service}-\${sls:stage}-\${aws:region}-${name}`,
      AssumeRolePolicyDocument: policy([lambda]),
      Policies: [{ PolicyName: name, PolicyDocument: policy(statements) }],
    },
  };
}

function queue(name, more = {}) {
  return {
    Type: 'AWS::SQS::Queue',
    Properties: {
      QueueName: `\${self:service}-\${sls:stage}-${name}`,
      SqsManagedSseEnabled: true,
      MessageRetentionPeriod: 14 * 24 * 3600,
      ...more,
    },
  };
}

function queuePolicy(queue, statements) {
  // The account is the emulator's, which has no TLS.
  const plain = { Bool: { 'aws:SecureTransport': false }, StringNotEquals: { 'aws:ResourceAccount': '000000000000' } };
  const tls = { Effect: 'Deny', Principal: '*', Action: 'sqs:*', Resource: '*', Condition: plain };
  return {
    Type: 'AWS::SQS::QueuePolicy',
    Properties: { Queues: [ref(queue)], PolicyDocument: policy([...statements, tls]) },
  };
}

function filledBy(topic, queue) {
  const from = { ArnEquals: { 'aws:SourceArn': ref(topic) } };
  return { ...allow('sqs:SendMessage', arn(queue)), Principal: { Service: 'sns.amazonaws.com' }, Condition: from };
}

function subscription(id, { topic, filter }) {
  return {
    Type: 'AWS::SNS::Subscription',
    Properties: {
      TopicArn: ref(topic),
      Protocol: 'sqs',
      Endpoint: arn(`${id}Queue`),
      RawMessageDelivery: true,
      ...(filter && { FilterPolicy: filter }),
    },
  };
}

function table(name) {
  return {
    Type: 'AWS::DynamoDB::Table',
    DeletionPolicy: '${param:tablePolicy}',
    UpdateReplacePolicy: '${param:tablePolicy}',
    Properties: {
      TableName: `\${self:service}-\${sls:stage}-${name}`,
      BillingMode: 'PAY_PER_REQUEST',
      AttributeDefinitions: [
        { AttributeName: 'group', AttributeType: 'S' },
        { AttributeName: 'name', AttributeType: 'S' },
      ],
      KeySchema: [
        { AttributeName: 'group', KeyType: 'HASH' },
        { AttributeName: 'name', KeyType: 'RANGE' },
      ],
      TimeToLiveSpecification: { AttributeName: 'expires', Enabled: true },
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
      SSESpecification: { SSEEnabled: true },
      DeletionProtectionEnabled: '${param:tableProtection}',
    },
  };
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const ref = (resource) => ({ Ref: resource });
const arn = (resource) => ({ 'Fn::GetAtt': [resource, 'Arn'] });
const allow = (action, resource) => ({ Effect: 'Allow', Action: action, Resource: resource });
const policy = (statements) => ({ Version: '2012-10-17', Statement: statements });

function merged(templates) {
  const sections = ['extensions', 'Resources', 'Outputs'];
  return Object.fromEntries(sections.map((of) => [of, Object.assign({}, ...templates.map((template) => template[of]))]));
}

module.exports = {
  functions: async (context) => Object.fromEntries((await subscribers(context)).map((s) => [s.name, lambda(s)])),
  resources: async (context) => {
    const all = await subscribers(context);
    return merged(all.flatMap((s) => [template(s), s.block.resources ?? {}]));
  },
};
