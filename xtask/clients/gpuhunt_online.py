"""gpuhunt's collectors of the clouds' offers, with their address constants set to the simulator."""

from urllib.parse import urlsplit

import gpuhunt.providers.lambdalabs as lambdalabs
import gpuhunt.providers.runpod as runpod
import gpuhunt.providers.vastai as vastai
from gpuhunt import QueryFilter

from report import Report

report = Report()


def moved(module, base):
    """Sets every address constant of a module to another host, with its own path."""
    for name, value in list(vars(module).items()):
        if isinstance(value, str) and value.startswith("https://"):
            path = urlsplit(value).path
            setattr(module, name, base + path)


moved(runpod, report.sim["runpod"]["control"])
moved(vastai, report.sim["vast"])
moved(lambdalabs, report.sim["lambda"].removesuffix("/api/v1"))

vast = vastai.VastAIProvider()
report.call("vastai.get", lambda: vast.get(), check=lambda offers: len(offers) > 5)
report.call("vastai.get (filtered)", lambda: vast.get(QueryFilter(gpu_name=["RTX4090"], min_gpu_count=1, max_gpu_count=1, min_disk_size=20)),
            check=lambda offers: offers and all(offer.gpu_name == "RTX4090" for offer in offers))
report.call("vastai.get (no community)", lambda: vastai.VastAIProvider(community_cloud=False).get())
report.call("lambdalabs.get", lambda: lambdalabs.LambdaLabsProvider("sim-key").get(), check=lambda offers: len(offers) > 5)
report.call("lambdalabs.get (bad key)", lambda: lambdalabs.LambdaLabsProvider("nope").get(), refused="401")
report.call("runpod.get", lambda: runpod.RunpodProvider().get(), check=lambda offers: len(offers) > 10)
report.end()
