"""SkyPilot's modules of RunPod, Vast and Lambda, with their address constants set to the simulator."""

import inspect
import os
import tempfile

from report import Report

report = Report()
call = report.call
report.pace = 0.3
# What it keeps is kept in a folder of its own.
os.environ["HOME"] = tempfile.mkdtemp()
os.environ["RUNPOD_API_BASE_URL"] = report.sim["runpod"]["control"]
os.environ["RUNPOD_API_KEY"] = os.environ["VAST_API_KEY"] = "sim-key"
lambda_keys = os.path.join(os.environ["HOME"], ".lambda_cloud")
os.makedirs(lambda_keys)
with open(os.path.join(lambda_keys, "lambda_keys"), "w") as keys:
    keys.write("api_key = sim-key\n")

import runpod as runpod_sdk  # noqa: E402
import vastai_sdk  # noqa: E402
from sky import models  # noqa: E402
from sky.adaptors import runpod as runpod_adaptor  # noqa: E402
from sky.adaptors import vast as vast_adaptor  # noqa: E402
from sky.provision.lambda_cloud import lambda_utils  # noqa: E402
from sky.provision.runpod import utils as runpod  # noqa: E402
from sky.provision.runpod import volume as runpod_volume  # noqa: E402
from sky.provision.vast import utils as vast  # noqa: E402

runpod_sdk.api_key = "sim-key"
runpod_adaptor._REST_BASE = report.sim["runpod"]["control"] + "/v1"
vast_adaptor._vast_sdk = vastai_sdk.VastAI("sim-key", server_url=report.sim["vast"])
lambda_utils.API_ENDPOINT = report.sim["lambda"]


def functions(prefix, module):
    found = inspect.getmembers(module, inspect.isfunction)
    return {f"{prefix}.{name}" for name, one in found if one.__module__ == module.__name__ and not name.startswith("_")}


order = {"cluster_name": "sky", "node_type": "head", "zone": None, "disk_size": 20, "image_name": "x/y:1", "ports": [8000],
         "public_key": "ssh-ed25519 AAAA me", "preemptible": False, "bid_per_gpu": 0.0, "docker_login_config": None}
pod = call("runpod.launch", lambda: runpod.launch(instance_type="1x_RTX4090_SECURE", region="RO", **order))
cpu = call("runpod.launch (cpu)", lambda: runpod.launch(instance_type="cpu3c-2-4", region="RO", **{**order, "node_type": "cpu"}))
spot = call("runpod.launch (spot)", lambda: runpod.launch(instance_type="1x_RTX4090_SECURE", region="RO", **{**order, "node_type": "spot", "preemptible": True, "bid_per_gpu": 0.5}))
login = {"username": "u", "password": "p", "server": "registry.example.com"}
private = call("runpod.launch (private image)", lambda: runpod.launch(
    instance_type="1x_RTX4090_SECURE", region="RO", **{**order, "node_type": "private", "docker_login_config": login}))
report.until("runpod.list_instances", runpod.list_instances, lambda all: all[pod]["status"] == "RUNNING" and all[pod].get("ssh_port"))
call("runpod.get_ssh_ports", lambda: runpod.get_ssh_ports("sky"), check=lambda ports: ports)
template, auth = call("runpod.get_registry_auth_resources", lambda: runpod.get_registry_auth_resources("sky"), check=lambda found: all(found))
for held in filter(None, (pod, cpu, spot, private)):
    call("runpod.remove", lambda: runpod.remove(held))
call("runpod.delete_pod_template", lambda: runpod.delete_pod_template(template))
call("runpod.delete_register_auth", lambda: runpod.delete_register_auth(auth))
# Its volumes speak REST v1, which RunPod has switched off.
volume = models.VolumeConfig(name="v", type="runpod-network-volume", cloud="runpod", region="RO", zone="EU-RO-1", name_on_cloud="v", size="10", config={})
call("runpod.apply_volume", lambda: runpod_volume.apply_volume(volume), refused="404")
call("runpod.delete_volume", lambda: runpod_volume.delete_volume(volume), refused="404")

offers = vast_adaptor.vast().search_offers(query="gpu_name=RTX_4090 num_gpus=1")
region = offers[0]["geolocation"][-2:]
order = {"name": "sky-head", "region": region, "disk_size": 20, "image_name": "x/y:1", "ports": None, "preemptible": False, "secure_only": False}
instance = call("vast.launch", lambda: vast.launch(instance_type="1x-RTX_4090-16-65536", **order))
report.until("vast.list_instances", vast.list_instances, lambda all: all[str(instance)]["status"] == "RUNNING")
call("vast.get_ssh_ports", lambda: vast.get_ssh_ports("sky"), check=lambda ports: ports)
call("vast.stop", lambda: vast.stop(instance))
call("vast.start", lambda: vast.start(instance))
call("vast.remove", lambda: vast.remove(instance))

cloud = lambda_utils.LambdaCloudClient()
catalog = call("lambda.list_catalog", cloud.list_catalog)
name, region = next((name, each["regions_with_capacity_available"][0]["name"]) for name, each in catalog.items() if each["regions_with_capacity_available"])
key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHm9GmDtnXVyKo0kxFvSfaw7VmdlEPHBMCTCzWRpLcnD me"
call("lambda.get_unique_ssh_key_name", lambda: cloud.get_unique_ssh_key_name("sky", key), check=lambda found: not found[1])
call("lambda.register_ssh_key", lambda: cloud.register_ssh_key("sky", key))
ids = call("lambda.create_instances", lambda: cloud.create_instances(name, region, 1, "sky", "sky"), check=lambda ids: len(ids) == 1)
call("lambda.create_instances (no such region)", lambda: cloud.create_instances(name, "xx-nowhere-1", 1, "sky", "sky"), refused="LambdaCloudError")
call("lambda.list_ssh_keys", cloud.list_ssh_keys, check=lambda keys: keys)
call("lambda.list_instances", cloud.list_instances, check=lambda all: ids[0] in {one["id"] for one in all})
call("lambda.list_firewall_rules", cloud.list_firewall_rules)
call("lambda.create_firewall_rule", lambda: cloud.create_firewall_rule([8000, 8000], "tcp"))
call("lambda.remove_instances", lambda: cloud.remove_instances(ids))
names = functions("runpod", runpod) - {"runpod.retry"} | functions("vast", vast)
found = inspect.getmembers(lambda_utils.LambdaCloudClient, inspect.isfunction)
names |= {f"lambda.{name}" for name, _ in found if not name.startswith("_")}
report.end(names)
