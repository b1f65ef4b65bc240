'use strict';

// A room's file says its functions, and the queues, roles, tables and alarms these need.
const rooms = ['pipeline/deploy.yml', 'subscribers/deploy.js'];

const core = ['deploy/tables.yml', 'deploy/topics.yml', 'deploy/api.yml'];

// Dashboards and alarms.
const monitoring = '${file(dashboards/deploy.js):resources}';

const file = (path) => `\${file(${path})}`;
const part = (name) => rooms.map((room) => `\${file(${room}):${name}}`);

async function url({ resolveVariable }) {
  if (!(await resolveVariable('param:domain'))) return 'deploy/url.yml';
  if (await resolveVariable('param:hostedZoneId')) return 'deploy/domain.yml';
  throw new Error('--param domain=… also needs --param hostedZoneId=…, the Route 53 zone it is in');
}

// Who is told of alerts from the start. Anyone else subscribes to the topic.
async function told({ resolveVariable }) {
  const files = { alertEmail: 'deploy/alert-email.yml', alertPhone: 'deploy/alert-phone.yml' };
  const given = await Promise.all(Object.keys(files).map((name) => resolveVariable(`param:${name}`)));
  return Object.values(files).filter((_, i) => given[i]);
}

module.exports = {
  functions: part('functions'),
  resources: async (context) => [
    ...[...core, await url(context), ...(await told(context))].map(file),
    ...part('resources'),
    monitoring,
  ],
};
