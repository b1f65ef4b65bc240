"""MiniStack, in which a minute may be shorter than ours.

With KASSA_CLOUD_MINUTE=2 what is scheduled by `rate(1 minute)` goes off every two seconds, so that nobody has to wait
for what the shop does once a minute. Nothing else is another; `--param scheduleInterval=2s` tells the functions.
"""

import os

from ministack import app
from ministack.services import eventbridge

# Not handed on to the functions, as all else of this environment is.
minute = float(os.environ.pop("KASSA_CLOUD_MINUTE", "") or 60)
seconds = eventbridge._parse_rate_seconds


def shortened(expression):
    interval = seconds(expression)
    return interval if interval is None else interval * minute / 60


eventbridge._parse_rate_seconds = shortened
# How often it looks whether something is due.
eventbridge._SCHEDULER_TICK_INTERVAL = min(eventbridge._SCHEDULER_TICK_INTERVAL, minute / 6)

app.main()
