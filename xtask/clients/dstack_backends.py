"""dstack's clients of RunPod, Vast and Lambda, with their address constants set to the simulator."""

import inspect

from report import Report

report = Report()
call = report.call
report.pace = 0.3

import dstack._internal.core.backends.lambdalabs.api_client as lambdalabs  # noqa: E402
import dstack._internal.core.backends.runpod.api_client as runpod  # noqa: E402
import dstack._internal.core.backends.vastai.api_client as vastai  # noqa: E402

runpod.API_GRAPHQL_URL = report.sim["runpod"]["graphql"]
runpod.API_V2_URL = report.sim["runpod"]["control"] + "/v2"
lambdalabs.API_URL = report.sim["lambda"]


def methods(prefix, client):
    found = inspect.getmembers(client, inspect.isfunction)
    return {f"{prefix}.{name}" for name, _ in found if not name.startswith("_")}


GPU = "NVIDIA GeForce RTX 4090"
cloud = runpod.RunpodApiClient("sim-key")
call("runpod.validate_api_key", cloud.validate_api_key, check=lambda valid: valid)
call("runpod.validate_api_key (bad key)", runpod.RunpodApiClient("nope").validate_api_key, check=lambda valid: not valid)
volume = call("runpod.create_network_volume", lambda: cloud.create_network_volume(name="v", data_center_id="EU-RO-1", size=10))
call("runpod.get_network_volume", lambda: cloud.get_network_volume(volume["id"]), check=lambda held: held["id"] == volume["id"])
call("runpod.get_network_volume (unknown)", lambda: cloud.get_network_volume("nothing000"), check=lambda held: held is None)
command = {"entrypoint": ["/bin/sh"], "cmd": ["-c", "sleep 900"], "image_name": "x/y:1"}
registry = call("runpod.create_container_registry_credentials", lambda: cloud.create_container_registry_credentials(name="r", username="u", password="p"))
pod = call("runpod.create_pod", lambda: cloud.create_pod(
    name="gpu", cloud="SECURE", gpu_type_id=GPU, gpu_count=1, min_cpu_count_per_gpu=2, min_memory_in_gb_per_gpu=8, container_disk_in_gb=20,
    container_registry_credentials_id=registry["id"], ports=["22/tcp"], env={"A": "b"}, **command))
cpu = call("runpod.create_pod (cpu)", lambda: cloud.create_pod(name="cpu", cloud="SECURE", cpu_type_id="cpu3c", cpu_count=2, container_disk_in_gb=10, **command))
mounted = call("runpod.create_pod (volume)", lambda: cloud.create_pod(
    name="volume", cloud="SECURE", data_center_ids=["EU-RO-1"], gpu_type_id=GPU, container_disk_in_gb=20, network_volume_id=volume["id"],
    volume_mount_path="/data", **command))
call("runpod.create_pod (no such card)", lambda: cloud.create_pod(name="x", cloud="SECURE", gpu_type_id="NVIDIA Nothing", container_disk_in_gb=20, **command),
     refused="Unknown GPU type")
report.until("runpod.get_pod", lambda: cloud.get_pod(pod["id"]), lambda held: held and held["runtime"] and held["runtime"].get("ports"))
call("runpod.get_pod (unknown)", lambda: cloud.get_pod("nothing0000000"), check=lambda held: held is None)
old = call("runpod.create_gpu_pod_graphql", lambda: cloud.create_gpu_pod_graphql(
    name="old", image_name="x/y:1", gpu_type_id=GPU, cloud_type="SECURE", gpu_count=1, container_disk_in_gb=20, min_vcpu_count=2, min_memory_in_gb=8,
    docker_args="sleep 900", ports="22/tcp", env={"A": "b"}), check=lambda pod: pod["id"])
spot = call("runpod.create_gpu_pod_graphql (spot)", lambda: cloud.create_gpu_pod_graphql(
    name="spot", image_name="x/y:1", gpu_type_id=GPU, cloud_type="COMMUNITY", bid_per_gpu=0.4, container_disk_in_gb=20))
call("runpod.create_gpu_pod_graphql (low bid)", lambda: cloud.create_gpu_pod_graphql(
    name="low", image_name="x/y:1", gpu_type_id=GPU, cloud_type="COMMUNITY", bid_per_gpu=0.01, container_disk_in_gb=20),
    refused="There are no longer any instances available")
for held in filter(None, (pod, cpu, mounted, old, spot)):
    call("runpod.terminate_pod", lambda: cloud.terminate_pod(held["id"]), check=lambda ended: ended)
