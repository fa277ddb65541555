"""RunPod's official Python SDK against a simulated RunPod: jobs over the runtime, pods over GraphQL."""

import os
import sys
import time

os.environ["RUNPOD_ENDPOINT_BASE_URL"] = sys.argv[1]
os.environ["RUNPOD_API_BASE_URL"] = sys.argv[2].removesuffix("/graphql")
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

user = runpod.update_user_settings("ssh-ed25519 AAAA me")
assert user["pubKey"] == runpod.get_user()["pubKey"] == "ssh-ed25519 AAAA me", user
assert len(runpod.get_gpus()) > 10
pod = runpod.create_pod(
    "sdk", "x/y:1", "NVIDIA GeForce RTX 4090", ports="8000/http,22/tcp", env={"A": "b"},
    docker_args="sleep 900", min_vcpu_count=1, min_memory_in_gb=1,
)
assert pod["env"] == ["A=b", "PUBLIC_KEY=ssh-ed25519 AAAA me"], pod
cpu = runpod.create_pod("sdk-cpu", "x/y:1", instance_id="cpu3c-2-4")
assert {held["id"] for held in runpod.get_pods()} == {pod["id"], cpu["id"]}
while runpod.get_pod(pod["id"])["runtime"] is None:
    time.sleep(0.1)
assert runpod.stop_pod(pod["id"])["desiredStatus"] == "EXITED"
assert runpod.resume_pod(pod["id"], 1)["desiredStatus"] == "RUNNING"
for held in (pod, cpu):
    runpod.terminate_pod(held["id"])
template = runpod.create_template("sdk", "x/y:1", docker_start_cmd="sleep 3", env={"K": "v"})
assert template["env"] == [{"key": "K", "value": "v"}], template
registry = runpod.create_container_registry_auth("sdk", "user", "password")
runpod.update_container_registry_auth(registry["id"], "user", "other")
runpod.delete_container_registry_auth(registry["id"])
assert [endpoint["id"] for endpoint in runpod.get_endpoints()] == ["sim-endpoint"]
for refused in (
    lambda: runpod.create_endpoint("sdk", template["id"]),
    lambda: runpod.update_endpoint_template("sim-endpoint", template["id"]),
):
    try:
        refused()
    except runpod.error.QueryError as error:
        assert "is not simulated" in str(error), error
    else:
        raise AssertionError("a call that is not simulated was answered")

runpod.api_key = "nope"
try:
    runpod.Endpoint("sim-endpoint").health()
except Exception as refused:  # the SDK has changed its exception types before
    assert "401" in str(refused) or "nauthorized" in str(refused), refused
else:
    raise AssertionError("a bad key was let in")
print("ok")
