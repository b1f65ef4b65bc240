'use strict';

// A room is a folder whose deploy.yml says its functions, and the queues, roles and alarms these need.
const rooms = ['pipeline'];

const core = ['deploy/tables.yml', 'deploy/topics.yml', 'deploy/api.yml'];

const file = (path) => `\${file(${path})}`;
const part = (name) => rooms.map((room) => `\${file(${room}/deploy.yml):${name}}`);

async function url({ resolveVariable }) {
  if (!(await resolveVariable('param:domain'))) return 'deploy/url.yml';
  if (await resolveVariable('param:hostedZoneId')) return 'deploy/domain.yml';
  throw new Error('--param domain=… also needs --param hostedZoneId=…, the Route 53 zone it is in');
}

module.exports = {
  functions: part('functions'),
  resources: async (context) => [...core.map(file), file(await url(context)), ...part('resources')],
};