call("runpod.terminate_pod (unknown)", lambda: cloud.terminate_pod("nothing0000000"), check=lambda ended: not ended)
call("runpod.list_container_registry_credentials", cloud.list_container_registry_credentials, check=lambda all: registry["id"] in {one["id"] for one in all})
call("runpod.delete_container_registry_credentials", lambda: cloud.delete_container_registry_credentials(registry["id"]))
call("runpod.delete_container_registry_credentials (unknown)", lambda: cloud.delete_container_registry_credentials("nothing0"), refused="not found")
call("runpod.delete_network_volume", lambda: cloud.delete_network_volume(volume["id"]), check=lambda gone: gone)
cluster = call("runpod.create_cluster", lambda: cloud.create_cluster(
    name="c", cluster_type="TRAINING", gpu_type_id="NVIDIA L4", gpu_count_per_pod=2, pod_count=2, container_disk_in_gb=20, ports=["22/tcp"], env={"A": "b"}, **command))
call("runpod.list_cluster_pods", lambda: cloud.list_cluster_pods(cluster["id"]), check=lambda pods: len(pods) == 2)
call("runpod.delete_cluster", lambda: cloud.delete_cluster(cluster["id"]), check=lambda gone: gone)
names = methods("runpod", runpod.RunpodApiClient)

cloud = vastai.VastAIAPIClient("sim-key")
cloud.s.base_url = report.sim["vast"] + "/api/"
call("vastai.auth_test", cloud.auth_test, check=lambda valid: valid)
stranger = vastai.VastAIAPIClient("nope")
stranger.s.base_url = cloud.s.base_url
call("vastai.auth_test (bad key)", stranger.auth_test, check=lambda valid: not valid)
offers = cloud.s.post("/v0/bundles/", json={"gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"eq": 1}}).json()["offers"]
order = {"instance_name": "n", "image_name": "x/y:1", "onstart": "sleep 900", "disk_size": 20}
instance = call("vastai.create_instance", lambda: cloud.create_instance(bundle_id=offers[0]["id"], **order))
spot = call("vastai.create_instance (spot)", lambda: cloud.create_instance(bundle_id=offers[1]["id"], bid=2 * offers[1]["min_bid"], **order))
call("vastai.create_instance (low bid)", lambda: cloud.create_instance(bundle_id=offers[2]["id"], bid=0.001, **order), refused="bid")
call("vastai.create_instance (gone)", lambda: cloud.create_instance(bundle_id=offers[0]["id"], **order), refused="no_such_ask")
report.until("vastai.get_instance", lambda: cloud.get_instance(instance), lambda held: held and held["actual_status"] == "running")
for held in filter(None, (instance, spot)):
    call("vastai.destroy_instance", lambda: cloud.destroy_instance(held))
call("vastai.destroy_instance (again)", lambda: cloud.destroy_instance(instance))
names |= methods("vastai", vastai.VastAIAPIClient)

cloud = lambdalabs.LambdaAPIClient("sim-key")
call("lambda.validate_api_key", cloud.validate_api_key, check=lambda valid: valid)
call("lambda.validate_api_key (bad key)", lambdalabs.LambdaAPIClient("nope").validate_api_key, check=lambda valid: not valid)
types = call("lambda.list_instance_types", cloud.list_instance_types)
name, region = next((name, each["regions_with_capacity_available"][0]["name"]) for name, each in types.items() if each["regions_with_capacity_available"])
call("lambda.add_ssh_key", lambda: cloud.add_ssh_key("k", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHm9GmDtnXVyKo0kxFvSfaw7VmdlEPHBMCTCzWRpLcnD me"))
call("lambda.list_ssh_keys", cloud.list_ssh_keys, check=lambda keys: "k" in {key["name"] for key in keys})
order = {"region_name": region, "instance_type_name": name, "ssh_key_names": ["k"], "file_system_names": [], "quantity": 1, "name": "n"}
ids = call("lambda.launch_instances", lambda: cloud.launch_instances(**order), check=lambda ids: len(ids) == 1)
call("lambda.launch_instances (no such type)", lambda: cloud.launch_instances(**{**order, "instance_type_name": "gpu_9x_nothing"}), refused="Client Error")
call("lambda.list_instances", cloud.list_instances, check=lambda all: ids[0] in {one["id"] for one in all})
call("lambda.terminate_instances", lambda: cloud.terminate_instances(ids))
names |= methods("lambda", lambdalabs.LambdaAPIClient)
report.end(names)
