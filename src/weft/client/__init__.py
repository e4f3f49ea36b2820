"""The client's road to a server: `connect(url)`, submit, watch, fetch. No torch here.

client = connect("http://127.0.0.1:7787")
job = client.submit("bobbin", experiment)
job.wait()
job.result()["diff"]          # a weft.record.Value: numpy.asarray takes it
"""

from __future__ import annotations

from weft.client.connect import Client, connect
from weft.client.job import Job, Status

__all__ = ["Client", "Job", "Status", "connect"]
