"""The reference library of Standard Webhooks: signs what is on stdin, or verifies it. Needs standardwebhooks.

python webhook.py sign   <secret> <webhook-id> <webhook-timestamp>
python webhook.py verify <secret> <webhook-id> <webhook-timestamp> <webhook-signature>"""
import sys
from datetime import datetime, timezone
from standardwebhooks.webhooks import Webhook

command, secret, message_id, timestamp = sys.argv[1:5]
body, webhook = sys.stdin.buffer.read().decode(), Webhook(secret)
if command == "sign":
    print(webhook.sign(message_id, datetime.fromtimestamp(int(timestamp), timezone.utc), body))
else:
    webhook.verify(body, {
        "webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": sys.argv[5]})
