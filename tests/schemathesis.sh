#!/usr/bin/env bash
# Schemathesis against the description of the API: requests are made up from /v1/openapi.json, right ones and wrong ones, and every answer is
# compared with what the description promises. Expects `make build` to have run.
#
# About a minute; SCHEMATHESIS_EXAMPLES=1000 (examples of each operation, 10 unless said) looks longer, SCHEMATHESIS_SEED elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.32.5
target=$(realpath "${CARGO_TARGET_DIR:-target}")
packages="$target/schemathesis-$version"
examples=${SCHEMATHESIS_EXAMPLES:-10}
seed=${SCHEMATHESIS_SEED:-1}
python=${PYTHON:-python3}

if [[ ! -e $packages/installed ]]; then
    echo "== installing schemathesis $version" >&2
    rm -rf "$packages"
    "$python" -m pip install --quiet --disable-pip-version-check --target "$packages" "schemathesis==$version"
    touch "$packages/installed"
fi

scratch=$(mktemp -d)
host=
cleanup() {
    [[ -z $host ]] || { kill "$host" 2>/dev/null || true; wait "$host" 2>/dev/null || true; }
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url="http://127.0.0.1:$port"
export TIDEGATE_TOKENS="write:schemathesis-0123456789"
# What is asked for is as fast as it can be: the rate limit has tests of its own.
"$target/debug/tidegate" serve --data "$scratch/data" --base "$scratch" --listen "127.0.0.1:$port" --rate-limit 0 > "$scratch/host.log" 2>&1 &
host=$!
tidegate() { TIDEGATE_SERVER="$url" TIDEGATE_TOKEN="${TIDEGATE_TOKENS#write:}" "$target/debug/tidegate" "$@"; }
for _ in $(seq 100); do
    tidegate job list > /dev/null 2>&1 && break
    kill -0 "$host" 2>/dev/null || { cat "$scratch/host.log" >&2; exit 1; }
    sleep 0.1
done

# A job that can be asked for, so that not every answer is a 404.
cat > "$scratch/job.toml" <<'END'
name = "a"

[[source]]
name = "in"
connector = "generator"
rate = 100

[[sink]]
name = "out"
connector = "blackhole"
input = ["in"]
END
tidegate job create "$scratch/job.toml" > /dev/null

# Left out: events (the answer never ends; host/src/http/tests/events.rs reads it). Checks that don't fit: what a job or a component must be
# is more than a schema can say, so a document that the schema allows may be refused.
status=0
(cd "$scratch" && PYTHONPATH="$packages" "$python" -c 'from schemathesis.cli import schemathesis; schemathesis()' run "$url/v1/openapi.json" \
    --header "authorization: Bearer ${TIDEGATE_TOKENS#write:}" \
    --max-examples "$examples" --seed "$seed" --workers 1 --request-timeout 30 --no-color --warnings off \
    --exclude-path-regex '/events$' --exclude-checks positive_data_acceptance \
    --generation-database none) > "$scratch/report.txt" 2>&1 || status=$?
if [[ $status -ne 0 ]]; then
    cat "$scratch/report.txt" >&2
    echo "---- the end of the host's log ----" >&2
    tail -n 20 "$scratch/host.log" >&2
    echo "schemathesis found something; SCHEMATHESIS_SEED=$seed repeats it" >&2
    exit 1
fi
kill -0 "$host" || { tail -n 40 "$scratch/host.log" >&2; echo "the host has ended" >&2; exit 1; }
if grep -q 'panicked at' "$scratch/host.log"; then
    grep -A 5 'panicked at' "$scratch/host.log" >&2
    exit 1
fi
tail -n 12 "$scratch/report.txt"
