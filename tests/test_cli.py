"""The command line starts at once, says what went wrong without a traceback, and gives programs JSON."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WEFT = str(Path(sys.executable).with_name("weft"))
COMMANDS = ["demo", "atlas", "serve", "models", "reproduce", "show", "replay", "bench"]


def weft(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([WEFT, *arguments], capture_output=True, text=True, timeout=100, cwd=cwd)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = weft(command, "--help")
    assert done.returncode == 0 and "Usage: weft" in done.stdout


def test_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, weft.cli; assert not {'torch', 'numpy', 'fastapi', 'rich.table'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_missing_file_is_one_line_and_status_1() -> None:
    done = weft("show", "nowhere.safetensors")
    assert done.returncode == 1
    assert done.stderr == "weft: there is no file nowhere.safetensors; give the path of a record or an experiment\n"


def test_an_error_is_data_with_json() -> None:
    done = weft("replay", "nowhere", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "not-found"


def test_no_server_says_so() -> None:
    done = weft("models", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("weft: ") and "127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr


def test_a_benchmark_that_is_not_there_is_named_with_those_that_are() -> None:
    done = weft("bench", "nothing")
    assert done.returncode == 1 and "no benchmark is called 'nothing'" in done.stderr


def test_reproduce_lists_the_papers() -> None:
    done = weft("reproduce")
    assert done.returncode == 0
    assert "function-vectors" in done.stdout and "arXiv 2510.26784; meta-llama/Llama-3.3-70B-Instruct" in done.stdout


def test_reproduce_without_weights_says_what_is_missing_and_status_1() -> None:
    done = weft("reproduce", "filter-heads", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and not found["right"]
    assert found["missing"]["needs"][1]["bytes_bfloat16"] == 54_454_256_640
    assert found["rows"][1]["expected"] == "0.863 (884 of 1,024)"


def _interruptible() -> None:
    """What a shell starts in the background ignores interrupts, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_serve_says_where_and_ends_when_interrupted(tmp_path: Path) -> None:
    command = [WEFT, "serve", "planted=induction", "--port", "0", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_interruptible) as server:
        try:
            assert server.stdout is not None
            url = re.search(r"serving planted at (http://127\.0\.0\.1:\d+)", server.stdout.readline())[1]
            assert [model["name"] for model in json.loads(weft("models", "--url", url, "--json").stdout)] == ["planted"]
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130  # what a shell expects of an interrupted command


def test_an_address_that_others_can_reach_is_refused() -> None:
    done = weft("serve", "induction", "--host", "0.0.0.0")
    assert done.returncode == 1 and "weft does not serve on '0.0.0.0'" in done.stderr


def test_the_demo_finds_the_planted_head(tmp_path: Path) -> None:
    done = weft("demo", "--planted", "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["right"] and found["found"] == found["planted"] == [2, 3]
    assert found["effect"][2][3] == pytest.approx(1, abs=0.01)
    assert found["edits"]["asked"] == 12 == found["edits"]["applied"] + found["edits"]["without_effect"]
    assert found["replay_agrees"] and len(found["record"]) == 64
    assert {Path(path).suffix for path in found["files"].values()} == {".html", ".png", ".safetensors"}
    shown = weft("show", found["files"]["record"])
    assert found["record"] in shown.stdout
    again = weft("replay", found["files"]["record"], "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["agrees"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_serves_bobbin_and_ends_with_its_atlas(tmp_path: Path) -> None:
    command = [WEFT, "demo", "--json", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["right"] and found["replay_agrees"]
    assert max(max(row) for row in found["effect"]) > 0.3
    assert {"abilities", "induction", "functions", "predicates"} <= {
        *found["atlas"]["found"],
        *found["atlas"]["skipped"],
    }
    assert Path(found["files"]["report"]).stat().st_size > 1e6
    again = weft("replay", found["files"]["record"], "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["agrees"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_atlas_is_printed_and_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    first = weft("atlas", "planted/pointers", "--n", "16", "--out", str(folder), "--json")
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert {*found["found"], *found["skipped"]} >= {"abilities", "induction", "stream", "functions", "predicates"}
    again = weft("atlas", "planted/pointers", "--n", "16", "--out", str(folder))
    assert again.returncode == 0 and "Left out" in again.stdout
    other = weft("atlas", "planted/pointers", "--n", "17", "--out", str(folder))
    assert other.returncode == 1 and "give another folder" in other.stderr
