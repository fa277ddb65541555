"""RunPod's official Python SDK against a simulated RunPod: run, poll, stream, cancel, health."""

import os
import sys
import time

os.environ["RUNPOD_ENDPOINT_BASE_URL"] = sys.argv[1]
import runpod  # noqa: E402  (it reads its base URL when it is imported)

runpod.api_key = "sim-key"
endpoint = runpod.Endpoint("sim-endpoint")

job = endpoint.run({"input": {"a": 1, "sleep": 1}})
assert job.status() in ("IN_QUEUE", "IN_PROGRESS"), job.status()
assert job.output(timeout=60) == {"a": 1, "sleep": 1}, job.output()
assert job.status() == "COMPLETED", job.status()

assert endpoint.run_sync({"input": {"x": 2}}, timeout=60) == {"x": 2}

streamed = list(endpoint.run({"input": {"stream": 4}}).stream())
assert [chunk["index"] for chunk in streamed] == [0, 1, 2, 3], streamed

failing = endpoint.run({"input": {"error": "boom"}})
while failing.status() in ("IN_QUEUE", "IN_PROGRESS"):
    time.sleep(0.1)
assert failing.status() == "FAILED", failing.status()

endless = endpoint.run({"input": {"sleep": 600}})
assert endless.cancel()["status"] == "CANCELLED"
assert endless.status() == "CANCELLED", endless.status()

health = endpoint.health()
assert health["jobs"]["completed"] == 3 and health["jobs"]["failed"] == 1, health

runpod.api_key = "nope"
try:
    runpod.Endpoint("sim-endpoint").health()
except Exception as refused:  # the SDK has changed its exception types before
    assert "401" in str(refused) or "nauthorized" in str(refused), refused
else:
    raise AssertionError("a bad key was let in")
print("ok")
