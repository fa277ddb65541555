"""Vast's Python SDK: every method of `VastAI`, of renters and of hosts."""

import inspect
import os
import tempfile

from report import Report

report = Report()
os.environ["HOME"] = os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
import vastai  # noqa: E402

report.pace = 0.2
vast = vastai.VastAI("sim-key", server_url=report.sim["vast"], retry=1)


def call(name, make, **expected):
    return report.call(name, lambda: make(getattr(vast, name.split(" ")[0])), **expected)


offers = call("search_offers", lambda m: m(query="gpu_name=RTX_4090 num_gpus=1"), check=lambda all: all and all[0]["gpu_name"] == "RTX 4090")
call("search_offers (none)", lambda m: m(query="gpu_name=RTX_4090 num_gpus=9"), check=lambda all: all == [])
call("search_offers_new", lambda m: m(query="gpu_name=RTX_4090 num_gpus=1"), check=lambda all: all)
first, second, third = (str(offer["id"]) for offer in offers[:3])
made = call("create_instance", lambda m: m(id=first, image="x/y:1", disk=16, label="sdk", env={"A": "b", "-p 8000:8000": "1"}), check=lambda made: made["success"])
id = made["new_contract"]
call("create_instance (gone)", lambda m: m(id=first, image="x/y:1", disk=16, cancel_unavail=True), refused="no_such_ask")
spot = call("create_instance (bid)", lambda m: m(id=second, image="x/y:1", disk=16, price=3.0))
call("create_instances", lambda m: m(ids=[third], image="x/y:1", disk=16))
call("launch_instance", lambda m: m(gpu_name="RTX_4090", num_gpus="1", image="x/y:1"))
report.until("show_instance", lambda: vast.show_instance(id), lambda shown: shown and shown["actual_status"] == "running" and shown.get("ports"))
call("show_instance (unknown)", lambda m: m(999999), check=lambda shown: not shown)
call("show_instances", lambda m: m(), check=lambda all: id in {one["id"] for one in all})
call("show_instances_v1", lambda m: m({"limit": 25}), check=lambda page: page["instances"])
call("show_instance_filters", lambda m: m())
call("label_instance", lambda m: m(id, "renamed"))
call("logs", lambda m: m(id))
call("execute", lambda m: m(id, "ls"))
call("ssh_url", lambda m: m(id), check=lambda url: url)
call("scp_url", lambda m: m(id), check=lambda url: url)
call("attach_ssh", lambda m: m(id, "ssh-ed25519 AAAA me"))
call("reboot_instance", lambda m: m(id))
call("recycle_instance", lambda m: m(id))
call("update_instance", lambda m: m(id, image="x/y:2"))
call("prepay_instance", lambda m: m(id, 1.0))
call("change_bid", lambda m: m(spot["new_contract"], 3.5))
call("stop_instance", lambda m: m(id))
call("start_instance", lambda m: m(id))
call("stop_instances", lambda m: m([id]))
call("start_instances", lambda m: m([id]))
call("take_snapshot", lambda m: m(id, repo="x/y", docker_login_user="u", docker_login_pass="p"))
call("show_deposit", lambda m: m(id))
call("show_pending_price_increases", lambda m: m())
call("accept_price_increase", lambda m: m(id), refused="no pending price increase")
call("reject_price_increase", lambda m: m(id), refused="no pending price increase")
call("destroy_instance", lambda m: m(id))
call("destroy_instance (again)", lambda m: m(id), refused="no_such_instance")
call("destroy_instances", lambda m: m([spot["new_contract"]]))

call("show_user", lambda m: m(), check=lambda user: user["id"])
key = call("create_ssh_key", lambda m: m("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHm9GmDtnXVyKo0kxFvSfaw7VmdlEPHBMCTCzWRpLcnD me"))
keys = call("show_ssh_keys", lambda m: m(), check=lambda keys: keys)
call("update_ssh_key", lambda m: m(keys[0]["id"], "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHm9GmDtnXVyKo0kxFvSfaw7VmdlEPHBMCTCzWRpLcnE me"))
call("detach_ssh", lambda m: m(id, str(keys[0]["id"])), refused="no_such")
call("delete_ssh_key", lambda m: m(keys[0]["id"]))
volumes = call("search_volumes", lambda m: m(), check=lambda all: all)
volume = call("create_volume", lambda m: m(volumes[0]["id"], size=10, name="v"))
held = call("show_volumes", lambda m: m(), check=lambda all: all)
call("clone_volume", lambda m: m(held[0]["id"], volumes[0]["id"]))
call("delete_volume", lambda m: m(held[0]["id"]))
call("show_env_vars", lambda m: m())
call("show_invoices", lambda m: m())
call("show_invoices_v1", lambda m: m())
call("search_invoices", lambda m: m())

