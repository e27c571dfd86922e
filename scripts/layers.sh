#!/usr/bin/env bash
# Holds the house together: arrows between crates point down only, and names that belong to one crate stand nowhere else.
# Reads only. Needs cargo and python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo metadata --no-deps --format-version 1 --locked >/dev/null || exit 1
cargo metadata --no-deps --format-version 1 --locked | python3 -c '
import json, os, re, sys

FLOOR = {"protocol": 1, "certs": 2, "logstore": 2, "link": 3, "coordinator": 4, "daemon": 4, "engine": 4, "cli": 4}
# The program may carry the three servers, each behind a feature.
OPTIONAL = {("cli", "coordinator"), ("cli", "daemon"), ("cli", "engine")}
# Outside the house: they see everything, and nothing sees them.
OUTSIDE = {"tests", "examples/rust-pipeline"}
HOME = {
    "quinn": {"link"}, "quinn-proto": {"link"}, "quinn-udp": {"link"},
    "rcgen": {"certs"}, "x509-parser": {"certs"},
    "dora-daemon": {"engine"}, "dora-message": {"engine"}, "zenoh": {"engine"},
    "dora-core": {"cli", "engine"},
    "anyhow": {"cli"},
}
PURE = {"blake3", "postcard", "serde", "thiserror", "uuid", "zeroize", "zstd"}

faults = []
root = os.getcwd()
meta = json.load(sys.stdin)
folder_of = {p["name"]: os.path.relpath(os.path.dirname(p["manifest_path"]), root) for p in meta["packages"]}
for package in meta["packages"]:
    folder = folder_of[package["name"]]
    if folder in OUTSIDE:
        continue
    if folder not in FLOOR:
        faults.append(f"{folder}/: a crate without a floor; give it one in scripts/layers.sh")
        continue
    for dep in package["dependencies"]:
        name, kind = dep["name"], dep["kind"] or "normal"
        where = f"{folder}/Cargo.toml"
        if name in folder_of:
            below = folder_of[name]
            if below in OUTSIDE:
                faults.append(f"{where}: nothing may depend on {below}")
            elif (folder, below) in OPTIONAL:
                if not dep["optional"]:
                    faults.append(f"{where}: {name} must be optional")
            elif FLOOR[below] >= FLOOR[folder]:
                faults.append(f"{where}: the arrow to {below} (floor {FLOOR[below]}) does not point down from floor {FLOOR[folder]}")
        elif kind == "normal":
            if name in HOME and folder not in HOME[name]:
                faults.append(f"{where}: {name} belongs to {sorted(HOME[name])} alone")
            if folder == "protocol" and name not in PURE:
                faults.append(f"{where}: protocol is pure, and {name} is not in its list")

def sources(*folders):
    for top in folders:
        for path, dirs, files in os.walk(top):
            dirs[:] = sorted(d for d in dirs if d not in {"target", "fuzz"})
            for file in sorted(files):
                if file.endswith(".rs"):
                    yield os.path.join(path, file)

def code(path):
    """Lines without comments, with their numbers."""
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        yield number, re.sub(r"//.*", "", line)

USES = {name.replace("-", "_"): home for name, home in HOME.items()}
NAMED = re.compile(r"\b(" + "|".join(USES) + r")::")
PRINT = re.compile(r"\be?print(ln)?!")
SLEEP = re.compile(r"(?<!\.)\b(sleep|sleep_ms|sleep_until)\(")
# The one way to wait, and what must itself take time.
MAY_SLEEP = {
    "tests/src/patience.rs",
    "cli/tests/access/patience.rs",  # its twin, for a crate that does not know `tests`
    "tests/src/bin/flood.rs",  # spreads its packets over time
    "engine/tests/real_engine/support.rs",  # waits for files and pids, as patience.rs does
    "link/tests/loopback/round_trips.rs",  # a line that delays packets
}
for path in sources(*FLOOR):
    folder = path.split(os.sep)[0]
    inner = path.split(os.sep)[1]
    for number, line in code(path):
        found = NAMED.search(line)
        if found and folder not in USES[found[1]] and inner == "src":
            faults.append(f"{path}:{number}: {found[1]} is named outside {sorted(USES[found[1]])}")
        if PRINT.search(line) and inner == "src" and not path.startswith(os.path.join("cli", "src", "output")):
            faults.append(f"{path}:{number}: only cli/src/output prints")
        if inner == "src" and re.search(r"\bprocess::exit\(", line):
            faults.append(f"{path}:{number}: return an exit code from main instead")

tests = ["tests"] + [os.path.join(f, "tests") for f in FLOOR if os.path.isdir(os.path.join(f, "tests"))]
for path in sources(*tests):
    if path in MAY_SLEEP:
        continue
    for number, line in code(path):
        if SLEEP.search(line):
            faults.append(f"{path}:{number}: tests wait for a condition (tests/src/patience.rs), they do not sleep")

for path in sources(*FLOOR, "tests/src"):
    if os.path.basename(path) == "mod.rs":
        faults.append(f"{path}: foo.rs stands beside foo/, there is no mod.rs")
    first = open(path, encoding="utf-8").readline()
    if "/src/" in path and os.path.basename(path) != "tests.rs" and not first.startswith("//!"):
        faults.append(f"{path}: a file opens with what it is responsible for (//!)")

for fault in faults:
    print(f"layers: {fault}", file=sys.stderr)
if faults:
    sys.exit(1)
print(f"layers: {len(FLOOR)} crates, arrows point down, names are at home")
'
