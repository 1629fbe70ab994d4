"""Sends rows that the model has not seen to the server, day by day, and their labels. Plain HTTP, no client library.

python send.py [SERVER [SECONDS_PER_DAY]]
"""

import csv
import json
import sys
import time
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

FOLDER = Path(__file__).parent
DAY_MS = 86_400_000


def post(url: str, body: dict[str, object]) -> dict[str, object]:
    """The answer; a server that is busy or still loading says 503 and when to come again."""
    for patience in range(30, -1, -1):
        try:
            with urlopen(Request(url, json.dumps(body).encode(), {"content-type": "application/json"})) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code != 503 or not patience:
                raise
            time.sleep(float(error.headers.get("retry-after", 1)))
    raise AssertionError("the last try ends above")


def predict(model_url: str, rows: list[dict[str, str]]) -> list[str]:
    """Ask for predictions; the answer carries a receipt for every row."""
    n = len(rows)
    numbers = [
        {"name": name, "shape": [n], "datatype": "FP32", "data": [float(row[name]) if row[name] else None for row in rows]}
        for name in ("pressure", "vibration", "temperature")
    ]
    site = {"name": "site", "shape": [n], "datatype": "BYTES", "data": [row["site"] for row in rows]}
    times = [int(row["time_ms"]) for row in rows]
    answer = post(f"{model_url}/infer", {"inputs": [site, *numbers], "parameters": {"event_time_ms": times}})
    return answer["parameters"]["receipts"]


def label(model_url: str, rows: list[dict[str, str]], receipts: list[str]) -> int:
    """Hand in what the mechanic found, each label with the receipt of its prediction; how many were accepted."""
    body = {
        "receipts": receipts,
        "labels": [row["state"] for row in rows],
        "label_times_ms": [int(row["label_time_ms"]) for row in rows],
    }
    return post(f"{model_url}/feedback", body)["accepted"]


def main(server: str = "http://127.0.0.1:8080", seconds_per_day: str = "0.5") -> None:
    """The pause between two days is there so that there is something to watch."""
    model_url = f"{server}/v2/models/pump"
    first_ms = int((FOLDER / "replay_from_ms.txt").read_text())
    with (FOLDER / "data.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["time_ms"]) >= first_ms]
    num_labels = 0
    for day, of_day in groupby(rows, key=lambda row: int(row["time_ms"]) // DAY_MS):
        batch = list(of_day)
        num_labels += label(model_url, batch, predict(model_url, batch))
        date = datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date()
        print(f"\r{date}: {num_labels:,} predictions, each with its label", end="", flush=True)
        time.sleep(float(seconds_per_day))
    print()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except HTTPError as error:
        sys.exit(
            f"{error.url} answered {error.code}: {error.read().decode()[:300]}\nIs the model trained? `clipdrift train pump`"
        )
    except URLError as error:
        sys.exit(f"the server does not answer ({error.reason}); start it with `clipdrift up`")
