"""RunPod's Python package, 1.12 (GraphQL) and 2.0 (REST v2), with the calls that its apps make."""

import os
import sys
import time

from report import Report

report = Report()
os.environ["RUNPOD_ENDPOINT_BASE_URL"] = report.sim["runpod"]["runtime"]
os.environ["RUNPOD_API_BASE_URL"] = report.sim["runpod"]["control"]
import runpod  # noqa: E402  (it reads its base URL when it is imported)

V2 = runpod.__version__.startswith("2")
runpod.api_key = "sim-key"
call = report.call

endpoint = runpod.Endpoint("sim-endpoint")
job = call("Endpoint.run", lambda: endpoint.run({"input": {"a": 1, "sleep": 90}}))
call("Job.status", job.status, check=lambda status: status in ("IN_QUEUE", "IN_PROGRESS"))
call("Job.output", lambda: job.output(timeout=60), check=lambda output: output["a"] == 1)
call("Endpoint.run_sync", lambda: endpoint.run_sync({"input": {"x": 2}}, timeout=60), check=lambda output: output == {"x": 2})
streamed = endpoint.run({"input": {"stream": 4}})
call("Job.stream", lambda: list(streamed.stream()), check=lambda chunks: [chunk["index"] for chunk in chunks] == [0, 1, 2, 3])
endless = endpoint.run({"input": {"sleep": 600}})
call("Job.cancel", endless.cancel, check=lambda answer: answer["status"] == "CANCELLED")
call("Endpoint.health", endpoint.health, check=lambda health: health["jobs"]["completed"] >= 3)
call("Endpoint.purge_queue", endpoint.purge_queue, check=lambda answer: answer["status"] == "completed")


async def asynchronous():
    import aiohttp

    async with aiohttp.ClientSession() as session:
        endpoint = runpod.AsyncioEndpoint("sim-endpoint", session)
        job = await endpoint.run({"b": 2})
        while await job.status() not in ("COMPLETED", "FAILED"):
            time.sleep(0.1)
        return await job.output()


call("AsyncioEndpoint.run", asynchronous, check=lambda output: output == {"b": 2})

user = call("get_user", runpod.get_user)
call("update_user_settings", lambda: runpod.update_user_settings("ssh-ed25519 AAAA me"), check=lambda user: user["id"])
call("get_gpus", runpod.get_gpus, check=lambda gpus: len(gpus) > 10)
call("get_gpu", lambda: runpod.get_gpu("NVIDIA GeForce RTX 4090"), check=lambda gpu: gpu["id"] == "NVIDIA GeForce RTX 4090")
call("get_gpu (unknown)", lambda: runpod.get_gpu("NVIDIA Nothing"), refused="No GPU found")
pod = call("create_pod", lambda: runpod.create_pod(
    "sdk", "x/y:1", "NVIDIA GeForce RTX 4090", ports="8000/http,22/tcp", env={"A": "b"}, docker_args="sleep 900",
    min_vcpu_count=2, min_memory_in_gb=8),
    check=lambda pod: pod["env"]["A"] == "b" if V2 else pod["env"] == ["A=b", "PUBLIC_KEY=ssh-ed25519 AAAA me"])
cpu = call("create_pod (cpu)", lambda: runpod.create_pod("sdk-cpu", "x/y:1", instance_id="cpu3c-2-4"))
call("create_pod (public ip)", lambda: runpod.create_pod("ip", "x/y:1", "NVIDIA GeForce RTX 4090", support_public_ip=True),
     refused="REST API v2 does not support" if V2 else None)
call("create_pod (sold out)", lambda: runpod.create_pod("none", "x/y:1", "NVIDIA GeForce RTX 4090", gpu_count=8, cloud_type="COMMUNITY",
                                                        min_memory_in_gb=4000),
     refused="There are no longer any instances available")
call("get_pods", runpod.get_pods, check=lambda pods: {pod["id"], cpu["id"]} <= {held["id"] for held in pods})
report.until("get_pod", lambda: runpod.get_pod(pod["id"]), lambda pod: pod and pod["runtime"])
call("stop_pod", lambda: runpod.stop_pod(pod["id"]))
call("resume_pod (gpus)", lambda: runpod.resume_pod(pod["id"], 1), refused="does not support gpu_count" if V2 else None)
if V2:
    call("resume_pod", lambda: runpod.resume_pod(pod["id"]))
else:
    report.driven.add("resume_pod")
for held in runpod.get_pods():
    call("terminate_pod", lambda: runpod.terminate_pod(held["id"]))
template = call("create_template", lambda: runpod.create_template("sdk", "x/y:1", docker_start_cmd="sleep 3", env={"K": "v"}))
serverless = call("create_template (serverless)", lambda: runpod.create_template("sls", "x/y:1", is_serverless=True))
registry = call("create_container_registry_auth", lambda: runpod.create_container_registry_auth("sdk", "user", "password"))
call("update_container_registry_auth", lambda: runpod.update_container_registry_auth(registry["id"], "user", "other"))
call("delete_container_registry_auth", lambda: runpod.delete_container_registry_auth(registry["id"]))
call("get_endpoints", runpod.get_endpoints, check=lambda all: "sim-endpoint" in {one["id"] for one in all})
made = call("create_endpoint", lambda: runpod.create_endpoint("sdk", serverless["id"]))
call("update_endpoint_template", lambda: runpod.update_endpoint_template((made or {"id": "sim-endpoint"})["id"], serverless["id"]))

