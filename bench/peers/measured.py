"""Runs a command and tells, as a line of JSON, what it and all that it started have used."""

import json
import resource
import subprocess
import sys
import time

started = time.monotonic()
ended = subprocess.run(sys.argv[1:], stdout=sys.stderr)
seconds = time.monotonic() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cost = {
    "seconds": seconds,
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "resident_peak_bytes": used.ru_maxrss * 1024,
}
print(json.dumps(cost))
sys.exit(ended.returncode)
