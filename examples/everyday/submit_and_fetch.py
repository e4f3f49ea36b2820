"""Hand an experiment to a server, go home, and fetch what came of it in another process.

python submit_and_fetch.py                 both, with a server of its own
python submit_and_fetch.py URL             submit; prints what to type to fetch
python submit_and_fetch.py URL JOB         fetch
"""

import subprocess
import sys

import weft
from weft import serve


def run(model, wait=True):
    """The results, or with wait=False the job's id at once."""
    with model.session(wait=wait) as s:
        base = s.run(["The Eiffel Tower is in Paris. The Eiffel Tower is in", "A red cat and a red"])
        ablated = base.fork()
        ablated.attn_out[-1][:, -1] = 0
        weft.log_prob(base.logits[:, -1], [" Paris", " cat"]).save("whole")
        weft.log_prob(ablated.logits[:, -1], [" Paris", " cat"]).save("ablated")
    return s.results if wait else s.job.id


def fetch(url, job):
    """The results of a job, whoever submitted it, whenever."""
    return weft.connect(url).job(job).result()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(fetch(*sys.argv[1:]))
    elif len(sys.argv) == 2:
        print("python submit_and_fetch.py", sys.argv[1], run(weft.connect(sys.argv[1]).model("induction"), wait=False))
    else:
        with serve.background(["induction"]) as url:
            job = run(weft.connect(url).model("induction"), wait=False)
            subprocess.run([sys.executable, __file__, url, job], check=True)
