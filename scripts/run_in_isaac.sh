#!/usr/bin/env bash
# Finds Isaac Sim (a folder, a pip package or a container), runs scripts/isaac_validate.py in it and returns the verdict.
#
#     scripts/run_in_isaac.sh isaac --frames 100
#     ISAAC_PATH=~/isaacsim scripts/run_in_isaac.sh config/warehouse.yaml --ros2
#     ISAAC_IMAGE=nvcr.io/nvidia/isaac-sim:6.0.1 scripts/run_in_isaac.sh isaac
#
# Status: 0 pass, 1 fail, 2 wrong usage, 3 invalid or no Isaac Sim. --ros2 sets ROS 2's library path before the start;
# every other argument goes to isaac_validate.py. NVIDIA's licence is yours to accept: nothing here does it for you.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
script="$here/scripts/isaac_validate.py"
ros2=0
arguments=()
for argument in "$@"; do
  case "$argument" in
    --ros2) ros2=1; arguments+=(--set ros2.enabled=true) ;;
    -h|--help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done
if [ "${#arguments[@]}" -eq 0 ]; then
  echo "run_in_isaac.sh: name a configuration, such as: scripts/run_in_isaac.sh isaac" >&2
  exit 2
fi

say() { echo "run_in_isaac.sh: $*" >&2; }

version_in() { [ -f "$1/VERSION" ] && head -n 1 "$1/VERSION" || echo unknown; }

find_folder() {
  local folder
  for folder in "${ISAAC_PATH:-}" "${ISAACSIM_PATH:-}" ./_build/linux-x86_64/release "$HOME/isaacsim" "$HOME/isaac-sim" \
      /isaac-sim /opt/isaac-sim "$HOME"/.local/share/ov/pkg/isaac-sim-* "$HOME"/.local/share/ov/pkg/isaac_sim-*; do
    if [ -n "$folder" ] && [ -x "$folder/python.sh" ]; then
      (cd "$folder" && pwd)
      return 0
    fi
  done
  return 1
}

pip_version() {
  "$1" -c 'from importlib.metadata import version; print(version("isaacsim"))' 2>/dev/null
}

pip_folder() {
  "$1" -c 'import importlib.util as u; print(u.find_spec("isaacsim").submodule_search_locations[0])' 2>/dev/null
}

# ROS 2's own libraries lie in another extension from 6.0 on; a running process cannot change its library path.
set_ros2() {
  local root="$1" version="$2" extension distribution
  case "$version" in
    5.*) extension=isaacsim.ros2.bridge ;;
    *) extension=isaacsim.ros2.core ;;
  esac
  distribution="${ROS_DISTRO:-}"
  if [ -z "$distribution" ]; then
    case "$( (. /etc/os-release && echo "${VERSION_ID:-}") 2>/dev/null )" in
      22.04) distribution=humble ;;
      *) distribution=jazzy ;;
    esac
  fi
  if [ -n "${AMENT_PREFIX_PATH:-}" ]; then
    say "a ROS 2 is sourced ($AMENT_PREFIX_PATH): its rclpy only works in Isaac Sim if it was built for the same Python"
  fi
  export ROS_DISTRO="$distribution"
  export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
  local libraries="$root/exts/$extension/$distribution/lib"
  if [ -d "$libraries" ]; then
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries"
    say "ROS 2 $distribution, $RMW_IMPLEMENTATION, libraries from $libraries"
  else
    say "ROS 2 $distribution: there is no $libraries; Isaac Sim may find no rclpy"
  fi
}

status_folder="$(mktemp -d)"
trap 'rm -rf "$status_folder"' EXIT
status_file="$status_folder/status"
code=0

if folder="$(find_folder)"; then
  version="$(version_in "$folder")"
  say "Isaac Sim $version in $folder"
  [ "$ros2" -eq 0 ] || set_ros2 "$folder" "$version"
  export ISAAC_PATH="$folder"
  "$folder/python.sh" "$script" --status-file "$status_file" "${arguments[@]}" || code=$?
elif python="${PYTHONEXE:-$(command -v python3 || true)}" && [ -n "$python" ] && version="$(pip_version "$python")"; then
  say "Isaac Sim $version as a package of $python"
  [ "$ros2" -eq 0 ] || set_ros2 "$(pip_folder "$python")" "$version"
  "$python" "$script" --status-file "$status_file" "${arguments[@]}" || code=$?
elif [ -n "${ISAAC_IMAGE:-}" ] && command -v docker >/dev/null; then
  say "Isaac Sim in the container $ISAAC_IMAGE"
  # Its version and its ROS 2 libraries are only known inside: what sets them goes in as it stands here.
  inside="$(declare -f say version_in set_ros2)"
  inside+='
folder=/isaac-sim; version="$(version_in "$folder")"; say "Isaac Sim $version in the container"
[ "$0" != ros2 ] || set_ros2 "$folder" "$version"
ISAAC_PATH="$folder" exec "$folder/python.sh" "$@"'
  name=python.sh
  [ "$ros2" -eq 0 ] || name=ros2
  # ACCEPT_EULA and PRIVACY_CONSENT are handed on as you set them, and only then.
  docker run --rm --gpus all --network host --entrypoint /bin/bash \
    -e ACCEPT_EULA -e PRIVACY_CONSENT -e ROS_DISTRO -e RMW_IMPLEMENTATION \
    -v "$here:$here" -v "$PWD:$PWD" -v "$status_folder:$status_folder" -w "$PWD" "$ISAAC_IMAGE" \
    -c "$inside" "$name" \
    "$script" --status-file "$status_file" "${arguments[@]}" || code=$?
else
  say "no Isaac Sim found. Set ISAAC_PATH to its folder (the one with python.sh), activate the environment into which it" \
    "was installed with pip, or set ISAAC_IMAGE to a container image"
  exit 3
fi

# python.sh turns every status but 0 into 1: what the script wrote before the end counts.
if [ -f "$status_file" ]; then
  read -r verdict _ < "$status_file"
  exit "$verdict"
fi
say "Isaac Sim ended with status $code before there was a verdict: its log says why"
exit 3
