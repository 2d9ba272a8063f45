#!/bin/sh
# Runs the extension's own tests inside an installed Isaac Sim (5.0 to 6.2), without a window.
#
#     scripts/test_in_isaac.sh /path/to/isaac-sim
#     ISAAC_PATH=/path/to/isaac-sim scripts/test_in_isaac.sh
#
# Isaac Sim's licence is its user's to accept, before. The results are printed and lie in the folder that is named last.
set -eu

usage() { sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//'; }
case "${1:-}" in -h | --help) usage; exit 0 ;; esac

root=${1:-${ISAAC_PATH:-}}
if [ -z "$root" ]; then
    echo "Where is Isaac Sim? Give its folder, or set ISAAC_PATH." >&2
    usage >&2
    exit 2
fi
kit="$root/kit/kit"
if [ ! -x "$kit" ]; then
    echo "$root is no Isaac Sim: there is no $kit. For a pip installation give the folder of the package isaacsim:" >&2
    echo "    python -c 'import isaacsim, os; print(os.path.dirname(isaacsim.__file__))'" >&2
    exit 2
fi

checkout=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
out=$(mktemp -d "${TMPDIR:-/tmp}/saccade-tests-XXXXXX")
set -- --empty --enable omni.kit.test
for folder in apps exts extscache extsDeprecated; do
    if [ -d "$root/$folder" ]; then set -- "$@" --ext-folder "$root/$folder"; fi
done
experience="$root/apps/isaacsim.exp.base.zero_delay.kit"
[ -f "$experience" ] || experience="$root/apps/isaacsim.exp.base.kit"
echo "Isaac Sim:  $root ($(cat "$root/VERSION" 2>/dev/null || echo 'no VERSION'))"
echo "Experience: $experience"
echo "Results:    $out"

# The test's own process gets the experience as its arguments, so that RTX and physics are there.
set -- "$@" --ext-folder "$checkout/exts" \
    --/exts/omni.kit.test/testExts/0=saccade \
    --/exts/omni.kit.test/testExtApp="$experience" \
    --/exts/omni.kit.test/testExtOutputPath="$out" \
    --/exts/omni.kit.test/testExtArgs/0=--no-window \
    --/exts/omni.kit.test/testExtArgs/1=--allow-root \
    --/exts/omni.kit.test/runTestsAndQuit=true \
    --/app/enableStdoutOutput=0 --no-window --allow-root
"$kit" "$@"
