"""Vast's official command line against a simulated Vast: search, create, show, stop, start, label, log, destroy."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

VASTAI = pathlib.Path(sys.executable).with_name("vastai")
HOME = tempfile.mkdtemp()
ENVIRONMENT = {**os.environ, "COLUMNS": "240", "HOME": HOME, "XDG_CONFIG_HOME": HOME, "XDG_CACHE_HOME": HOME, "VAST_URL": sys.argv[1], "VAST_API_KEY": "sim-key"}


def vastai(*words, key="sim-key"):
    """What the command prints."""
    environment = {**ENVIRONMENT, "VAST_API_KEY": key}
    ran = subprocess.run([VASTAI, *words], capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert ran.returncode == 0, f"{words}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def until(words, instance, wanted):
    """Reads an instance until it is as wanted; each call is a process, so the patience is in calls."""
    for _ in range(120):
        shown = json.loads(vastai("show", "instance", instance, "--raw"))
        if wanted(shown):
            return shown
        time.sleep(0.5)
    raise AssertionError(f"{words}: {shown}")


offers = json.loads(vastai("search", "offers", "gpu_name=RTX_4090 num_gpus=1 gpu_ram>=22 reliability>0.98", "-o", "dph", "--raw"))
assert offers and all(offer["gpu_name"] == "RTX 4090" and offer["reliability2"] > 0.98 for offer in offers), offers
assert [offer["dph_total"] for offer in offers] == sorted(offer["dph_total"] for offer in offers)
assert "RTX_4090" in vastai("search", "offers", "gpu_name=RTX_4090 num_gpus=1").replace("RTX 4090", "RTX_4090")

ask = str(offers[0]["id"])
made = json.loads(vastai("create", "instance", ask, "--image", "x/y:1", "--disk", "16", "--label", "from-the-cli",
                         "--env", "-e MODEL=tiny -p 8000:8000", "--raw"))
assert made["success"] and isinstance(made["new_contract"], int), made
instance = str(made["new_contract"])

shown = until("running", instance, lambda shown: shown["actual_status"] == "running" and shown.get("ports"))
assert shown["label"] == "from-the-cli" and shown["gpu_name"] == "RTX 4090" and not shown["is_bid"], shown
assert shown["extra_env"]["MODEL"] == "tiny" and isinstance(shown["ports"]["8000/tcp"][0]["HostPort"], str), shown
assert [row["id"] for row in json.loads(vastai("show", "instances", "--raw"))] == [int(instance)]
assert vastai("show", "instances", "-q").split() == [instance]
assert "from-the-cli" in vastai("show", "instances")
assert ask not in [str(offer["id"]) for offer in json.loads(vastai("search", "offers", "gpu_name=RTX_4090 num_gpus=1", "--raw"))]

assert "set to renamed" in vastai("label", "instance", instance, "renamed")
assert "container started" in vastai("logs", instance, "--tail", "10")
assert f"stopping instance {instance}" in vastai("stop", "instance", instance)
until("stopped", instance, lambda shown: shown["intended_status"] == "stopped" and shown["cur_state"] == "stopped")
assert f"starting instance {instance}" in vastai("start", "instance", instance)
shown = until("running again", instance, lambda shown: shown["actual_status"] == "running")
assert shown["label"] == "renamed", shown
assert f"destroying instance {instance}" in vastai("destroy", "instance", instance, "-y")
assert json.loads(vastai("show", "instances", "--raw")) == []

bad = subprocess.run([VASTAI, "show", "instances", "--raw"], capture_output=True, text=True, env={**ENVIRONMENT, "VAST_API_KEY": "nope"})
# The command itself says nothing of it with its exit code.
assert "\"status_code\": 404" in bad.stderr and "Invalid user key" in bad.stderr, bad
