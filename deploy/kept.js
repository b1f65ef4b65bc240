'use strict';

// Plugin: what `serverless remove` must not take along. It says so, and the next deploy takes the tables back.

class Kept {
  constructor(serverless, options, { log }) {
    Object.assign(this, { serverless, log });
    this.hooks = {
      'before:aws:deploy:deploy:createStack': () => this.takeBack(),
      'after:remove:remove': () => this.tell(),
    };
  }

  tables() {
    const resources = Object.values(this.serverless.service.resources.Resources);
    return resources.filter((r) => r.DeletionPolicy === 'Retain').map((r) => r.Properties.TableName);
  }

  // Without this, CloudFormation refuses to create a table that an earlier stack has left.
  takeBack() {
    if (this.tables().length === 0) return;
    const deploy = this.serverless.pluginManager.plugins.find((plugin) => plugin.getCreateChangeSetParams);
    const params = deploy.getCreateChangeSetParams;
    deploy.getCreateChangeSetParams = (...args) => ({ ...params.apply(deploy, args), ImportExistingResources: true });
  }

  tell() {
    const prefix = this.serverless.service.resources.Outputs.KeyPrefix.Value;
    const lines = [
      `Left: the shops' KMS keys, alias/${prefix}<shop_id>. Without its key a sealed sale can never be read again,`,
      'so Kassa deletes none. To see them: aws kms list-aliases',
    ];
    const tables = this.tables();
    if (tables.length > 0) {
      lines.push(
        `Left: the tables ${tables.join(', ')}. The next deploy takes them back. To delete one, with all it holds:`,
        '  aws dynamodb update-table --no-deletion-protection-enabled --table-name <table>',
        '  aws dynamodb delete-table --table-name <table>'
      );
    }
    this.log.notice(lines.join('\n'));
  }
}

module.exports = Kept;
