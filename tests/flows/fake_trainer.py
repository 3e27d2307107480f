"""A trainer of a few lines that keeps the contract of `flows.process`, or breaks it as `--set fake.mode=` says."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
if sys.argv[1] == "export":  # of a run that it made, into a folder
    Path(sys.argv[3]).mkdir(parents=True)
    print(json.dumps({"folder": sys.argv[3]}))
    sys.exit(0)
parser.add_argument("verb", choices=["fit"])
parser.add_argument("run")
for option in ("--manifest", "--runs", "--events"):
    parser.add_argument(option, type=Path, required=True)
parser.add_argument("--parent", type=int, required=True)
parser.add_argument("--name", default="fake")
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--json", action="store_true", required=True)
given = parser.parse_args()

mode = dict(change.split("=", 1) for change in given.set).get("fake.mode", "whole")
folder = given.runs / given.name
folder.mkdir(parents=True, exist_ok=True)
result = {"run": given.name, "folder": str(folder), "manifest": str(given.manifest), "steps": 3, "status": "complete"}
result |= {"checkpoint": str(folder / "step-3"), "report": str(folder / "report.html")}
result["changes"] = given.set
result |= {"report_json": str(folder / "report.json"), "bits_per_byte": 1.5, "ngrams": {"2": 2.5, "3": 2.25}}
first = os.environ.get("RANK", "0") == "0"


def say(**event: object) -> None:
    with given.events.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def end(code: int, **changes: object) -> None:
    told = result | changes
    table = {"format": "gristmill.run/1", "name": given.name, "digest": "0", "step": told["steps"], "steps": 3}
    version = json.loads(given.manifest.read_text("utf-8")) if given.manifest.exists() else {"name": "", "version": ""}
    table |= {"version": {"address": f"{version['name']}@{version['version']}"}, "status": told["status"]}
    table["evaluation"] = {"bits_per_byte": 1.5} if code == 0 else None
    if first:
        (folder / "run.json").write_text(json.dumps(table), "utf-8")
        print("noise of a library")
        print(json.dumps(told), flush=True)
    sys.exit(code)


def wait() -> None:
    """Until a signal comes or the parent goes; then some more work, and a checkpoint that counts the signals."""
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signals.append(number))
    (folder / f"pid-{os.getpid()}").touch()
    while not signals and _alive(given.parent):
        time.sleep(0.02)
    time.sleep(0.5)
    (folder / f"checkpoint-{os.environ.get('RANK', '0')}").write_text(json.dumps(signals))
    end(130, status="stopped", steps=1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


match mode:
    case "refuse":
        sys.stderr.write("a warning of a library\nerror: \x1b[31mbatch.rows\x1b[0m is 1 for 2 processes\n")
        sys.exit(2)
    case "crash":
        sys.stderr.write("".join(f"line {n}\n" for n in range(40)) + "RuntimeError: \x1b[31mbroken\n")
        sys.exit(1)
    case "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    case "mute":
        sys.exit(0)
    case "stopped":
        end(130, status="stopped", steps=1)
    case "wait":
        wait()
    case "deaf":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        (folder / f"pid-{os.getpid()}").touch()
        while _alive(given.parent):
            time.sleep(0.02)
        sys.exit(1)

say(say="three steps of a fake")
say(phase="train", total=3)
for step in range(3):
    say(advance=1)
    say(note=f"loss {3 - step}")
with given.events.open("a", encoding="utf-8") as file:
    file.write("{not json\n[1]\n")
    file.write('{"phase": "half a ')
    file.flush()
    time.sleep(0.3)
    file.write('line", "total": 1}\n')
end(0)