runpod.api_key = "nope"
call("Endpoint.health (bad key)", lambda: runpod.Endpoint("sim-endpoint").health(), refused="401")
call("get_pods (bad key)", runpod.get_pods, refused="nauthorized")
runpod.api_key = "sim-key"

names = {name for name in runpod.__all__ if name.split("_")[0] in ("get", "create", "update", "delete", "stop", "resume", "terminate")}
names -= {"get_credentials"}  # a file of its own
names -= {"get", "delete"}  # decorators of 2.0

if V2:
    import inspect

    from runpod.apps.api import AppsApiClient

    api = AppsApiClient("sim-key")

    def apps(name, make, **expected):
        return call(f"apps.{name}", lambda: make(getattr(api, name)), **expected)

    pool = {"name": "apps", "type": "QB", "template": {"imageName": "x/y:1"}, "scalerType": "QUEUE_DELAY", "scalerValue": 4,
            "gpuIds": "ADA_24", "workersMin": 0, "workersMax": 1}
    saved = apps("save_endpoint", lambda make: make(pool))
    call("apps.save_endpoint (flash)", lambda: api.save_endpoint({**pool, "flashEnvironmentId": "x"}))
    apps("list_my_endpoints", lambda make: make(), check=lambda all: saved["id"] in {one["id"] for one in all})
    apps("endpoint_workers", lambda make: make(saved["id"]))
    apps("delete_endpoint", lambda make: make(saved["id"]))
    task = {"name": "task", "imageName": "x/y:1", "gpuTypeId": "NVIDIA GeForce RTX 4090", "gpuCount": 1, "cloudType": "SECURE",
            "containerDiskInGb": 10, "supportPublicIp": True, "terminateAfter": "2027-01-01T00:00:00Z"}
    pod = apps("deploy_task_pod", lambda make: make(task, is_cpu=False))
    task = {"name": "task", "imageName": "x/y:1", "instanceId": "cpu3c-2-4", "containerDiskInGb": 10, "terminateAfter": "2027-01-01T00:00:00Z"}
    cpu = call("apps.deploy_task_pod (cpu)", lambda: api.deploy_task_pod(task, is_cpu=True))
    for held in (pod, cpu):
        apps("terminate_pod", lambda make: make(held["id"]))
    stock = ("NONE", "LOW", "MEDIUM", "HIGH")
    apps("gpu_stock_status", lambda make: make("NVIDIA GeForce RTX 4090", "EU-RO-1", pods=True), check=lambda said: said in stock)
    apps("cpu_stock_status", lambda make: make("cpu3c-2-4", "EU-RO-1", pods=True), check=lambda said: said in stock)
    call("apps.cpu_stock_status (one cpu)", lambda: api.cpu_stock_status("cpu3c-1-2", "EU-RO-1"))
    apps("network_volume_datacenters", lambda make: make(), check=lambda centres: "EU-RO-1" in centres)
    volume = apps("create_network_volume", lambda make: make("apps", 10, "EU-RO-1"))
    apps("list_network_volumes", lambda make: make(), check=lambda all: volume["id"] in {one["id"] for one in all})
    apps("list_global_volumes", lambda make: make())
    apps("create_global_volume", lambda make: make("apps"))
    registry = apps("create_registry_auth", lambda make: make("apps", "user", "password"))
    apps("list_registry_auths", lambda make: make(), check=lambda all: registry["id"] in {one["id"] for one in all})
    apps("delete_registry_auth", lambda make: make(registry["id"]))
    apps("list_secrets", lambda make: make())
    apps("create_secret", lambda make: make("name", "value"))
    apps("delete_secret", lambda make: make("x"))
    apps("list_apps", lambda make: make())
    apps("create_app", lambda make: make("app"))
    apps("get_app_by_name", lambda make: make("app"))
    apps("create_environment", lambda make: make("x", "production"))
    apps("get_environment_by_name", lambda make: make("app", "production"))
    apps("delete_environment", lambda make: make("x"))
    apps("delete_app", lambda make: make("x"))
    apps("create_auth_request", lambda make: make())
    apps("get_auth_request_status", lambda make: make("x"))
    apps("prepare_artifact_upload", lambda make: make("x", 10))
    apps("finalize_artifact_upload", lambda make: make("x", "key", {}))
    apps("deploy_build", lambda make: make("x", "y"))
    methods = inspect.getmembers(AppsApiClient, inspect.isfunction)
    # An upload goes to an address that another call gives.
    names |= {f"apps.{name}" for name, _ in methods if not name.startswith("_")} - {"apps.upload_tarball"}

report.end(names)
