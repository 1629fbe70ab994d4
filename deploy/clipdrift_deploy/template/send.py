"""Sends rows that the model has not seen to the server, and their labels once known. Plain HTTP, no client library."""

import csv
import json
import sys
from itertools import groupby
from pathlib import Path
from urllib.request import Request, urlopen

FOLDER = Path(__file__).parent
SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
MODEL = f"{SERVER}/v2/models/pump"
DAY_MS = 86_400_000


def post(url: str, body: dict[str, object]) -> dict[str, object]:
    with urlopen(Request(url, json.dumps(body).encode(), {"content-type": "application/json"})) as answer:
        return json.load(answer)


def predict(rows: list[dict[str, str]]) -> list[str]:
    """Ask for predictions; the answer carries a receipt for every row."""
    n = len(rows)
    numbers = [
        {"name": name, "shape": [n], "datatype": "FP32", "data": [float(row[name]) if row[name] else None for row in rows]}
        for name in ("pressure", "vibration", "temperature")
    ]
    site = {"name": "site", "shape": [n], "datatype": "BYTES", "data": [row["site"] for row in rows]}
    times = [int(row["time_ms"]) for row in rows]
    answer = post(f"{MODEL}/infer", {"inputs": [site, *numbers], "parameters": {"event_time_ms": times}})
    return answer["parameters"]["receipts"]


def main() -> None:
    first_ms = int((FOLDER / "replay_from_ms.txt").read_text())
    with (FOLDER / "data.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["time_ms"]) >= first_ms]
    num_labels = 0
    for day, of_day in groupby(rows, key=lambda row: int(row["time_ms"]) // DAY_MS):
        batch = list(of_day)
        receipts = predict(batch)
        body = {
            "receipts": receipts,
            "labels": [row["state"] for row in batch],
            "label_times_ms": [int(row["label_time_ms"]) for row in batch],
        }
        num_labels += post(f"{MODEL}/feedback", body)["accepted"]
        print(f"\rday {day}: {num_labels:,} predictions labelled", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
