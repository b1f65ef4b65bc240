#!/usr/bin/env bash
# An AWS on this machine, emulated by MiniStack, with the shop deployed on it.
#
#   deploy/local-cloud.sh up      starts it, deploys stage local, applies shops.toml; what follows goes to
#                                 `serverless deploy`: up --param=logLevel=DEBUG
#   deploy/local-cloud.sh down    ends it; what it held is gone
#   eval "$(deploy/local-cloud.sh env)"   lets aws, kassa and serverless talk to it
#
# All of it is in this folder: .venv, node_modules, and $KASSA_CLOUD (.cloud): pid, log, endpoint.
# $KASSA is the command to apply with, $KASSA_ARTIFACTS a folder of bootstraps to deploy instead of building,
# $KASSA_CLOUD_PORT where it listens (else any free port), $KASSA_LAMBDA_ENDPOINT what the functions take for AWS
# (tests put a proxy there), $KASSA_CLOUD_MINUTE how many seconds a schedule's minute lasts there.
set -euo pipefail
cd "$(dirname "$0")/.."
cloud=${KASSA_CLOUD:-.cloud}
[[ $cloud == /* ]] || cloud=$PWD/$cloud
region=eu-west-1

# The number may be another process's by now.
running() { [[ -f $cloud/pid && $(ps -o args= -p "$(<"$cloud/pid")") == *deploy/emulator.py ]]; }

settings() {
    cat <<END
export AWS_ENDPOINT_URL=$(<"$cloud/endpoint")
export AWS_REGION=$region AWS_DEFAULT_REGION=$region
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
unset AWS_PROFILE AWS_SESSION_TOKEN
END
}

install() {
    [[ -x .venv/bin/python ]] || python3 -m venv .venv
    cmp -s deploy/requirements.txt .venv/deploy-requirements.txt || {
        .venv/bin/pip install --quiet --disable-pip-version-check -r deploy/requirements.txt
        cp deploy/requirements.txt .venv/deploy-requirements.txt
    }
    [[ -d node_modules ]] || npm ci --no-audit --no-fund
}

# MiniStack hands its whole environment on to the functions. AWS would not: so it gets what it needs and no more.
start() {
    local port
    port=${KASSA_CLOUD_PORT:-$(.venv/bin/python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')}
    mkdir -p "$cloud/tmp"
    echo "http://127.0.0.1:$port" >"$cloud/endpoint"
    # AUTH: each function acts as its own role, and policies hold. The address must be an IP for S3 to work by path.
    env -i PATH="$PATH" HOME="$HOME" TMPDIR="$cloud/tmp" \
        GATEWAY_PORT="$port" BIND_HOST=127.0.0.1 AUTH=true MINISTACK_REGION=$region \
        AWS_ENDPOINT_URL="${KASSA_LAMBDA_ENDPOINT:-http://127.0.0.1:$port}" IOT_MTLS_ENABLED=0 SFTP_ENABLED=0 \
        KASSA_CLOUD_MINUTE="${KASSA_CLOUD_MINUTE:-}" .venv/bin/python deploy/emulator.py >"$cloud/log" 2>&1 </dev/null &
    echo $! >"$cloud/pid"
    for _ in {1..600}; do
        curl --silent --fail --output /dev/null "$(<"$cloud/endpoint")/_ministack/health" && return
        running || break
        sleep 0.05
    done
    tail "$cloud/log" >&2
    echo "MiniStack does not start; its log is $cloud/log" >&2
    exit 1
}

up() {
    local shop
    install
    running || start
    eval "$(settings)"
    # The framework's pace is for AWS, where a deployment takes minutes.
    SLS_AWS_MONITORING_FREQUENCY=200 NODE_NO_WARNINGS=1 node_modules/.bin/serverless deploy --stage local "$@"
    ${KASSA:-cargo run --release --quiet --features aws --} apply --stage local
    shop=$(url)
    cat <<END

The shop is open: $shop
  eval "\$(deploy/local-cloud.sh env)"
  kassa sell --stage local --shop AMIS1 --count 100
  kassa check --stage local
END
}

url() {
    curl --silent --fail --aws-sigv4 "aws:amz:$region:cloudformation" --user test:test \
        --data 'Action=DescribeStacks&StackName=kassa-local&Version=2010-05-15' "$(<"$cloud/endpoint")/" |
        sed -n 's:.*<OutputKey>ShopUrl</OutputKey><OutputValue>\([^<]*\)<.*:\1:p'
}

down() {
    if running; then
        local pid
        pid=$(<"$cloud/pid")
        kill "$pid"
        while running; do sleep 0.1; done
    fi
    rm -rf "$cloud"
}

case ${1:-} in
up) up "${@:2}" ;;
down) down ;;
env) running || { echo "no local cloud is up in $cloud" >&2; exit 1; }; settings ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
