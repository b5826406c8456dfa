#!/usr/bin/env bash
# Runs every command of the README, in its order and in one shell, as a reader would. Expects `make build guests` to have run.
#
# What differs from a reader: the demo takes the sample instead of a download, and the host listens on a port that is free.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ -e my-operator ]] && { echo "my-operator/ is there: move it away, this test makes and removes one" >&2; exit 1; }
scratch=$(mktemp -d)
target=$(realpath "${CARGO_TARGET_DIR:-target}")
unset CARGO_TARGET_DIR    # the README's paths are those of a reader, who has not set it

# Stands for the binary: gives `serve` a free port, and becomes the real process, so that a kill hits that.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$scratch/tidegate" <<END
#!/usr/bin/env bash
[[ \$1 == serve ]] && echo \$\$ >> "$scratch/pids" && exec "$target/debug/tidegate" "\$@" --listen 127.0.0.1:$port
exec "$target/debug/tidegate" "\$@"
END
chmod +x "$scratch/tidegate"
export TIDEGATE_SERVER="http://127.0.0.1:$port"

cleanup() {
    # Only what this script has started.
    for pid in $(cat "$scratch/pids" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    rm -rf my-operator "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The blocks marked `sh`; `tail` and friends are left as they are.
awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' README.md \
  | sed -e "s|^make demo\$|CARGO_TARGET_DIR='$target' make demo ARGS=--quick|" \
        -e "s|^make build\$|CARGO_TARGET_DIR='$target' make build|" \
        -e "s|^export PATH=.*|export PATH='$scratch:$PATH'|" \
  > "$scratch/readme.sh"
echo "check > '$scratch/checked'" >> "$scratch/readme.sh"
[[ $(grep -c . "$scratch/readme.sh") -gt 20 ]] || { echo "README.md has no commands: is a fence broken?" >&2; exit 1; }

echo "== the README's commands"
bash -euo pipefail -x "$scratch/readme.sh" > "$scratch/out" 2> "$scratch/err" || {
    echo "a command of the README failed (output, then what was run):" >&2
    tail -n 40 "$scratch/out" >&2
    tail -n 40 "$scratch/err" >&2
    tail -n 20 my-operator/host.log >&2 || true
    exit 1
}

# What the README says of the lines: as many as the greatest ordinal of each channel, after a kill and a rescale.
awk '{ seen++; if ($2 < 100 || $2 != $3) wrong++ }
     END { if (seen != 4 || wrong) { print "channels seen: " seen + 0 ", with lines lost, doubled or too few: " wrong + 0; exit 1 } }' \
    "$scratch/checked" >&2

# Facts that the reference repeats from the code.
missing=0
says() { grep -qF -- "$2" "$1" || { echo "$1 does not tell of $2" >&2; missing=1; }; }
while read -r name; do says docs/metrics.md "$name"; done < <(grep -oE '"tidegate_[a-z_]+"' host/src/metrics.rs | tr -d '"' | grep -vE '_(bucket|sum|count)$' | sort -u)
while read -r name; do says ARCHITECTURE.md "$name"; done < <(sed -nE 's/^ +[A-Za-z]+ = "([a-z-]+)",$/\1/p' host/src/fault.rs)
while read -r key; do says docs/limits.md "\`$key\`"; done \
    < <(grep -oE 'key: "[a-z_]+"' host/core/src/job_graph/guest_limits.rs | grep -oE '"[a-z_]+"' | tr -d '"' | sort -u)
exit $missing