rest = {
    # Serverless.
    "show_endpoints": (), "create_endpoint": {"endpoint_name": "e"}, "update_endpoint": {"id": 1}, "delete_endpoint": (1,), "get_endpt_logs": (1,),
    "get_endpoint_workers": (1,), "show_workergroups": (), "create_workergroup": {"endpoint_name": "e", "template_hash": "x"}, "update_workergroup": {"id": 1},
    "delete_workergroup": (1,), "get_wrkgrp_logs": (1,), "update_workers": (1,), "show_deployments": (), "show_deployment": (1,),
    "show_deployment_versions": (1,), "delete_deployment": (1,),
    # Templates and benchmarks.
    "search_templates": (), "create_template": {"name": "t", "image": "x/y"}, "update_template": {"hash_id": "x", "name": "t", "image": "x/y"},
    "delete_template": {"hash_id": "x"}, "search_benchmarks": (), "search_benchmarks_v1": ({},), "search_network_volumes": (),
    # The account.
    "set_user": ({"email": "a@example.com"},), "show_subaccounts": (), "create_subaccount": {"email": "a@example.com", "username": "a", "password": "p"},
    "show_ipaddrs": (), "show_audit_logs": (), "create_env_var": ("A", "b"), "update_env_var": ("A", "c"), "delete_env_var": ("A",), "show_api_keys": (),
    "show_api_key": (1,), "create_api_key": ("k", {}), "delete_api_key": (1,), "reset_api_key": (), "show_scheduled_jobs": (),
    "create_scheduled_job": {"start_time": 0, "end_time": 1, "api_endpoint": "/x/", "request_method": "PUT", "request_body": {}, "frequency": "DAILY", "instance_id": 1},
    "update_scheduled_job": (1, {}), "delete_scheduled_job": (1,), "transfer_credit": ("a@example.com", 1.0), "show_earnings": (),
    "fetch_contracts": {"label": "x"}, "show_connections": (), "tfa_status": (), "tfa_activate": {"code": "1", "secret": "x"},
    "tfa_delete": (), "tfa_login": {"code": "1"}, "tfa_regen_codes": {"code": "1"}, "tfa_resend_sms": {"secret": "x"},
    "tfa_send_sms": {"phone_number": "1"}, "tfa_totp_setup": (), "tfa_update": {"method_id": 1, "label": "x"},
    # Copies, backups, network volumes, clusters, overlays.
    "copy": ("C.1:/a", "C.2:/b"), "cancel_copy": (1,), "cancel_sync": (1,), "cloud_copy": {"src": "/a", "dst": "/b", "instance": 1, "connection": 1},
    "show_instance_backups": (), "instance_backup_files": (1,), "create_network_volume": (1,), "list_network_volume": {"disk_id": 1}, "unlist_network_volume": (1,),
    "show_network_disks": (), "add_network_disk": ([1], "/x"), "show_clusters": (), "create_cluster": ("10.0.0.0/24", 1), "delete_cluster": (1,),
    "join_cluster": (1, [2]), "remove_machine_from_cluster": (1, 2), "show_overlays": (), "create_overlay": (1, "o"), "delete_overlay": ("o",),
    "join_overlay": ("o", 1),
    # Teams.
    "create_team": ("t",), "destroy_team": (), "show_members": (), "invite_member": ("a@example.com", "r"), "remove_member": (1,), "show_team_roles": (),
    "show_team_role": ("r",), "create_team_role": ("r", {}), "update_team_role": {"id": 1, "name": "r", "permissions": {}}, "remove_team_role": ("r",),
    # Hosts.
    "show_machines": (), "show_machine": (1,), "show_maints": ([1],), "list_machine": {"id": 1, "price_gpu": 1.0}, "list_machines": {"ids": [1], "price_gpu": 1.0},
    "unlist_machine": (1,), "set_defjob": {"id": 1, "price_gpu": 1.0, "image": "x"}, "remove_defjob": (1,), "set_min_bid": (1, 1.0),
    "schedule_maint": (1, 1_800_000_000, 1), "cancel_maint": (1,), "cleanup_machine": (1,), "defrag_machines": ([1],), "delete_machine": (1,), "reports": (1,),
    "list_volume": {"id": 1, "size": 10, "price_disk": 1.0}, "list_volumes": {"ids": [1], "size": 10, "price_disk": 1.0}, "unlist_volume": (1,),
}
for name, given in rest.items():
    call(name, lambda m: m(**given) if isinstance(given, dict) else m(*given))
found = inspect.getmembers(vastai.VastAI, inspect.isfunction)
# A key in a file of its own, a document made of other calls' answers, and a test of a host from inside.
local = {"set_api_key", "generate_pdf_invoices", "self_test_machine"}
report.end({name for name, one in found if one.__name__ == name and not name.startswith("_")} - local)
