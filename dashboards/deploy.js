'use strict';

// Makes CloudFormation of what is in this folder: each *.json a dashboard, of alarms.json the alarms.

const dashboards = ['sales', 'operations', 'keys'];

const COMPARISONS = {
  '>=': 'GreaterThanOrEqualToThreshold',
  '>': 'GreaterThanThreshold',
  '<=': 'LessThanOrEqualToThreshold',
  '<': 'LessThanThreshold',
};

async function resources({ resolveVariable }) {
  const [service, stage] = await Promise.all(['self:service', 'sls:stage'].map(resolveVariable));
  const [monitoring, runbook, warehouse] = await Promise.all(
    ['monitoring', 'runbookUrl', 'warehouseUrl'].map((name) => resolveVariable(`param:${name}`))
  );
  if (!['all', 'plain'].includes(monitoring)) throw new Error(`--param monitoring=${monitoring}: it is all or plain`);
  const read = (name) => resolveVariable(`file(dashboards/${name}.json)`);
  const context = { stack: `${service}-${stage}`, runbook: runbook || 'docs/runbook.md' };
  const alarms = deployed(await read('alarms'), { plain: monitoring === 'plain', warehouse: Boolean(warehouse) });
  const names = [...alarms.alarms, ...alarms.composites].map(({ name }) => name);
  const bodies = await Promise.all(dashboards.map(read));
  return {
    Resources: Object.fromEntries([
      ...dashboards.map((name, i) => [`${id(name)}Dashboard`, dashboard(name, bodies[i], names, context)]),
      ...alarms.alarms.map((alarm) => [`${id(alarm.name)}Alarm`, metricAlarm(alarm, context)]),
      ...alarms.composites.map((alarm) => [`${id(alarm.name)}Alarm`, composite(alarm, context)]),
    ]),
  };
}

// The emulator's CloudFormation takes plain alarms only, which then speak for themselves, as no composite does.
// Without a warehouse nothing can wait for it.
function deployed({ alarms, composites }, { plain, warehouse }) {
  const here = alarms.filter(({ when }) => when !== 'warehouse' || warehouse);
  if (!plain) return { alarms: here, composites };
  return { alarms: here.filter(({ metric }) => metric).map((alarm) => ({ ...alarm, actions: true })), composites: [] };
}

function dashboard(name, body, alarms, context) {
  const there = (arn) => alarms.some((alarm) => arn.endsWith(`:\${stack}-${alarm}`));
  const widgets = body.widgets.map((widget) => {
    if (widget.type !== 'alarm') return widget;
    return { ...widget, properties: { ...widget.properties, alarms: widget.properties.alarms.filter(there) } };
  }).filter(({ properties }) => properties.alarms?.length !== 0);
  return {
    Type: 'AWS::CloudWatch::Dashboard',
    Properties: {
      DashboardName: `${context.stack}-${name}`,
      DashboardBody: { 'Fn::Sub': filled(JSON.stringify({ ...body, widgets }), context) },
    },
  };
}

// Placeholders as CloudFormation has them. The dashboards' ARNs are of AWS's main partition, which this need not be.
function filled(text, { stack }) {
  return text
    .replaceAll('${stack}', stack)
    .replaceAll('${region}', '${AWS::Region}')
    .replaceAll('${account}', '${AWS::AccountId}')
    .replaceAll('${api}', '${HttpApi}')
    .replaceAll('arn:aws:', 'arn:${AWS::Partition}:');
}

function metricAlarm(alarm, context) {
  const { metric, metrics, expression, period } = alarm;
  const watched = metric
    ? { ...named(metric, context), Period: period, ...statistic(metric.stat) }
    : { Metrics: math(metrics, expression, period, context) };
  return {
    Type: 'AWS::CloudWatch::Alarm',
    Properties: {
      ...described(alarm, context),
      ...watched,
      ComparisonOperator: COMPARISONS[alarm.comparison],
      Threshold: alarm.threshold,
      EvaluationPeriods: alarm.evaluation_periods,
      DatapointsToAlarm: alarm.datapoints_to_alarm,
      TreatMissingData: alarm.missing,
      ...(alarm.actions && told),
    },
  };
}

function math(metrics, expression, period, context) {
  const queries = Object.entries(metrics).map(([Id, metric]) => ({
    Id,
    MetricStat: { Metric: named(metric, context), Period: period, Stat: metric.stat },
    ReturnData: false,
  }));
  return [...queries, { Id: 'watched', Expression: expression, Period: period, ReturnData: true }];
}

function named({ namespace, name, dimensions }, context) {
  const value = (text) => (text === '${api}' ? ref('HttpApi') : text.replaceAll('${stack}', context.stack));
  const all = Object.entries(dimensions).map(([Name, text]) => ({ Name, Value: value(text) }));
  return {
    Namespace: value(namespace),
    MetricName: name,
    ...(all.length && { Dimensions: all }),
  };
}

const statistic = (stat) => (/^p\d/.test(stat) ? { ExtendedStatistic: stat } : { Statistic: stat });

function composite(alarm, context) {
  const { any, suppressed_by, wait, extension } = alarm;
  const rule = any.map((name) => `ALARM("\${${id(name)}Alarm}")`).join(' OR ');
  return {
    Type: 'AWS::CloudWatch::CompositeAlarm',
    Properties: {
      ...described(alarm, context),
      AlarmRule: { 'Fn::Sub': rule },
      ...(suppressed_by && {
        ActionsSuppressor: { 'Fn::GetAtt': [`${id(suppressed_by)}Alarm`, 'Arn'] },
        ActionsSuppressorWaitPeriod: wait,
        ActionsSuppressorExtensionPeriod: extension,
      }),
      ...told,
    },
  };
}

// As `description` in src/monitor/alarms.rs.
function described({ name, title, meaning, run }, { stack, runbook }) {
  return {
    AlarmName: `${stack}-${name}`,
    AlarmDescription: `${title}. ${meaning}\n\nRun: ${run}\nMore: ${runbook}#${name}`,
  };
}

const ref = (resource) => ({ Ref: resource });
const told = { AlarmActions: [ref('AlertsTopic')], OKActions: [ref('AlertsTopic')] };
const id = (name) => name.split('-').map((word) => word[0].toUpperCase() + word.slice(1)).join('');

module.exports = { resources };
