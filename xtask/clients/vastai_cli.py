"""Vast's command line: what a renter calls, from search to destroy, and what is refused."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from report import Report

report = Report()
report.pace = 0.1
VASTAI = pathlib.Path(sys.executable).with_name("vastai")
HOME = tempfile.mkdtemp()


def run(*words, key="sim-key"):
    """What a command prints. It says failures with its exit code, or only on stderr."""
    environment = {**os.environ, "COLUMNS": "240", "HOME": HOME, "XDG_CONFIG_HOME": HOME, "XDG_CACHE_HOME": HOME,
                   "VAST_URL": report.sim["vast"], "VAST_API_KEY": key}
    words = [str(word) for word in words]
    ran = subprocess.run([VASTAI, *words], capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if ran.returncode or any(word in ran.stderr for word in ("status_code", "Traceback", "Error:")):
        raise RuntimeError(f"{ran.stdout} {ran.stderr}")
    if ran.stdout.startswith("Error:"):
        raise RuntimeError(ran.stdout)
    return ran.stdout


def call(*words, name=None, raw=True, **expected):
    """One command; with `raw`, its value."""
    name = name or " ".join(str(word) for word in words[:2])
    make = (lambda: json.loads(run(*words, "--raw"))) if raw else (lambda: run(*words))
    return report.call(name, make, **expected)


offers = call("search", "offers", "gpu_name=RTX_4090 num_gpus=1 gpu_ram>=22 reliability>0.98", "-o", "dph",
              check=lambda all: [one["dph_total"] for one in all] == sorted(one["dph_total"] for one in all))
call("search", "offers", "gpu_name=RTX_4090", name="search offers (table)", raw=False, check=lambda text: "4090" in text)
call("search", "offers", "gpu_name=RTX_4090", "-b", name="search offers (bids)", check=lambda all: all)
ask, second = offers[0]["id"], offers[1]["id"]
made = call("create", "instance", ask, "--image", "x/y:1", "--disk", "16", "--label", "cli", "--env", "-e MODEL=tiny -p 8000:8000",
            check=lambda made: made["success"])
id = made["new_contract"]
call("create", "instance", ask, "--image", "x/y:1", "--disk", "16", "--cancel-unavail", name="create instance (gone)", refused="no_such_ask")
call("create", "instance", second, "--image", "x/y:1", "--disk", "16", "--bid_price", "0.001", "--cancel-unavail", name="create instance (low bid)", refused="bid")
shown = report.until("show instance", lambda: json.loads(run("show", "instance", id, "--raw")),
                     lambda shown: shown["actual_status"] == "running" and shown.get("ports"))
report.call("show instance (what was ordered)", lambda: (shown["extra_env"]["MODEL"], shown["label"], shown["gpu_name"], shown["is_bid"], "8000/tcp" in shown["ports"]),
            check=lambda held: held == ("tiny", "cli", "RTX 4090", False, True))
call("search", "offers", "gpu_name=RTX_4090 num_gpus=1", name="search offers (without the rented one)", check=lambda all: ask not in {one["id"] for one in all})
call("show", "instances", check=lambda all: id in {one["id"] for one in all})
call("show", "instances", "-q", name="show instances (ids)", raw=False, check=lambda text: str(id) in text.split())
call("label", "instance", id, "renamed", raw=False, check=lambda text: "renamed" in text)
call("logs", id, "--tail", "10", name="logs", raw=False, check=lambda text: "started" in text)
# This version of the command line breaks off at its own answer.
call("execute", id, "ls", name="execute", raw=False, refused="'str' object has no attribute 'get'")
call("ssh-url", id, name="ssh-url", raw=False, check=lambda text: text.startswith("ssh://"))
call("scp-url", id, name="scp-url", raw=False, check=lambda text: text.startswith("scp://"))
call("reboot", "instance", id, raw=False)
call("stop", "instance", id, raw=False, check=lambda text: f"stopping instance {id}" in text)
report.until("show instance (stopped)", lambda: json.loads(run("show", "instance", id, "--raw")), lambda shown: shown["cur_state"] == "stopped")
call("start", "instance", id, raw=False, check=lambda text: f"starting instance {id}" in text)
call("prepay", "instance", id, "1", raw=False)
call("destroy", "instance", id, "-y", raw=False, check=lambda text: f"destroying instance {id}" in text)
call("show", "user", check=lambda user: user["id"])
call("create", "ssh-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHm9GmDtnXVyKo0kxFvSfaw7VmdlEPHBMCTCzWRpLcnD me", "-y", raw=False)
call("show", "ssh-keys", check=lambda keys: keys)
call("search", "volumes", "disk_space>=10", check=lambda all: all)
call("show", "volumes", raw=False)
call("show", "env-vars")
call("search", "templates", "count_created > 100")
call("show", "endpoints")
call("show", "machines")
call("show", "api-keys")
report.call("show instances (bad key)", lambda: run("show", "instances", "--raw", key="nope"), refused="Invalid user key")
report.end()
