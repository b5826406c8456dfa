#!/usr/bin/env python3
"""Works out what the flights job must have written, without Tidegate, and compares it with what it wrote.

    python3 oracle.py --input data/sample.csv --out out
    python3 oracle.py --input data/flights.csv --out out --dead-letters DIR_OR_FILE   # JSON lines, one for each
    python3 oracle.py --input data/flights.csv --out out --dead-letter-count 60

OUT holds the folders hours, late and cancelled. Every committed part file (*.jsonl) below them is read; what is hidden, or staged,
is not committed. The operators go flight by flight and keep running sums; here the whole table is sorted and cut into groups.

Exit code 0: all right. 1: something differs. 2: nothing to compare.
"""

import argparse
import collections
import csv
import datetime
import functools
import itertools
import json
import pathlib
import re
import sys

SHOWN = 5
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


@functools.lru_cache(maxsize=None)
def hour_of(text):
    """Milliseconds of a full hour in UTC, or None."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00Z", text or "", re.ASCII):
        return None
    try:
        hour = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    return (hour - EPOCH) // datetime.timedelta(milliseconds=1)


def whole_number(text):
    """None where the field is empty, an error where it is something else than a number."""
    if text in ("", "NA"):
        return None
    if not re.fullmatch(r"-?(0|[1-9]\d*)", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def read_flights(path):
    """(departures, cancelled, bad): (carrier, origin, hour, delay) of those that left, rows of those that did not, a count."""
    departures, cancelled, bad = [], [], 0
    with path.open(newline="") as table:
        rows = csv.reader(table)
        header = next(rows)
        for row in rows:
            flight = dict(zip(header, row)) if len(row) == len(header) else None
            verdict = judge(flight)
            if verdict is None:
                bad += 1
            elif verdict == "cancelled":
                cancelled.append(flight)
            else:
                departures.append(verdict)
    return departures, cancelled, bad


def judge(flight):
    if flight is None:
        return None
    hour = hour_of(flight["time_hour"])
    carrier = re.fullmatch(r"[A-Z0-9]{2}", flight["carrier"], re.ASCII)
    origin = re.fullmatch(r"[A-Z]{3}", flight["origin"], re.ASCII)
    try:
        clock, delay = whole_number(flight["dep_time"]), whole_number(flight["dep_delay"])
    except ValueError:
        return None
    if hour is None or not carrier or flight["carrier"] == "NA" or not origin or flight["origin"] == "NA":
        return None
    if clock is None and delay is None:
        return "cancelled"
    if clock is None or delay is None or not 0 <= clock <= 2400 or clock % 100 > 59 or not -720 <= delay <= 2880:
        return None
    return flight["carrier"], flight["origin"], hour, delay


def expected_hours(departures, threshold):
    hours = []
    for (carrier, origin, hour), group in itertools.groupby(sorted(departures), key=lambda departure: departure[:3]):
        delays = [delay for *_, delay in group]
        hours.append({
            "carrier": carrier, "origin": origin, "hour": hour, "flights": len(delays), "delay_sum": sum(delays),
            "delay_max": max(delays), "delayed": sum(delay >= threshold for delay in delays),
        })
    return hours


def part_files(folder):
    """Committed files: not hidden, not staged."""
    for path in sorted(folder.rglob("*.jsonl")):
        inner = path.relative_to(folder).parts
        if not any(part.startswith((".", "_")) or "staging" in part for part in inner):
            yield path


def lines_of(paths):
    for path in paths:
        with path.open() as part:
            for number, line in enumerate(part, 1):
                if not line.endswith("\n"):
                    raise SystemExit(f"{path}:{number}: the last line is cut off")
                yield line


def records(folder):
    for line in lines_of(part_files(folder)):
        yield json.loads(line)


def canonical(record):
    return json.dumps(record, sort_keys=True)


class Verdict:
    def __init__(self):
        self.good = True
        self.color = sys.stdout.isatty()

    def say(self, good, text, details=()):
        self.good &= good
        sign = "\u2713" if good else "\u2717"
        if self.color:
            sign = f"\x1b[{32 if good else 31}m{sign}\x1b[0m"
        print(f"  {sign} {text}")
        details = list(details)
        for detail in details[:SHOWN]:
            print(f"      {detail}")
        if len(details) > SHOWN:
            print(f"      \u2026 and {len(details) - SHOWN:,} more")

    def compare(self, what, expected, found):
        """Both are lists of records; order between part files means nothing."""
        expected, found = (collections.Counter(map(canonical, records)) for records in (expected, found))
        missing, extra = expected - found, found - expected
        duplicated = collections.Counter({record: count for record, count in extra.items() if record in expected})
        extra -= duplicated
        total = sum(expected.values())
        if not missing and not extra and not duplicated:
            return self.say(True, f"{what}: {total:,}, each exactly once" if total else f"{what}: none, as it should be")
        details = []
        for name, differing in (("missing", missing), ("duplicated", duplicated), ("wrong or unexpected", extra)):
            details += [f"{name}: {record}" for record in itertools.islice(differing.elements(), SHOWN + 1)]
        counts = f"{sum(missing.values()):,} missing, {sum(duplicated.values()):,} duplicated, {sum(extra.values()):,} wrong"
        self.say(False, f"{what}: {total:,} expected; {counts}", details)


def cancelled_identity(flight):
    return {name: str(flight[name]) for name in ("carrier", "flight", "origin", "dest", "sched_dep_time", "time_hour")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=pathlib.Path, required=True, help="the CSV file that the job read")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder with the sinks' folders")
    parser.add_argument("--threshold-min", type=int, default=15, help="as in the job file (default: 15)")
    parser.add_argument("--dead-letters", type=pathlib.Path, help="file, or folder of files, with one dead letter a line")
    parser.add_argument("--dead-letter-count", type=int, help="how many dead letters the job reports")
    arguments = parser.parse_args()
    for needed in (arguments.input, arguments.out):
        if not needed.exists():
            print(f"{needed} is not there", file=sys.stderr)
            return 2

    departures, cancelled, bad = read_flights(arguments.input)
    print(f"{arguments.input}: {len(departures):,} departures, {len(cancelled):,} cancelled flights, {bad:,} bad rows")
    verdict = Verdict()
    verdict.compare("hours of an airline at an airport", expected_hours(departures, arguments.threshold_min),
                    records(arguments.out / "hours"))
    verdict.compare("cancelled flights", map(cancelled_identity, cancelled),
                    map(cancelled_identity, records(arguments.out / "cancelled")))
    verdict.compare("late flights", [], records(arguments.out / "late"))
    count = arguments.dead_letter_count
    if arguments.dead_letters is not None:
        single = arguments.dead_letters.is_file()
        count = sum(1 for _ in lines_of([arguments.dead_letters] if single else part_files(arguments.dead_letters)))
    if count is not None:
        verdict.say(count == bad, f"dead letters: {count:,}" + ("" if count == bad else f", {bad:,} expected"))
    print("The result is right." if verdict.good else "The result is WRONG.")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
