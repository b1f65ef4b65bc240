'use strict';

// Plugin: builds the bootstrap of each room that serverless packages.
//
// A function names its artifact, .serverless/<room>.zip. The room is the cargo package kassa-<room> with the binary
// <room>. Each zip has its room's name because serverless uploads an artifact under its file name: two bootstrap.zip
// would be one object, and all functions would run the same code.
//
// KASSA_ARTIFACTS=<folder> takes <folder>/<room>.zip instead of building: build once, deploy to many stages.

const { execFileSync, spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');

class Rust {
  constructor(serverless, options, { log }) {
    Object.assign(this, { serverless, log, root: serverless.serviceDir, venv: path.join(serverless.serviceDir, '.venv') });
    this.hooks = {
      'before:package:createDeploymentArtifacts': () => this.artifacts(),
      'before:deploy:function:packageFunction': () => this.artifacts(),
    };
  }

  artifacts() {
    const { service } = this.serverless;
    const named = service.getAllFunctions().map((name) => service.getFunction(name).package.artifact);
    for (const artifact of new Set(named)) {
      const room = path.basename(artifact, '.zip');
      const zip = fs.readFileSync(process.env.KASSA_ARTIFACTS ? this.built(room) : this.build(room));
      fs.mkdirSync(path.join(this.root, path.dirname(artifact)), { recursive: true });
      fs.writeFileSync(path.join(this.root, artifact), undated(zip));
    }
  }

  built(room) {
    return path.join(process.env.KASSA_ARTIFACTS, `${room}.zip`);
  }

  build(room) {
    const { architecture } = this.serverless.service.provider;
    const to = path.join(this.root, 'target/lambda-zip', architecture);
    this.log.notice(`Building ${room} for ${architecture}`);
    this.cargo(
      ...['lambda', 'build', '--profile', 'lambda', '--locked', '--output-format', 'zip', '--lambda-dir', to],
      ...['-p', `kassa-${room}`, '--features', 'lambda', '--bin', room, architecture === 'arm64' ? '--arm64' : '--x86-64']
    );
    return path.join(to, room, 'bootstrap.zip');
  }

  cargo(...args) {
    this.env ??= this.withCargoLambda();
    execFileSync('cargo', args, { cwd: this.root, env: this.env, stdio: 'inherit' });
  }

  // The environment in which `cargo lambda` is found: the user's own, or the project's, made here if there is none.
  withCargoLambda() {
    const works = (env, ...args) => spawnSync('cargo', [...args, '--version'], { env }).status === 0;
    const found = (env) => works(env, 'lambda');
    const { Error } = this.serverless.classes; // which is shown without a stack
    if (!works(process.env)) throw new Error('Rust is missing: see https://rustup.rs');
    if (found(process.env)) return process.env;
    const env = { ...process.env, PATH: `${this.venv}/bin${path.delimiter}${process.env.PATH}` };
    if (!found(env)) this.install();
    return env;
  }

  install() {
    this.log.notice('Installing cargo-lambda into .venv, which is in this folder only');
    const run = (command, ...args) => execFileSync(command, args, { cwd: this.root, stdio: 'inherit' });
    run('python3', '-m', 'venv', this.venv);
    run(`${this.venv}/bin/pip`, 'install', '--quiet', '-r', 'deploy/build-requirements.txt');
  }
}

// The same code must be the same zip, else there is always something to deploy: cargo-lambda writes when it was built.
// A date stands in the header of the one file and in the directory, to which the last 22 bytes point (PKWARE APPNOTE).
function undated(zip) {
  const [jan1980, directory] = [0x00210000, zip.readUInt32LE(zip.length - 6)];
  zip.writeUInt32LE(jan1980, 10);
  zip.writeUInt32LE(jan1980, directory + 12);
  return zip;
}

module.exports = Rust;
